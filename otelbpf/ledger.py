"""The ledger: every event and every record ends in exactly one term, or the books do not balance."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


@dataclass(slots=True)
class EventLedger:
    """The events of one probe: what the kernel saw, and what became of it."""

    seen: int = 0
    processed: int = 0
    filtered: int = 0
    throttled: int = 0
    undecodable: int = 0
    pending: int = 0
    lost: dict[str, int] = field(default_factory=dict)
    """Reason → events."""

    @property
    def accounted(self) -> int:
        """The sum of all terms: equals *seen* when nothing went missing in silence."""
        return (
            self.processed + self.filtered + self.throttled + self.undecodable + self.pending + sum(self.lost.values())
        )

    @property
    def balanced(self) -> bool:
        return self.seen == self.accounted


class RecordLedger(Protocol):
    """The records of one signal at one exporter."""

    @property
    def made(self) -> int: ...
    @property
    def accepted(self) -> int: ...
    @property
    def rejected(self) -> int: ...
    @property
    def queued(self) -> int: ...
    @property
    def spooled(self) -> int: ...
    @property
    def recovered(self) -> int: ...
    @property
    def dropped(self) -> Mapping[str, int]: ...
    @property
    def balanced(self) -> bool: ...


EVENT_TERMS = ("seen", "processed", "filtered", "throttled", "lost", "undecodable", "pending")
DUE_TERMS = ("due", "made", "shed")
RECORD_TERMS = ("made", "recovered", "accepted", "rejected", "dropped", "queued", "spooled")


class DueRecords(Protocol):
    """The log records of one probe that its settings asked for."""

    @property
    def made(self) -> int: ...
    @property
    def shed(self) -> Mapping[str, int]: ...


def summary(
    seconds: float,
    events: Mapping[str, EventLedger],
    records: Mapping[tuple[str, str], RecordLedger],
    due: Mapping[str, DueRecords] | None = None,
) -> Iterator[str]:
    """The lines that `run` prints when it ends: both ledgers, each row with its verdict.

    *events* are by probe, *records* by exporter and signal, *due* by probe: it is shown where records were shed for
    one of the agent's own limits.
    """
    yield f"summary: {seconds:.1f} s"
    yield _row("events", EVENT_TERMS, "")
    for probe, ledger in events.items():
        numbers = [sum(ledger.lost.values()) if term == "lost" else getattr(ledger, term) for term in EVENT_TERMS]
        yield _row(probe, numbers, _verdict(ledger, ledger.lost))
    shedding = {probe: one for probe, one in (due or {}).items() if any(one.shed.values())}
    if shedding:
        yield _row("due", DUE_TERMS, "")
    for probe, one in shedding.items():
        shed = sum(one.shed.values())
        yield _row(f"{probe} logs", [one.made + shed, one.made, shed], _reasons(one.shed))
    yield _row("records", RECORD_TERMS, "")
    for (exporter, signal), record in records.items():
        numbers = [
            sum(record.dropped.values()) if term == "dropped" else getattr(record, term) for term in RECORD_TERMS
        ]
        yield _row(f"{exporter} {signal}", numbers, _verdict(record, record.dropped))


def _row(title: str, cells: Iterable[object], note: str) -> str:
    return (f"{title:<24}" + "".join(f"{cell!s:>13}" for cell in cells) + f"  {note}").rstrip()


def _verdict(ledger: EventLedger | RecordLedger, losses: Mapping[str, int]) -> str:
    verdict = "balanced" if ledger.balanced else "DOES NOT BALANCE"
    return f"{verdict} {_reasons(losses)}".rstrip()


def _reasons(losses: Mapping[str, int]) -> str:
    reasons = ", ".join(f"{reason} {count}" for reason, count in losses.items() if count)
    return f"({reasons})" if reasons else ""
