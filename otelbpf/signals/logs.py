"""Batches become requests with log records: one ResourceLogs per resource, records in the order of their resources."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from otelbpf import __version__
from otelbpf.batch import Categorical, Facts
from otelbpf.probes.probe import Number
from otelbpf.signals import names, wire
from otelbpf.signals.attributes import occurring
from otelbpf.signals.envelope import Level, Table, requests, resource_level, scope_level
from otelbpf.signals.record import CompiledEvent
from otelbpf.signals.rows import order_of
from otelbpf.signals.sampling import EVERYTHING, TOTALS, Sampling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from otelbpf.batch import Batch
    from otelbpf.export.request import Request
    from otelbpf.probes.probe import Event, Probe
    from otelbpf.signals.record import Records

_NOTHING = Facts()
_WEIGHT = Number(names.OTELBPF_SAMPLE_WEIGHT, "sample_weight", absent=1)


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

    def failed(self, batch: Batch) -> NDArray[np.bool_]:
        """The rows whose record says that something went wrong."""
        failed = np.zeros(len(batch), np.bool_)
        for column in (self._event.failed, self._event.error):
            if column is not None:
                failed |= batch.number(column)
        return failed

    def _remarkable(self, batch: Batch) -> NDArray[np.bool_]:
        remarkable = self.failed(batch)
        if self._slow_ns is not None and self._event.duration_ns is not None:
            remarkable |= batch.number(self._event.duration_ns) >= self._slow_ns
        return remarkable


class Compiled:
    """One declared event as the settings have it: which rows become records, and what makes them."""

    def __init__(self, event: Event, config: Any, form: Callable[[bool], CompiledEvent]) -> None:
        """*form* gives what encodes, with the weight of each record or without."""
        self.policy = Policy(getattr(config.logs, event.setting), event)
        self.event = event
        self._config = config
        self._form = form
        if not self.policy.off:
            form(False)  # so that a declaration that is wrong is told at the start

    def records(self, batch: Batch, now_ns: int, weights: NDArray[np.uint64] | None) -> Records:
        """A record for every row of *batch*; each stands for so many when there are *weights*."""
        if self.event.complete is not None:
            self.event.complete(self._config, batch)
        if weights is not None:
            batch.columns[_WEIGHT.column] = weights
        return self._form(weights is not None).encode(batch, now_ns)


class Logs:
    """The engine of log records: compiles every declared event once, then `encode` turns batches into requests.

    `sampling` says how many of the records that are due are made, and what became of them.
    """

    def __init__(self, config: Any, probes: Iterable[Probe], now_ns: Callable[[], int] = time.time_ns) -> None:
        self._now_ns = now_ns
        self._probes = tuple(probes)
        self._scopes: dict[str, Level] = {probe.name: scope_level(probe.scope, __version__) for probe in self._probes}
        self._events: dict[str, list[Compiled]] = {}
        self._forms: dict[tuple[str, int, bool, bool, bool], CompiledEvent] = {}
        self.sampling = Sampling(config.connection_id.key)
        self.follow(config)

    def follow(self, config: Any) -> None:
        """Makes records as *config* says from now on; between two batches."""
        self.sampling.follow(config.connection_id.key)
        for probe in self._probes:
            compiled = [
                Compiled(event, config, partial(self._form, config, probe, index))
                for index, event in enumerate(probe.events)
            ]
            self._events[probe.name] = [one for one in compiled if not one.policy.off]

    def _form(self, config: Any, probe: Probe, index: int, weighted: bool) -> CompiledEvent:  # noqa: FBT001
        """Each form is made once: what is known of a thing keeps what was encoded for it, form by form."""
        legacy, name_attribute = config.attributes.legacy == "dup", config.logs.event_name_attribute
        form = (probe.name, index, legacy, name_attribute, weighted)
        if form not in self._forms:
            event = probe.events[index]
            declared = replace(event, attributes=(*event.attributes, _WEIGHT)) if weighted else event
            self._forms[form] = CompiledEvent(declared, legacy=legacy, name_attribute=name_attribute)
        return self._forms[form]

    def encode(self, batch: Batch) -> Iterator[Request]:
        """The records of *batch*, a request at a time. A snapshot has none: it says what is, not what happened; nor
        have totals."""
        events = self._events.get(batch.probe, [])
        if batch.snapshot or batch.totals or not events or not len(batch):
            return
        due = [(event, *self._chosen(event, batch)) for event in events]
        if not any(len(chosen) for _, chosen, _ in due):
            return
        codes, levels = self._resources(batch)
        tables = []
        for event, chosen, weights in due:
            if len(chosen):
                order = order_of(codes[chosen])
                ordered = chosen[order]
                weights_of = None if weights is None else weights[order]
                records = event.records(batch.select(ordered), self._now_ns(), weights_of)
                starts = np.searchsorted(codes[ordered], np.arange(len(levels) + 1))
                tables.append(Table(records, (self._scopes[batch.probe],), starts, records.lengths))
        yield from requests("logs", levels, tables)

    def _chosen(self, event: Compiled, batch: Batch) -> tuple[NDArray[np.intp], NDArray[np.uint64] | None]:
        """The rows that become records now, and what each stands for while not all do."""
        rows, sampling = event.policy.rows(batch), self.sampling
        detail, reason = sampling.now
        weights = None
        if detail is not EVERYTHING and len(rows):
            wanted = len(rows)
            if detail is TOTALS:
                rows = rows[:0]
            else:
                about = batch.select(rows)
                rows, weights = sampling.of(detail, rows, _identities(event.event, about), event.policy.failed(about))
            sampling.shed[batch.probe, reason] += wanted - len(rows)
        sampling.made[batch.probe] += len(rows)
        return rows, weights

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


def _identities(event: Event, batch: Batch) -> NDArray[np.uint64]:
    """What each row is about; without a declaration each is about itself."""
    return batch.number("time_ns").astype(np.uint64) if event.identity is None else event.identity(batch)
