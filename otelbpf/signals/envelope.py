"""Requests: encoded items under their resource and scope, cut so that every request stays well below 4 MiB."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from otelbpf.export.request import Request
from otelbpf.signals import names, wire

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

TARGET_BYTES: Final = 2_500_000
"""A request is closed when it has reached this size: receivers refuse 4 MiB, and smaller ones cost more calls."""
_FRAME_BYTES: Final = 12


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """One message around others: *tag* in its parent, *prefix* before and *suffix* after what it holds."""

    tag: bytes
    prefix: bytes
    suffix: bytes = b""

    @property
    def size(self) -> int:
        return len(self.prefix) + len(self.suffix) + _FRAME_BYTES


def resource_level(message: bytes) -> Level:
    """ResourceLogs or ResourceMetrics of the Resource *message*."""
    return Level(
        wire.REQUEST_RESOURCE,
        wire.field(wire.RESOURCE, message),
        wire.field(wire.RESOURCE_SCHEMA_URL, wire.text(names.SCHEMA_URL)),
    )


def scope_level(name: str, version: str) -> Level:
    """ScopeLogs or ScopeMetrics."""
    return Level(
        wire.RESOURCE_SCOPE,
        wire.field(wire.SCOPE, wire.scope(name, version)),
        wire.field(wire.SCOPE_SCHEMA_URL, wire.text(names.SCHEMA_URL)),
    )


@dataclass(frozen=True, slots=True)
class Encoded:
    """Items as bytes: *stride* pieces each, and the length of each."""

    pieces: list[bytes]
    stride: int
    lengths: NDArray[np.intp]


class Encoder(Protocol):
    """What turns a range of a table into bytes."""

    def encoded(self, first: int, last: int) -> Encoded:
        """The items from *first* to *last*."""

    def oldest_ns(self, first: int, last: int) -> int:
        """Unix time of the oldest of them."""


class Table:
    """Items of one kind, sorted by resource: those of resource *i* stand from ``starts[i]`` to ``starts[i + 1]``.

    *levels* are those below the resource; *sizes* what each item takes, or a little more.
    """

    def __init__(
        self, encoder: Encoder, levels: tuple[Level, ...], starts: NDArray[np.intp], sizes: NDArray[np.intp]
    ) -> None:
        self.encoder = encoder
        self.levels = levels
        self.starts: list[int] = starts.tolist()
        self._ends = np.concatenate(([0], np.cumsum(sizes)))

    def size(self, first: int, last: int) -> int:
        return int(self._ends[last] - self._ends[first])

    def fitting(self, first: int, last: int, room: int) -> int:
        """Where to stop so that the items from *first* on take at most *room* bytes."""
        return max(first, min(last, int(np.searchsorted(self._ends, self._ends[first] + room, side="right")) - 1))


@dataclass(frozen=True, slots=True)
class Cell:
    """A range of a table that goes into one request, below one resource."""

    resource: Level
    table: Table
    first: int
    last: int


def requests(signal: str, resources: Sequence[Level], tables: Sequence[Table]) -> Iterator[Request]:
    """Everything in *tables*, each resource once in a request; encoded a request at a time."""
    cells: list[Cell] = []
    size = 0
    for number, resource in enumerate(resources):
        for table in tables:
            first, last = table.starts[number], table.starts[number + 1]
            while first < last:
                cost = sum(level.size for level in table.levels)
                if not cells or cells[-1].resource is not resource:
                    cost += resource.size
                stop = table.fitting(first, last, TARGET_BYTES - size - cost)
                if stop == first and cells:
                    yield _request(signal, cells)
                    cells, size = [], 0
                    continue
                stop = max(stop, first + 1)
                cells.append(Cell(resource, table, first, stop))
                size += cost + table.size(first, stop)
                first = stop
    if cells:
        yield _request(signal, cells)


@dataclass(frozen=True, slots=True)
class Run:
    """Encoded items that stand next to each other below the same levels, the outermost first."""

    path: tuple[Level, ...]
    pieces: Sequence[bytes]
    size: int


def _request(signal: str, cells: Sequence[Cell]) -> Request:
    ranges: dict[Table, tuple[int, int]] = {}
    for cell in cells:  # those of one table follow one another without a gap
        ranges[cell.table] = (ranges.get(cell.table, (cell.first, 0))[0], cell.last)
    encoded = {table: table.encoder.encoded(*bounds) for table, bounds in ranges.items()}
    ends = {table: np.concatenate(([0], np.cumsum(items.lengths))).tolist() for table, items in encoded.items()}
    runs = []
    for cell in cells:
        items, begin = encoded[cell.table], ranges[cell.table][0]
        first, last = cell.first - begin, cell.last - begin
        pieces = items.pieces[first * items.stride : last * items.stride]
        size = ends[cell.table][last] - ends[cell.table][first]
        runs.append(Run((cell.resource, *cell.table.levels), pieces, size))
    pieces = []
    _write(runs, 0, pieces)
    return Request(
        signal,
        b"".join(pieces),
        sum(cell.last - cell.first for cell in cells),
        min(table.encoder.oldest_ns(*bounds) for table, bounds in ranges.items()),
    )


def _write(runs: Sequence[Run], depth: int, pieces: list[bytes]) -> int:
    """Appends *runs*, from depth *depth* on, to *pieces* and returns their bytes."""
    written = 0
    for level, group in groupby(runs, key=lambda run: run.path[depth] if depth < len(run.path) else None):
        if level is None:
            for run in group:
                pieces.extend(run.pieces)
                written += run.size
            continue
        header_at = len(pieces)
        pieces.append(b"")  # its length is known when what it holds is
        inner = _write(list(group), depth + 1, pieces) + len(level.prefix) + len(level.suffix)
        pieces[header_at] = level.tag + wire.varint(inner) + level.prefix
        pieces.append(level.suffix)
        written += inner + len(pieces[header_at]) - len(level.prefix)
    return written
