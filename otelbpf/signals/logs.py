"""Batches become requests with log records: one ResourceLogs per resource, records in the order of their resources."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from otelbpf import __version__
from otelbpf.batch import Categorical, Facts
from otelbpf.signals import wire
from otelbpf.signals.attributes import occurring
from otelbpf.signals.envelope import Level, Table, requests, resource_level, scope_level
from otelbpf.signals.record import CompiledEvent
from otelbpf.signals.rows import order_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

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
        self._probes = tuple(probes)
        self._scopes: dict[str, Level] = {probe.name: scope_level(probe.scope, __version__) for probe in self._probes}
        self._events: dict[str, list[tuple[Policy, CompiledEvent]]] = {}
        self._forms: dict[tuple[str, int, bool, bool], CompiledEvent] = {}
        self.follow(config)

    def follow(self, config: Any) -> None:
        """Makes records as *config* says from now on; between two batches."""
        for probe in self._probes:
            policies = [
                (index, Policy(getattr(config.logs, event.setting), event)) for index, event in enumerate(probe.events)
            ]
            self._events[probe.name] = [
                (policy, self._compiled(config, probe, index)) for index, policy in policies if not policy.off
            ]

    def _compiled(self, config: Any, probe: Probe, index: int) -> CompiledEvent:
        """Each form is made once: what is known of a thing keeps what was encoded for it, form by form."""
        legacy, name_attribute = config.attributes.legacy == "dup", config.logs.event_name_attribute
        form = (probe.name, index, legacy, name_attribute)
        if form not in self._forms:
            self._forms[form] = CompiledEvent(probe.events[index], legacy=legacy, name_attribute=name_attribute)
        return self._forms[form]

    def encode(self, batch: Batch) -> list[Request]:
        """The records of *batch*. A snapshot has none: it says what is, not what happened."""
        events = self._events.get(batch.probe, [])
        if batch.snapshot or not events or not len(batch):
            return []
        codes, levels = self._resources(batch)
        tables = []
        for policy, event in events:
            chosen = policy.rows(batch)
            if len(chosen):
                chosen = chosen[order_of(codes[chosen])]
                records = event.encode(batch.select(chosen), self._now_ns())
                starts = np.searchsorted(codes[chosen], np.arange(len(levels) + 1))
                tables.append(Table(records, (self._scopes[batch.probe],), starts, records.lengths))
        return list(requests("logs", levels, tables))

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
