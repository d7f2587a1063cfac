"""Readable lines, one a row, put together from parts that repeat: what many rows share is written and encoded once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray


_NARROWEST, _STEP = 8, 64
_CONTROLS = bytes((*range(1, 32), 127))
_PRINTABLE = bytes.maketrans(_CONTROLS, b"?" * len(_CONTROLS))
_LONGER_CONTROLS = re.compile(rb"\xc2[\x80-\x9f]|\xe2\x80[\xa8\xa9]")
"""Those of C1, which some terminals obey, and the separators of lines and paragraphs, in UTF-8."""


class Words(NamedTuple):
    """Texts in UTF-8, of as many bytes as *lengths* say: one behind the other in *cells*, which are single bytes then, from
    *starts* on; without starts, each at the beginning of a cell of its own."""

    cells: NDArray[Any]
    lengths: NDArray[np.intp]
    starts: NDArray[np.intp] | None = None


class Part(NamedTuple):
    """A part of each line: of row *i* it is word ``codes[i]``; without codes, word *i*."""

    words: Words
    codes: NDArray[np.intp] | None = None

    def lengths(self) -> NDArray[np.intp]:
        """The bytes of it in each row."""
        return self.words.lengths if self.codes is None else self.words.lengths[self.codes]

    def texts(self) -> list[bytes]:
        """Of each row."""
        cells, lengths, starts = self.words
        whole, width = cells.tobytes(), cells.dtype.itemsize
        begins = range(0, len(lengths) * width, width) if starts is None else starts.tolist()
        texts = [whole[begin : begin + length] for begin, length in zip(begins, lengths.tolist(), strict=True)]
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
    together = b"".join(printable)
    if b"\xc2" in together or b"\xe2\x80" in together:  # few have any, and to look with a pattern takes far longer
        printable = [_LONGER_CONTROLS.sub(b"?", text) for text in printable]
        together = b"".join(printable)
    return joined_words(printable, together)


def joined_words(texts: Sequence[bytes], together: bytes | None = None) -> Words:
    """The *texts* as they are; *together* is all of them. One that is long costs the others no memory."""
    together = b"".join(texts) if together is None else together
    lengths = np.fromiter(map(len, texts), np.intp, len(texts))
    return Words(np.frombuffer(together or b"\0", np.uint8), lengths, np.cumsum(lengths) - lengths)


def cells_of(texts: Sequence[bytes]) -> NDArray[np.void]:
    """Each of *texts* in a cell for the longest. Widths go by steps, so that one batch is as wide as the next."""
    width = max(_NARROWEST, *map(len, texts)) if texts else _NARROWEST
    width = 1 << (width - 1).bit_length() if width < _STEP else width + -width % _STEP
    return np.array(texts, f"S{width}").view(f"V{width}")
