"""What was lost since the last look, kind by kind, as the agent's own events say it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otelbpf.export.numbers import AgentNumbers


@dataclass(frozen=True, slots=True)
class Loss:
    """How much more of one kind is lost than at the last look: events of a *probe*, or items of a *signal* at an
    *exporter*; the others are empty."""

    reason: str
    count: int
    probe: str = ""
    exporter: str = ""
    signal: str = ""
    message: str = ""
    """What the peer or the disk said of it, if anything."""

    @property
    def sentence(self) -> str:
        if self.probe:
            return f"{self.count} events of {self.probe} lost: {self.reason}"
        said = f" ({self.message})" if self.message else ""
        return f"{self.count} {self.signal} lost at exporter {self.exporter}: {self.reason}{said}"


class Losses:
    """Compares readings of the ledgers. `explain` may be called by any thread, `grown` by one at a time."""

    def __init__(self) -> None:
        self._known: Counter[tuple[str, ...]] = Counter()
        self._messages: dict[tuple[str, str, str], str] = {}

    def explain(self, exporter: str, signal: str, reason: str, message: str) -> None:
        """Keeps *message* for the next loss of this kind; how much it is stands in the ledger."""
        self._messages[exporter, signal, reason] = message

    def grown(self, agent: AgentNumbers) -> Iterator[Loss]:
        """One for each kind of loss that has grown since the last call."""
        for probe, events in agent.events.items():
            for reason, total in events.lost.items():
                if count := self._growth((probe, reason), total):
                    yield Loss(reason, count, probe=probe)
        for (exporter, signal), records in agent.records.items():
            for reason, total in ({"rejected": records.rejected} | dict(records.dropped)).items():
                if count := self._growth((exporter, signal, reason), total):
                    message = self._messages.pop((exporter, signal, reason), "")
                    yield Loss(reason, count, exporter=exporter, signal=signal, message=message)

    def _growth(self, kind: tuple[str, ...], total: int) -> int:
        grown = total - self._known[kind]
        self._known[kind] = total
        return max(0, grown)
