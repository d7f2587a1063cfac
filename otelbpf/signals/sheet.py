"""Messages of unequal length, a whole batch at once.

A sheet has a row for each message and a stretch of columns for each part of it, as wide as the longest that there is.
Constant bytes are written once, what differs is filled in a column at a time, a second sheet says which bytes count, and
one selection by it gives all messages, one behind the other. No object is made for a message or a part of one: joined
from such, a record of TCP cost half as much time again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from otelbpf.signals.rows import Hole, dtype_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from otelbpf.lines import Part

SHEET_BYTES: Final = 1 << 18
"""A sheet is filled and read again and again, so it should stay in the cache of a core."""


Piece = bytes | Hole


class Section(NamedTuple):
    """Constant bytes and holes that stand or fall together. *name* is that of the mask which says in which rows they
    are; None is in all of them."""

    pieces: Sequence[Piece]
    name: str | None = None


@dataclass(slots=True)
class Columns:
    """What differs from message to message, by the name of its hole."""

    numbers: dict[str, NDArray[Any]] = field(default_factory=dict)
    """Always the same number of bytes."""
    texts: dict[str, Part] = field(default_factory=dict)
    blocks: dict[str, Part] = field(default_factory=dict)
    """Any bytes; as many of a cell count as its length says."""
    known: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    """Section → the rows that have it. What is not here has all rows."""

    def add(self, name: str, values: NDArray[Any], known: NDArray[np.bool_] | None) -> None:
        """A number that only the rows of *known* have, or all; not at all if none has it."""
        with_it = len(values) if known is None else int(np.count_nonzero(known))
        if with_it:
            self.numbers[name] = values
        if known is not None and 0 < with_it < len(values):
            self.known[name] = known

    def key(self) -> tuple[object, ...]:
        """Equal for columns that fit one layout."""
        parts = (*self.texts.items(), *self.blocks.items())
        return (
            *((name, values.dtype) for name, values in self.numbers.items()),
            *((name, part.words.cells.dtype.itemsize) for name, part in parts),
        )


class Layout:
    """Where everything stands in a row: numbers, then texts, then blocks, so that one comparison finds the texts' ends.

    The constant bytes among *texts* are no zeros: those only fill up cells.
    """

    def __init__(self, numbers: Sequence[Section], texts: Sequence[Piece], blocks: Sequence[Hole]) -> None:
        self._template = bytearray()
        self._holes: dict[str, tuple[str, int]] = {}
        self._spans: dict[str, slice] = {}
        for section in numbers:
            span = self._placed(section.pieces)
            if section.name is not None:
                self._spans[section.name] = span
        self._texts = self._placed(texts)
        for hole in blocks:
            self._spans[hole.name] = self._placed([hole])
        self.constant_bytes = self._texts.start + sum(len(piece) for piece in texts if isinstance(piece, bytes))
        self.width = len(self._template)
        self._dtype = dtype_of(self._holes, self.width)

    def lengths(self, count: int, columns: Columns) -> NDArray[np.intp]:
        """The bytes of each of *count* messages."""
        lengths = np.full(count, self.constant_bytes, np.intp)
        for part in (*columns.texts.values(), *columns.blocks.values()):
            lengths += part.lengths()
        for name, known in columns.known.items():
            span = self._spans[name]
            lengths -= ~known * (span.stop - span.start)
        return lengths

    def written(self, count: int, columns: Columns) -> Iterator[NDArray[np.uint8]]:
        """*count* messages, one behind the other, some at a time."""
        step = max(1, SHEET_BYTES // self.width)
        sheet = np.empty((min(step, count), self.width), np.uint8)
        sheet[:] = np.frombuffer(self._template, np.uint8)
        kept = np.ones(sheet.shape, np.bool_)
        cells = sheet.view(self._dtype).reshape(-1)
        numbers = [(cells[name], values) for name, values in columns.numbers.items()]
        parts = [(cells[name], part) for name, part in (columns.texts | columns.blocks).items()]
        for first in range(0, count, step):
            rows = slice(first, min(first + step, count))
            some = rows.stop - first
            for target, values in numbers:
                target[:some] = values[rows]
            for target, part in parts:
                target[:some] = part.words.cells[rows if part.codes is None else part.codes[rows]]
            self._choose(kept[:some], sheet[:some], columns, rows)
            yield sheet[:some][kept[:some]]

    def _choose(self, kept: NDArray[np.bool_], sheet: NDArray[np.uint8], columns: Columns, rows: slice) -> None:
        """Which bytes of these rows count."""
        np.not_equal(sheet[:, self._texts], 0, out=kept[:, self._texts])
        for name, part in columns.blocks.items():
            span = self._spans[name]
            lengths = part.words.lengths[rows if part.codes is None else part.codes[rows]]
            width = span.stop - span.start
            kind = np.uint16 if width < 1 << 16 else np.uint32  # the narrower, the more at a time
            np.less(np.arange(width, dtype=kind), lengths.astype(kind)[:, None], out=kept[:, span])
        for name, known in columns.known.items():
            kept[:, self._spans[name]] = known[rows, None]

    def _placed(self, pieces: Sequence[Piece]) -> slice:
        """Adds *pieces*, and says where they are."""
        start = len(self._template)
        for piece in pieces:
            if isinstance(piece, Hole):
                self._holes[piece.name] = (piece.format, len(self._template))
                self._template += bytes(np.dtype(piece.format).itemsize)
            else:
                self._template += piece
        return slice(start, len(self._template))
