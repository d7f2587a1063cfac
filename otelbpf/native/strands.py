"""Messages of unequal length, a whole batch at once, one behind the other.

A strand runs through all messages: it is what each of them has at one place. No object is made for a message or a part
of one.
"""

from __future__ import annotations

import ctypes as c
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from otelbpf.native.library import address_of, library

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from otelbpf.lines import Part


class Kind(IntEnum):
    """strands.c says what each is."""

    WORD = 0
    INTEGER = 1
    HEX = 2
    OPEN = 3
    CLOSE = 4


class Strand(NamedTuple):
    """At one place of every message: *head*, then the word of the row. The arrays stay as they are until they are laid."""

    kind: Kind = Kind.WORD
    head: bytes = b""
    words: NDArray[Any] | None = None
    """Of shape (words,), each as many bytes as an item has; of an INTEGER uint64. With *starts* it is bytes."""
    lengths: NDArray[np.intp] | None = None
    """How many bytes of each word count; None is all of them."""
    codes: NDArray[np.intp] | None = None
    """The word of each row; None is word *i* for row *i*."""
    known: NDArray[np.bool_] | None = None
    """The rows that have it; None is all."""
    starts: NDArray[np.intp] | None = None
    """Where each word begins, as many as *lengths*, for words that are as long as they like; None is one an item."""
    width: int = 0
    """Of what OPEN writes: the length of all from there to its CLOSE."""


def of_part(part: Part, head: bytes = b"") -> Strand:
    """The words of lines, with a constant text before them."""
    return Strand(Kind.WORD, head, part.words.cells, part.words.lengths, part.codes, starts=part.words.starts)


_NOT_WHOLE = "a part of a message is not where it should be, or too long"
_INTEGER_HEAD = 4
_LONG = 8
_RUN_FIELDS = 6


def _is_whole(strand: Strand, rows: int) -> bool:
    """Whether there is as much of everything as the loops will read, in the size that they read it."""
    _kind, head, words, lengths, codes, known, starts, _width = strand
    if known is not None and (len(known) < rows or known.itemsize != 1):
        return False
    if strand.kind == Kind.INTEGER and (words is None or words.itemsize != _LONG or len(head) < _INTEGER_HEAD):
        return False
    if words is not None and rows and not words.size:  # nothing has no address: it would pass for no words at all
        return False
    if starts is not None and (words is None or words.itemsize != 1 or not _are_lengths(starts, lengths)):
        return False
    if codes is not None and (len(codes) < rows or codes.itemsize != _LONG):
        return False
    if lengths is None or words is None or starts is not None:
        return True
    return len(lengths) >= len(words) and lengths.itemsize == _LONG


def _are_lengths(starts: NDArray[np.intp], lengths: NDArray[np.intp] | None) -> bool:
    """Whether there is a length for each of *starts*, in the size that the loops read."""
    return lengths is not None and len(lengths) == len(starts) and starts.itemsize == lengths.itemsize == _LONG


class Strands:
    """The messages of *rows* rows, measured. ValueError if a code or a length is beyond its words, or does not fit."""

    def __init__(self, strands: Sequence[Strand], rows: int) -> None:
        if not all(_is_whole(strand, rows) for strand in strands):
            raise ValueError(_NOT_WHOLE)
        self._held: list[Any] = []
        table = np.array(self._fields(strands, rows), np.int64)
        self.lengths = np.empty(rows, np.int64)
        """The bytes of each message."""
        self.messages = self._place(table), len(strands), self._place(self.lengths)
        """`struct messages`, while this is held."""
        self._ends = np.zeros(rows + 1, np.int64)
        if library().otelbpf_measure(*self.messages[:2], rows, self.messages[2]) < 0:
            raise ValueError(_NOT_WHOLE)
        np.cumsum(self.lengths, out=self._ends[1:])

    def size(self, first: int, last: int) -> int:
        """The bytes of the messages from *first* to before *last*; ValueError if there are not so many."""
        if not 0 <= first <= last < len(self._ends):
            raise ValueError(_NOT_WHOLE)
        return int(self._ends[last] - self._ends[first])

    def _fields(self, strands: Sequence[Strand], rows: int) -> list[int]:
        """`struct strand` of each, all heads being in one place."""
        heads = np.frombuffer(bytearray().join([strand.head for strand in strands]), np.uint8)
        self._held.append(heads)
        head = address_of(heads)
        fields: list[int] = []
        for kind, before, words, lengths, codes, known, starts, width in strands:
            fields += (kind, head, len(before))
            if words is None:
                fields += (0, width, 0, 0, 0, 0, 0)
            else:
                count = len(words if starts is None else starts)
                fields += (self._place(words), words.dtype.itemsize, count if codes is not None else min(count, rows))
                fields += (self._place(lengths), self._place(starts), len(words), self._place(codes))
            fields.append(self._place(known))
            head += len(before)
        return fields

    def _place(self, values: NDArray[Any] | None) -> int:
        """Where *values* are from now on until this is gone."""
        if values is None:
            return 0
        if not (values.flags.c_contiguous and values.flags.aligned):
            values = values.copy()
        self._held.append(values)
        return address_of(values)


class Rows(NamedTuple):
    """The messages from *first* to before *last*."""

    strands: Strands
    first: int
    last: int


Piece = bytes | Rows

_new_bytes = c.PYFUNCTYPE(c.py_object, c.c_char_p, c.c_ssize_t)(("PyBytes_FromStringAndSize", c.pythonapi))


def laid(pieces: Iterable[Piece]) -> bytes:
    """The *pieces* one behind the other.

    Messages are written where they stay: a copy would need as much new memory again.
    """
    texts: list[bytes] = []
    held: list[Rows] = []  # what is not held any more may not be where it was
    runs: list[int] = []
    text_length = rows_length = 0
    for piece in pieces:
        if isinstance(piece, Rows):
            runs += (text_length, *piece.strands.messages, piece.first, piece.last)
            rows_length += piece.strands.size(piece.first, piece.last)
            text_length = 0
            held.append(piece)
        else:
            texts.append(piece)
            text_length += len(piece)
    text = b"".join(texts)
    if not rows_length:
        return text
    table = np.array([*runs, text_length, *[0] * (_RUN_FIELDS - 1)], np.int64)
    message: bytes = _new_bytes(None, len(text) + rows_length)  # not seen by anybody before it is written
    library().otelbpf_lay(address_of(table), len(table) // _RUN_FIELDS, text, message)
    return message
