"""This node, live: what brings rows to the line, from rings and iterators, and what the kernel counted."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import numpy as np

from otelbpf.errors import Unsupported
from otelbpf.export.numbers import MapFill, RunTime
from otelbpf.kernel.clock import boottime_offset_ns
from otelbpf.ledger import EventLedger
from otelbpf.source import Rows, event_ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from otelbpf.config import Config
    from otelbpf.kernel.attach import AttachedProbe
    from otelbpf.kernel.drain import Drain, Slice
    from otelbpf.kernel.object import Object
    from otelbpf.line import Line
    from otelbpf.signals.sampling import DetailLedger
    from otelbpf.source import Source
    from otelbpf.tape import Tape

log = logging.getLogger("otelbpf.node")

EVENTS_RING = "events"
"""The ring of each probe, as the kernel half calls it."""
PENDING = "pending"
"""The map of those who wait for an answer, and the kernel's count of them."""
RINGS_WITHIN_S = 0.1
"""What the rings hold waits 10 ms for the drain as a rule; when it is late a snapshot goes on without it."""
READS = 10
READ_AGAIN_S = 0.001


class Node:
    """The live end of the line: `tick` carries what the drain brought, `collect` and `sweep` what is due.

    All three are called by the line's thread alone. Probes, drain and line have one order: source *i* is probe *i*.
    """

    def __init__(
        self,
        probes: Sequence[AttachedProbe],
        drain: Drain,
        line: Line,
        tape: Tape | None = None,
    ) -> None:
        self._probes = probes
        self._drain = drain
        self._line = line
        self._tape = tape

    def adopt(self) -> None:
        """Takes up what exists already, and counts from here on."""
        for probe in self._probes:
            probe.adopt()
        self.snapshot()

    def tick(self) -> None:
        """Carries everything that the drain has taken from the rings so far."""
        now = self._drain.ticks
        while taken := self._drain.take(now):
            self._carry(self._rows(taken))

    def snapshot(self) -> None:
        """One pass over what is alive, for the probes that have such a thing, together with what the rings held then:
        the answers and processes that name it. And the sums of what was not told one by one."""
        found = [*self._alive(), *self._totals()]
        self._drain.catch_up(RINGS_WITHIN_S)
        self.tick()
        if found:
            self._carry(found)

    def limit(self, config: Config) -> None:
        """From now on the throttles of the probes are as *config* has them."""
        for probe in self._probes:
            probe.limit(config)

    def filter(self, fill: Callable[[Object], None]) -> None:
        """Lets *fill* change the filters of each probe's object."""
        for probe in self._probes:
            if probe.object is not None:
                fill(probe.object)

    def sweep(self) -> None:
        """Lets the kernel side tell what has timed out."""
        for probe in self._probes:
            probe.sweep()

    def release(self) -> None:
        """Lets go on what has waited for the name of its pod."""
        self._line.release()

    def collect(self) -> None:
        """Brings the metrics up to now and sends them."""
        self.snapshot()
        now_ns = time.time_ns()
        self._line.collect(now_ns)
        if self._tape is not None:
            self._tape.collected(now_ns)

    def finish(self) -> None:
        """The last of everything: no more events come, what came is carried, and the metrics say so."""
        for probe in self._probes:
            probe.detach()
        self._drain.stop()
        self.tick()
        self._carry(list(self._totals()))
        self._line.release(everything=True)
        self.collect()
        self._line.release(everything=True)
        if self._tape is not None:
            self._tape.learnt()

    def ledgers(self) -> dict[str, EventLedger]:
        """The event ledger of each probe, also of one that only teaches: what it loses costs names."""
        return {
            probe.probe.name: self._ledger(index, source, probe)
            for index, (source, probe) in enumerate(zip(self._line.sources, self._probes, strict=True))
        }

    def detail(self) -> dict[str, DetailLedger]:
        """The log records of each probe that were due by the settings."""
        sampling = self._line.logs.sampling
        return {
            source.probe.name: sampling.ledger(source.probe.name)
            for source in self._line.sources
            if source.probe.events
        }

    def maps(self) -> Iterator[tuple[str, MapFill]]:
        """Each table that has a bound, and how full it is."""
        for source, probe in zip(self._line.sources, self._probes, strict=True):
            ring = probe.source.ring
            yield f"{probe.probe.name}.{EVENTS_RING}", MapFill(ring.pending, ring.capacity)
            if fill := _pending_map(probe):
                yield f"{probe.probe.name}.{PENDING}", fill
            for name, (entries, capacity) in probe.probe.tables(source.prepare).items():
                yield f"{probe.probe.name}.{name}", MapFill(entries, capacity)
            if probe.throttle is not None:
                yield f"{probe.probe.name}.throttle_buckets", MapFill(probe.throttle.entries, probe.throttle.capacity)

    def overflows(self) -> Iterator[tuple[str, int]]:
        """Each table whose entries may be shared, and the events that shared one."""
        for probe in self._probes:
            if probe.throttle is not None:
                shared = probe.throttle.shared
                yield f"{probe.probe.name}.throttle_buckets", shared.buckets
                yield f"{probe.probe.name}.throttle_totals", shared.totals

    def run_times(self) -> dict[str, RunTime]:
        """Probe → what its programs cost so far; empty while the kernel does not count it."""
        return {probe.probe.name: cost for probe in self._probes if (cost := _run_time(probe)).runs}

    def _rows(self, taken: Slice) -> list[Rows]:
        of_source: dict[int, list[bytes]] = {}
        for index, records in taken:
            of_source.setdefault(index, []).append(records)
        return [
            Rows(self._line.sources[index], np.frombuffer(b"".join(parts), self._probes[index].record))
            for index, parts in of_source.items()
        ]

    def _totals(self) -> Iterator[Rows]:
        for source, probe in zip(self._line.sources, self._probes, strict=True):
            if probe.throttle is not None and len(rows := probe.throttle.totals()):
                yield Rows(source, rows, totals=True)

    def _alive(self) -> Iterator[Rows]:
        for source, probe in zip(self._line.sources, self._probes, strict=True):
            if not probe.probe.snapshots:
                continue
            try:
                rows = np.frombuffer(probe.snapshot(), probe.struct)
            except Unsupported as error:  # no memory or no descriptor just now
                log.error("a snapshot was left out, the next one makes up for it: %s", error)  # noqa: TRY400 - a sentence
            else:
                yield Rows(source, rows, snapshot=True)

    def _ledger(self, index: int, source: Source, probe: AttachedProbe) -> EventLedger:
        """The terms of one moment. They are read one after the other while events go on from term to term; what does
        not add up is read again, and told as it is if it never does."""
        ledger = self._read_ledger(index, source, probe)
        for _ in range(READS):
            if ledger.balanced:
                break
            time.sleep(READ_AGAIN_S)
            ledger = self._read_ledger(index, source, probe)
        return ledger

    def _read_ledger(self, index: int, source: Source, probe: AttachedProbe) -> EventLedger:
        counts = probe.counts
        kernel = EventLedger(
            seen=int(counts["seen"]),
            filtered=int(counts["filtered"]),
            throttled=int(counts["throttled"]),
            pending=int(counts["pending"]),
            lost={
                "ring_full": int(counts["ring_full"]),
                "pending_full": int(counts["pending_full"]),
                "unread": int(counts["unread"]),
                "queue_full": self._drain.shed[index],
            },
        )
        return event_ledger(source, kernel, self._drain.pending(index))

    def _carry(self, arrived: Sequence[Rows]) -> None:
        clock_offset_ns = boottime_offset_ns()
        if self._tape is not None:
            self._tape.rows(arrived, clock_offset_ns)
        self._line.carry(arrived, clock_offset_ns)
        if self._tape is not None:
            self._tape.learnt()


def _run_time(probe: AttachedProbe) -> RunTime:
    """What the probe's programs cost so far; nothing while the kernel does not count it."""
    stats = probe.object.run_stats().values() if probe.object is not None else ()
    return RunTime(sum(nanoseconds for nanoseconds, _runs in stats), sum(runs for _nanoseconds, runs in stats))


def _pending_map(probe: AttachedProbe) -> MapFill | None:
    """How full the table of those who wait for an answer is, for a probe that has one."""
    if probe.object is None or not probe.object.has_map(PENDING):
        return None
    return MapFill(int(probe.counts["pending"]), probe.object.map(PENDING).max_entries)
