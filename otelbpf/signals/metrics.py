"""Batches become series, and series become requests with metric points."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from otelbpf.native.distinct import distinct
from otelbpf.probes.probe import Constant, Counter, Histogram, Level
from otelbpf.signals import names
from otelbpf.signals.attributes import checked
from otelbpf.signals.collect import Output, outputs, tables
from otelbpf.signals.distributions import Distributions
from otelbpf.signals.envelope import requests
from otelbpf.signals.index import Index
from otelbpf.signals.keys import Hasher, ResourcePart, part_of, total
from otelbpf.signals.resources import Resources
from otelbpf.signals.series import Cap, Chosen, Levels, Sums

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from otelbpf.batch import Batch
    from otelbpf.export.request import Request
    from otelbpf.probes.probe import Attribute, Metric, Probe
    from otelbpf.signals.keys import Part
    from otelbpf.signals.series import Series

_INSTRUMENTS = {Counter: "Counter", Histogram: "Histogram", Level: "UpDownCounter"}


class Wanted:
    """The rows of a batch for which a condition holds, and the groups that they are in."""

    def __init__(self, batch: Batch, when: str | None, group_of: NDArray[np.intp], groups: int) -> None:
        self._rows = slice(None) if when is None else np.flatnonzero(batch.number(when))
        self._group_of = group_of[self._rows]
        self.groups = np.zeros(groups, np.bool_)
        self.groups[self._group_of] = True

    def at(self, slots: NDArray[np.intp]) -> Chosen:
        """The rows with their slots; *slots* are those of the groups."""
        return Chosen(self._rows, slots[self._group_of], slots[self.groups])


class Plan:
    """How the rows of one probe become series: each attribute is hashed once, each set of attributes looked up once."""

    def __init__(self, where: str, metrics: Sequence[Metric], made: Maker) -> None:
        self._resource = made.resource
        # Keys beyond the caps are kept until the next export, so that they are not made anew in every batch; in bounds.
        self._most_slots = 4 * made.max_series + 1000
        self._declared: list[Attribute] = []
        self._parts: list[Part] = []
        self._indexes: dict[tuple[int, ...], Index] = {}
        self.series = [self._series(where, metric, made) for metric in metrics]

    def update(self, batch: Batch, now_ns: int) -> None:
        """Takes the rows of *batch* into all series that they belong to."""
        live = [series for series in self.series if batch.snapshot or not isinstance(series, Levels)]
        resource = self._resource.keys(batch)
        keys = [part.keys(batch) for part in self._parts]
        first, group_of = distinct(total([resource, *keys]))
        wanted = {when: Wanted(batch, when, group_of, len(first)) for when in {series.when for series in live}}
        for numbers, index in self._indexes.items():
            mine = [series for series in live if series.index is index]
            version = index.version
            parts = [resource, *(keys[number] for number in numbers)]
            groups = np.flatnonzero(np.logical_or.reduce([wanted[series.when].groups for series in mine]))
            slots = np.full(len(first), -1, np.intp)
            examples = first[groups]
            slots[groups] = index.slots(total([part[examples] for part in parts]), batch, examples)
            chosen = {when: wanted[when].at(slots) for when in {series.when for series in mine}}
            for series in mine:
                series.update(batch, chosen[series.when], now_ns)
            index.describe(slots[groups], batch, examples)
            if index.version != version and len(index) > self._most_slots:
                index.sweep()

    def sweep(self) -> None:
        for index in self._indexes.values():
            index.sweep()

    def _series(self, where: str, metric: Metric, made: Maker) -> Sums | Distributions:
        _check(where, metric)
        constants = [attribute for attribute in metric.by if isinstance(attribute, Constant)]
        numbers = tuple(self._number(attribute, made) for attribute in metric.by if not isinstance(attribute, Constant))
        if numbers not in self._indexes:
            parts = tuple(self._parts[number] for number in numbers)
            self._indexes[numbers] = Index(parts, made.resource, made.resources, made.hasher)
        index, cap = self._indexes[numbers], made.cap(metric.name)
        match metric:
            case Histogram():
                return Distributions(metric, constants, index, cap)
            case Level():
                return Levels(metric, constants, index, cap)
        return Sums(metric, constants, index, cap)

    def _number(self, attribute: Attribute, made: Maker) -> int:
        """The number of *attribute* among the parts; equal declarations are one."""
        if attribute not in self._declared:
            self._declared.append(attribute)
            self._parts.append(part_of(attribute, made.hasher))
        return self._declared.index(attribute)


class Maker:
    """What the plans of all probes share while they are made: resources, caps, the hash."""

    def __init__(self, max_series: int) -> None:
        self.max_series = max_series
        self.hasher = Hasher(os.urandom(16))
        self.resource = ResourcePart(self.hasher)
        self.resources = Resources(max_series)
        self._caps: dict[str, Cap] = {}

    def cap(self, name: str) -> Cap:
        return self._caps.setdefault(name, Cap(self.max_series))


class Metrics:
    """The engine of metrics: compiles every declared metric once; `update` takes batches, `collect` gives requests.

    Not for several threads at once.
    """

    def __init__(self, config: Any, probes: Iterable[Probe], now_ns: Callable[[], int] = time.time_ns) -> None:
        self._now_ns = now_ns
        self._delta = config.metrics.temporality == "delta"
        made = Maker(config.metrics.max_series)
        self._resource = made.resource
        self.follow(config)
        self._resources = made.resources
        declared = {probe.name: probe for probe in probes if probe.metrics}
        self._plans = {(name, False): Plan(name, probe.metrics, made) for name, probe in declared.items()}
        """(probe, whether of totals) → plan."""
        self._plans |= {
            (name, True): Plan(name, probe.totals.metrics, made)
            for name, probe in declared.items()
            if probe.totals is not None
        }
        self._outputs: Sequence[Output] = outputs(
            [(declared[name].scope, series) for (name, _), plan in self._plans.items() for series in plan.series],
            delta=self._delta,
        )

    def follow(self, config: Any) -> None:
        """Forgets series as *config* says from now on; those there are go on as they are."""
        self._ttl_ns = int(config.metrics.series_ttl * 1e9)
        self._resource.own = config.resource.attributes

    def update(self, batch: Batch) -> None:
        """Takes *batch* in. An empty snapshot counts: it says that nothing is alive."""
        plan = self._plans.get((batch.probe, batch.totals))
        if plan is not None and (len(batch) or batch.snapshot):
            plan.update(batch, self._now_ns())

    def collect(self, now_ns: int) -> Iterator[Request]:
        """All points as they stand, in requests that are encoded one by one: exhaust it before the next `update`.

        Series that have been silent for the time to live, and whose last value has been sent, are forgotten first.
        """
        for output in self._outputs:
            output.series.none_after(now_ns)
            output.series.forget(output.series.idle(now_ns - self._ttl_ns))
        for plan in self._plans.values():
            plan.sweep()
        yield from requests(
            "metrics", self._resources.levels, tables(self._outputs, len(self._resources.levels), now_ns)
        )
        if self._delta:
            for output in self._outputs:
                output.begin_again(now_ns)

    def series(self) -> dict[str, int]:
        """Metric → series it has now, overflow included."""
        return self._counted(lambda series: series.count)

    def overflows(self) -> dict[str, int]:
        """Metric → series among them that take what is beyond the cap."""
        return self._counted(lambda series: series.overflow_count)

    def _counted(self, count: Callable[[Series], int]) -> dict[str, int]:
        counts = dict.fromkeys((str(output.series.name) for output in self._outputs), 0)
        for output in self._outputs:
            counts[str(output.series.name)] += count(output.series)
        return counts


def _check(where: str, metric: Metric) -> None:
    if metric.name not in names.METRICS:
        raise ValueError(f"{where}: {metric.name} is not in the table of names (otelbpf/signals/names.py)")
    instrument = names.METRICS[metric.name].instrument
    if instrument != _INSTRUMENTS[type(metric)]:
        raise ValueError(f"{where}: {metric.name} is a {instrument}, not a {_INSTRUMENTS[type(metric)]}")
    checked(metric.by, f"{where}: {metric.name}")
