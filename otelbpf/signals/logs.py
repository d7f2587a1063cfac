"""Batches become requests with log records: one ResourceLogs per resource, records in the order of their resources."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from otelbpf import __version__
from otelbpf.batch import Categorical, Facts
from otelbpf.signals import wire
from otelbpf.signals.attributes import occurring
from otelbpf.signals.envelope import Envelope, Level, Run, resource_level, scope_level
from otelbpf.signals.record import CompiledEvent, Records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from otelbpf.batch import Batch
    from otelbpf.export.request import Request
    from otelbpf.probes.probe import Event, Probe

_NOTHING = Facts()


class Policy:
    """A `logs` setting: which rows of an event become records."""

    def __init__(self, setting: Any, event: Event) -> None:
        slow = getattr(setting, "slow", None)
        self._slow_ns = None if slow is None else slow * 1e9
        self._all = setting == "all"
        self._event = event
        self.off = setting == "off"

    def rows(self, batch: Batch) -> NDArray[np.intp]:
        """Indices of the rows that get a record."""
        chosen = np.ones(len(batch), np.bool_)
        if self._event.when is not None:
            chosen &= batch.number(self._event.when)
        if not self._all:
            chosen &= self._remarkable(batch)
        return np.flatnonzero(chosen)

    def _remarkable(self, batch: Batch) -> NDArray[np.bool_]:
        remarkable = np.zeros(len(batch), np.bool_)
        for column in (self._event.failed, self._event.error):
            if column is not None:
                remarkable |= batch.number(column)
        if self._slow_ns is not None and self._event.duration_ns is not None:
            remarkable |= batch.number(self._event.duration_ns) >= self._slow_ns
        return remarkable


class Logs:
    """The engine of log records: compiles every declared event once, then `encode` turns batches into requests."""

    def __init__(self, config: Any, probes: Iterable[Probe], now_ns: Callable[[], int] = time.time_ns) -> None:
        self._now_ns = now_ns
        self._scopes: dict[str, Level] = {}
        self._events: dict[str, list[tuple[Policy, CompiledEvent]]] = {}
        for probe in probes:
            self._scopes[probe.name] = scope_level(probe.scope, __version__)
            policies = [(event, Policy(getattr(config.logs, event.setting), event)) for event in probe.events]
            self._events[probe.name] = [
                (policy, self._compiled(config, event)) for event, policy in policies if not policy.off
            ]

    @staticmethod
    def _compiled(config: Any, event: Event) -> CompiledEvent:
        return CompiledEvent(
            event,
            legacy=config.attributes.legacy == "dup",
            name_attribute=config.logs.event_name_attribute,
        )

    def encode(self, batch: Batch) -> list[Request]:
        """The records of *batch*. A snapshot has none: it says what is, not what happened."""
        events = self._events.get(batch.probe, [])
        if batch.snapshot or not events or not len(batch):
            return []
        codes, levels = self._resources(batch)
        parts = [part for policy, event in events if (part := self._part(policy, event, batch, codes, len(levels)))]
        return list(_requests(levels, self._scopes[batch.probe], parts))

    def _part(
        self, policy: Policy, event: CompiledEvent, batch: Batch, codes: NDArray[np.intp], resources: int
    ) -> Part | None:
        chosen = policy.rows(batch)
        if not len(chosen):
            return None
        chosen = chosen[np.argsort(codes[chosen], kind="stable")]
        records = event.encode(batch.select(chosen), self._now_ns())
        return Part(records, np.searchsorted(codes[chosen], np.arange(resources + 1)).tolist())

    def _resources(self, batch: Batch) -> tuple[NDArray[np.intp], list[Level]]:
        """A code a row, equal for equal resources, and the resource of each code."""
        column = batch.columns.get("resource")
        if not isinstance(column, Categorical):
            return np.zeros(len(batch), np.intp), [self._level(_NOTHING)]
        codes, things = occurring(column)
        levels: dict[bytes, tuple[int, Level]] = {}
        code_of = np.empty(len(things), np.intp)
        for index, facts in enumerate(things):
            level = self._level(facts)
            code_of[index] = levels.setdefault(level.prefix, (len(levels), level))[0]
        return code_of[codes], [level for _, level in levels.values()]

    def _level(self, facts: Facts) -> Level:
        level: Level | None = facts.encoded.get(Logs)
        if level is None:
            level = facts.encoded[Logs] = resource_level(wire.resource(facts))
        return level


class Part:
    """The records of one event, sorted by resource; those of resource *i* begin at ``starts[i]``."""

    def __init__(self, records: Records, starts: list[int]) -> None:
        self.starts = starts
        self._records = records
        self._ends = np.cumsum(records.lengths)

    def size(self, first: int, last: int) -> int:
        return int(self._ends[last - 1]) - (int(self._ends[first - 1]) if first else 0)

    def fitting(self, first: int, last: int, room: int) -> int:
        """Where to stop so that the records from *first* on take at most *room* bytes."""
        before = int(self._ends[first - 1]) if first else 0
        return min(last, int(np.searchsorted(self._ends, before + room, side="right")))

    def run(self, path: tuple[Level, ...], first: int, last: int) -> tuple[Run, int, int]:
        records = self._records
        pieces = records.pieces[first * records.stride : last * records.stride]
        return Run(path, pieces, self.size(first, last)), last - first, int(records.times_ns[first:last].min())


def _requests(resources: list[Level], scope: Level, parts: list[Part]) -> Iterator[Request]:
    envelope = Envelope("logs")
    for index, resource in enumerate(resources):
        path = (resource, scope)
        for part in parts:
            first, last = part.starts[index], part.starts[index + 1]
            while first < last:
                stop = part.fitting(first, last, envelope.room - envelope.cost(path))
                if stop <= first and envelope.size:
                    yield from envelope.close()
                    continue
                stop = max(stop, first + 1)
                envelope.add(*part.run(path, first, stop))
                first = stop
    yield from envelope.close()
