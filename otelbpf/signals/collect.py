"""The series as they are encoded: below which metric, in which order, as totals or as differences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from otelbpf import __version__
from otelbpf.signals import wire
from otelbpf.signals.distributions import Distributions
from otelbpf.signals.envelope import Encoded, Level, Table, scope_level
from otelbpf.signals.series import Levels, Sums

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from otelbpf.signals.name import MetricName

_METRIC: Final = b"\x12"
_NAME: Final = b"\x0a"
_DESCRIPTION: Final = b"\x12"
_UNIT: Final = b"\x1a"
_SUM: Final = b"\x3a"
_HISTOGRAM: Final = b"\x4a"
_TEMPORALITY: Final = b"\x10"
_MONOTONIC: Final = b"\x18\x01"
_DELTA: Final = 1
_CUMULATIVE: Final = 2


@dataclass(frozen=True, slots=True)
class Output:
    """A series table and the levels below the resource under which its points go out."""

    series: Sums | Distributions
    levels: tuple[Level, ...]
    delta: bool

    def table(self, resources: int, now_ns: int) -> Table:
        series = self.series
        slots = series.order()
        if self.delta:
            slots = slots[series.unsent[slots]]
        starts = np.searchsorted(series.index.resource_of[slots], np.arange(resources + 1))
        return Table(Points(self, slots, now_ns), self.levels, starts, series.sizes(slots))

    def begin_again(self, now_ns: int) -> None:
        """Delta: the next points count from *now_ns* on."""
        if self.delta:
            self.series.begin_again(self.series.order(), now_ns)


class Points:
    """The points of one table, encoded when their turn comes."""

    def __init__(self, output: Output, slots: NDArray[np.intp], now_ns: int) -> None:
        self._series = output.series
        self._slots = slots
        self._now_ns = now_ns

    def encoded(self, first: int, last: int) -> Encoded:
        return self._series.points(self._slots[first:last], self._now_ns)

    def oldest_ns(self, _first: int, _last: int) -> int:
        return self._now_ns


def outputs(declared: Iterable[tuple[str, Sums | Distributions]], *, delta: bool) -> Sequence[Output]:
    """An output for each series table of (scope, table), sorted so that a scope and a name are written once."""
    scopes: dict[str, Level] = {}
    levels: dict[tuple[str, str], tuple[Level, Level]] = {}
    result = []
    for scope, series in sorted(declared, key=lambda item: (item[0], item[1].name)):
        differs = delta and not isinstance(series, Levels)
        if scope not in scopes:
            scopes[scope] = scope_level(scope, __version__)
        if (scope, series.name) not in levels:
            levels[scope, series.name] = _levels(series, delta=differs)
        result.append(Output(series, (scopes[scope], *levels[scope, series.name]), differs))
    return result


def tables(made: Sequence[Output], resources: int, now_ns: int) -> list[Table]:
    return [output.table(resources, now_ns) for output in made]


def _levels(series: Sums | Distributions, *, delta: bool) -> tuple[Level, Level]:
    """Metric, and Sum or Histogram in it."""
    name: MetricName = series.name
    prefix = wire.field(_NAME, wire.text(name))
    prefix += wire.field(_DESCRIPTION, wire.text(name.description)) + wire.field(_UNIT, wire.text(name.unit))
    suffix = _TEMPORALITY + wire.varint(_DELTA if delta else _CUMULATIVE)
    if isinstance(series, Distributions):
        return Level(_METRIC, prefix), Level(_HISTOGRAM, b"", suffix)
    return Level(_METRIC, prefix), Level(_SUM, b"", suffix + (_MONOTONIC if series.monotonic else b""))
