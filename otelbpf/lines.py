"""Readable lines, one a row, put together from parts that repeat: what many rows share is written and encoded once."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray


class Part(NamedTuple):
    """A part of each line: of row *i* it is ``words[codes[i]]``, in UTF-8."""

    words: NDArray[np.object_]
    codes: NDArray[np.intp]


class Lines:
    """Lines in pieces: *pieces* has a list for each part, with an item a row. Iterating gives the lines as text."""

    def __init__(self, pieces: list[list[bytes]]) -> None:
        self.pieces = pieces

    @classmethod
    def joined(cls, *parts: Part) -> Lines:
        """The lines that *parts* make, one behind the other."""
        return cls([part.words[part.codes].tolist() for part in parts])

    def __iter__(self) -> Iterator[str]:
        return (b"".join(pieces).decode() for pieces in zip(*self.pieces, strict=True))

    def lengths(self) -> NDArray[np.intp]:
        """The bytes of each line."""
        each = [np.fromiter(map(len, pieces), np.intp, len(pieces)) for pieces in self.pieces]
        lengths: NDArray[np.intp] = np.sum(each, axis=0)
        return lengths


def encoded(words: Sequence[str]) -> NDArray[np.object_]:
    """Words as a part has them; what UTF-8 cannot write becomes a `?`."""
    made = np.empty(len(words), object)
    made[:] = [word.encode("utf-8", "replace") for word in words]
    return made
