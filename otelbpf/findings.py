"""What `otelbpf check` found, for a program and for a person."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from otelbpf import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

State = Literal["ok", "degraded", "failed"]
SYMBOLS: dict[State, str] = {"ok": "ok      ", "degraded": "degraded", "failed": "FAILED  "}


@dataclass(frozen=True, slots=True)
class Row:
    """One finding: *what* there is, and *todo* where something should be done about it."""

    subject: str
    state: State
    what: str
    todo: str = ""
    vital: bool = False
    """Whether the agent cannot run at all when this failed."""


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """One probe: the way in use, every other way with the reason why not (None: it would do), what is not seen."""

    name: str
    state: State
    way: str | None
    ways: dict[str, str | None]
    lost: list[str]
    refused: dict[str, str]
    instead: str
    """What it sees less of, by what it does in the place of something refused."""
    memory_bytes: int
    ring_bytes: int
    attach_ms: float


@dataclass(frozen=True, slots=True)
class Report:
    """All findings."""

    version: str = __version__
    kernel: str = ""
    machine: str = ""
    rows: list[Row] = field(default_factory=list)
    probes: list[ProbeReport] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 all well, 1 something degraded, 2 cannot run."""
        if any(row.state == "failed" and row.vital for row in self.rows):
            return 2
        if self.probes and all(probe.state == "failed" for probe in self.probes):
            return 2
        states = [row.state for row in self.rows] + [probe.state for probe in self.probes]
        return int(any(state != "ok" for state in states))


def size_text(count: int) -> str:
    """*count* bytes for a person."""
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.0f} KiB"


def as_json(report: Report) -> str:
    """The report for a program."""
    made: dict[str, Any] = {**asdict(report), "exit_code": report.exit_code}
    return json.dumps(made, indent=2)


def as_text(report: Report) -> str:
    """The report for a person."""
    verdict = ("all well", "something is degraded", "cannot run here")[report.exit_code]
    lines = [f"otelbpf {report.version} on Linux {report.kernel}, {report.machine}: {verdict}", ""]
    for row in report.rows:
        lines += _lines(row.state, row.subject, row.what, [f"to do: {row.todo}"] if row.todo else [])
    for probe in report.probes:
        lines += _lines(probe.state, f"probe {probe.name}", _probe_text(probe), list(_probe_details(probe)))
    return "\n".join(lines)


def _probe_text(probe: ProbeReport) -> str:
    if probe.way is None:
        return "not available on this kernel"
    return f"by {probe.way} in {probe.attach_ms:.0f} ms; {size_text(probe.memory_bytes)}, {size_text(probe.ring_bytes)} of it ring"


def _probe_details(probe: ProbeReport) -> Iterator[str]:
    for name, reason in probe.ways.items():
        yield f"way {name}: {reason or 'would work; the first that works is used'}"
    for what, reason in probe.refused.items():
        yield f"{what}: {reason}"
    if probe.instead:
        yield probe.instead
    for detail in probe.lost:
        yield f"not seen: {detail}"


def _lines(state: State, subject: str, what: str, details: list[str]) -> list[str]:
    return [f"{SYMBOLS[state]}  {subject:<22}  {what}", *(f"{'':<34}{detail}" for detail in details)]
