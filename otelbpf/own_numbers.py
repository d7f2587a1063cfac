"""All that the agent counts about itself, read from its parts at one moment: the content of its own metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from otelbpf.export.numbers import AgentNumbers, ProbeStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from otelbpf.enrich.kubernetes.watcher import Watcher
    from otelbpf.export import Exporters
    from otelbpf.guards.guard import Guards
    from otelbpf.kernel.attach import AttachedProbe
    from otelbpf.line import Line
    from otelbpf.node import Node
    from otelbpf.probes.probe import Probe


@dataclass(frozen=True, slots=True)
class OwnNumbers:
    """The parts that count. Called by any thread; the parts tell of themselves without waiting for their work."""

    statuses: Sequence[ProbeStatus]
    node: Node
    line: Line
    outputs: Exporters
    guards: Guards
    watcher: Watcher | None

    def __call__(self) -> AgentNumbers:
        return AgentNumbers(
            events=self.node.ledgers(),
            records=self.outputs.ledger(),
            queues=self.outputs.sizes(),
            spools=self.outputs.spools(),
            statuses=self.statuses,
            run_times=self.node.run_times(),
            maps=dict(self.node.maps()),
            overflows=dict(self.node.overflows()),
            caches=self.line.enrichment.counters(),
            series=self.line.metrics.series(),
            series_overflows=self.line.metrics.overflows(),
            watches=list(self.watcher.states()) if self.watcher is not None else (),
            held=dict(self.line.hold.rows) if self.line.hold.is_used else {},
            details=self.node.detail(),
            guards=self.guards.states(),
            stages=self.guards.watchdog.states(),
            nat=self.watcher.conntrack.fill if self.watcher is not None else None,
        )


def statuses(tried: Iterable[AttachedProbe], left_out: Iterable[Probe]) -> list[ProbeStatus]:
    """How each probe is doing: those that were *tried*, and those that the settings leave out."""
    of_tried = [ProbeStatus(one.probe.name, one.way.name if one.way else "", one.state) for one in tried]
    return [*of_tried, *(ProbeStatus(probe.name, "", "off") for probe in left_out)]
