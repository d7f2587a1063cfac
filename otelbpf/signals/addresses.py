"""Attributes whose value is an address: each is written once, whatever it stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from otelbpf import address_text
from otelbpf.lines import Part, Words, cells_of
from otelbpf.signals import wire
from otelbpf.signals.rows import Hole

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from otelbpf.batch import Batch
    from otelbpf.probes.probe import Address
    from otelbpf.signals.name import AttributeName
    from otelbpf.signals.sheet import Columns, Piece

_LONGEST = 45


class Addresses:
    """What stands before an address depends on its length only; before none stands nothing."""

    def __init__(self, tag: bytes, attributes: Sequence[Address]) -> None:
        self._column_of = {item.name: item.column for item in attributes}
        self._places = {column: place for place, column in enumerate(dict.fromkeys(self._column_of.values()))}
        self._heads = {name: _heads(tag, name) for name in self._column_of}

    def add(self, batch: Batch, columns: Columns) -> None:
        """Those that any row has."""
        if not self._places:
            return
        texts = address_text.words(np.concatenate([batch.number(column) for column in self._places]))
        for name, column in self._column_of.items():
            first = self._places[column] * len(batch)
            of_column = slice(first, first + len(batch))
            lengths = texts.lengths[of_column]
            if lengths.any():
                columns.texts[f"{name} head"] = Part(self._heads[name], lengths)
                columns.texts[name] = Part(Words(texts.cells[of_column], lengths))

    def pieces(self, columns: Columns) -> Iterator[Piece]:
        """Where they stand in a record."""
        for name in self._column_of:
            for hole in (f"{name} head", name):
                if hole in columns.texts:
                    yield Hole(hole, columns.texts[hole].words.cells.dtype.str)


def _heads(tag: bytes, name: AttributeName) -> Words:
    """Length of the text → the attribute up to it."""
    whole = [wire.attribute(tag, name, " " * length) for length in range(1, _LONGEST + 1)]
    heads = [b"", *(attribute[:-length] for length, attribute in enumerate(whole, start=1))]
    return Words(cells_of(heads), np.array([len(head) for head in heads]))
