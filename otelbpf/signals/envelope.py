"""Requests: encoded items under their resource and scope, cut so that every request stays well below 4 MiB."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, groupby
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from otelbpf.export.request import Request
from otelbpf.native.strands import Rows, laid
from otelbpf.signals import names, wire

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from otelbpf.native.strands import Piece, Strands

TARGET_BYTES: Final = 900_000
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


class Encoded(Protocol):
    """Items as bytes, and the length of each."""

    @property
    def lengths(self) -> NDArray[np.intp]: ...

    def between(self, first: int, last: int) -> Sequence[Piece]:
        """The bytes of the items from *first* to *last*."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """Items of *stride* pieces each."""

    pieces: list[bytes]
    stride: int
    lengths: NDArray[np.intp]

    def between(self, first: int, last: int) -> Sequence[Piece]:
        return self.pieces[first * self.stride : last * self.stride]


@dataclass(frozen=True, slots=True)
class Unwritten:
    """Items that are measured, and written when their request is put together; the first of them is row *begin*."""

    strands: Strands
    begin: int
    lengths: NDArray[np.intp]

    def between(self, first: int, last: int) -> Sequence[Piece]:
        return (Rows(self.strands, self.begin + first, self.begin + last),)


def _ends(lengths: NDArray[np.intp]) -> NDArray[np.intp]:
    """Where items of these *lengths* end, one behind the other from 0 on; before them, 0."""
    ends = np.zeros(len(lengths) + 1, np.intp)
    np.cumsum(lengths, out=ends[1:])
    return ends


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
        self.levels_size = sum(level.size for level in levels)
        self.starts: list[int] = starts.tolist()
        self._ends = _ends(sizes)
        self._resource_ends: list[int] = self._ends[starts].tolist()

    def resource_size(self, number: int) -> int:
        """The bytes of all items of one resource."""
        return self._resource_ends[number + 1] - self._resource_ends[number]

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


class Filling:
    """The request that is being filled."""

    def __init__(self) -> None:
        self.cells: list[Cell] = []
        self._size = 0

    def take(self, resource: Level, number: int, table: Table, first: int) -> int:
        """Takes what fits of a resource's items from *first* on, and says where it stopped."""
        last = table.starts[number + 1]
        cost = table.levels_size
        if not self.cells or self.cells[-1].resource is not resource:
            cost += resource.size
        room = TARGET_BYTES - self._size - cost
        size = table.resource_size(number)
        if size > room or first != table.starts[number]:
            last = table.fitting(first, last, room)
            if last == first and self.cells:
                return first
            last = max(last, first + 1)
            size = table.size(first, last)
        self.cells.append(Cell(resource, table, first, last))
        self._size += cost + size
        return last


def requests(signal: str, resources: Sequence[Level], tables: Sequence[Table]) -> Iterator[Request]:
    """Everything in *tables*, each resource once in a request; encoded a request at a time."""
    filling = Filling()
    for number, resource in enumerate(resources):
        for table in tables:
            position = table.starts[number]
            while position < table.starts[number + 1]:
                stop = filling.take(resource, number, table, position)
                if stop == position:
                    yield _request(signal, filling.cells)
                    filling = Filling()
                position = stop
    if filling.cells:
        yield _request(signal, filling.cells)


@dataclass(frozen=True, slots=True)
class Run:
    """Encoded items that stand next to each other below the same levels, the outermost first."""

    path: tuple[Level, ...]
    pieces: Sequence[Piece]
    size: int


def _request(signal: str, cells: Sequence[Cell]) -> Request:
    ranges: dict[Table, tuple[int, int]] = {}
    for cell in cells:  # those of one table follow one another without a gap
        ranges[cell.table] = (ranges.get(cell.table, (cell.first, 0))[0], cell.last)
    encoded = {table: table.encoder.encoded(*bounds) for table, bounds in ranges.items()}
    ends = {table: _ends(items.lengths) for table, items in encoded.items()}
    runs = []
    for cell in cells:
        items, begin = encoded[cell.table], ranges[cell.table][0]
        first, last = cell.first - begin, cell.last - begin
        pieces = items.between(first, last)
        size = int(ends[cell.table][last] - ends[cell.table][first])
        runs.append(Run((cell.resource, *cell.table.levels), pieces, size))
    chunks: list[Sequence[Piece]] = []
    _write(runs, 0, chunks)
    return Request(
        signal,
        laid(chain.from_iterable(chunks)),
        sum(cell.last - cell.first for cell in cells),
        min(table.encoder.oldest_ns(*bounds) for table, bounds in ranges.items()),
    )


def _write(runs: Sequence[Run], depth: int, chunks: list[Sequence[Piece]]) -> int:
    """Appends *runs*, from depth *depth* on, to *chunks* and returns their bytes."""
    if len(runs) == 1:
        return _write_one(runs[0], depth, chunks)
    written = 0
    for level, group in groupby(runs, key=lambda run: run.path[depth] if depth < len(run.path) else None):
        if level is None:
            for run in group:
                chunks.append(run.pieces)
                written += run.size
            continue
        header_at = len(chunks)
        chunks.append(())  # the length in it is known when what it holds is
        inner = _write(list(group), depth + 1, chunks) + len(level.prefix) + len(level.suffix)
        frame = level.tag + wire.varint(inner)
        chunks[header_at] = (frame, level.prefix)
        chunks.append((level.suffix,))
        written += inner + len(frame)
    return written


def _write_one(run: Run, depth: int, chunks: list[Sequence[Piece]]) -> int:
    """The same for a single run, from the inside out: with many resources most have one run at each depth."""
    size, before, after = run.size, b"", b""
    for level in reversed(run.path[depth:]):
        inner = size + len(level.prefix) + len(level.suffix)
        frame = level.tag + wire.varint(inner)
        before = frame + level.prefix + before
        after += level.suffix
        size = inner + len(frame)
    chunks += ((before,), run.pieces, (after,))
    return size
