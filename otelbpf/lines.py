"""Readable lines, one a row, put together from parts that repeat: what many rows share is written and encoded once."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray


_NARROWEST, _STEP = 8, 64
_CONTROLS = bytes((*range(1, 32), 127))
_PRINTABLE = bytes.maketrans(_CONTROLS, b"?" * len(_CONTROLS))


class Words(NamedTuple):
    """Texts in UTF-8, each in a cell of the same width, of which so many bytes count as *lengths* say."""

    cells: NDArray[np.void]
    lengths: NDArray[np.intp]


class Part(NamedTuple):
    """A part of each line: of row *i* it is word ``codes[i]``; without codes, word *i*."""

    words: Words
    codes: NDArray[np.intp] | None = None

    def lengths(self) -> NDArray[np.intp]:
        """The bytes of it in each row."""
        return self.words.lengths if self.codes is None else self.words.lengths[self.codes]

    def texts(self) -> list[bytes]:
        """Of each row."""
        whole, width = self.words.cells.tobytes(), self.words.cells.dtype.itemsize
        texts = [whole[at * width : at * width + length] for at, length in enumerate(self.words.lengths.tolist())]
        return texts if self.codes is None else [texts[code] for code in self.codes.tolist()]


class Lines:
    """Lines in pieces, one behind the other: a text that is the same in all rows, or a part. Iterating gives the lines."""

    def __init__(self, rows: int, *pieces: str | Part) -> None:
        self.rows = rows
        self.pieces = pieces

    @classmethod
    def written(cls, lines: Iterable[str]) -> Lines:
        """Lines that were written one by one."""
        part = Part(words(list(lines)))
        return cls(len(part.words.lengths), part)

    def __iter__(self) -> Iterator[str]:
        columns = [[piece.encode()] * self.rows if isinstance(piece, str) else piece.texts() for piece in self.pieces]
        return (b"".join(row).decode() for row in zip(*columns, strict=True))

    def lengths(self) -> NDArray[np.intp]:
        """The bytes of each line."""
        lengths = np.zeros(self.rows, np.intp)
        for piece in self.pieces:
            lengths += len(piece.encode()) if isinstance(piece, str) else piece.lengths()
        return lengths


def words(texts: Sequence[str]) -> Words:
    """The *texts*; what UTF-8 cannot write becomes a `?`."""
    return encoded_words([text.encode("utf-8", "replace") for text in texts])


def encoded_words(texts: Sequence[bytes]) -> Words:
    """The *texts*, which are in UTF-8, without zeros. What would break a line, or move the cursor of who reads it,
    becomes a `?`: a process may be named so."""
    printable = [text.translate(_PRINTABLE, b"\0") for text in texts]
    return Words(cells_of(printable), np.fromiter(map(len, printable), np.intp, len(printable)))


def cells_of(texts: Sequence[bytes]) -> NDArray[np.void]:
    """Each of *texts* in a cell for the longest. Widths go by steps, so that one batch is as wide as the next."""
    width = max(_NARROWEST, *map(len, texts)) if texts else _NARROWEST
    width = 1 << (width - 1).bit_length() if width < _STEP else width + -width % _STEP
    return np.array(texts, f"S{width}").view(f"V{width}")
