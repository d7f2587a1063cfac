"""Attributes whose value is an address: each is put into words once, whatever it stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from otelbpf import address_text
from otelbpf.lines import Part, Words, cells_of
from otelbpf.native.strands import of_part
from otelbpf.signals import wire

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from otelbpf.batch import Batch
    from otelbpf.native.strands import Strand
    from otelbpf.probes.probe import Address
    from otelbpf.signals.name import AttributeName

_LONGEST = 45


class Addresses:
    """What stands before an address depends on its length only; before none stands nothing."""

    def __init__(self, tag: bytes, attributes: Sequence[Address]) -> None:
        self._heads = [(item.column, _heads(tag, item.name)) for item in attributes]

    def strands(self, batch: Batch) -> Iterator[Strand]:
        """Where they stand in a record."""
        texts: dict[str, Words] = {}
        for column, heads in self._heads:
            if column not in texts:
                texts[column] = address_text.words(batch.number(column))
            yield of_part(Part(heads, texts[column].lengths))
            yield of_part(Part(texts[column]))


def _heads(tag: bytes, name: AttributeName) -> Words:
    """Length of the text → the attribute up to it."""
    whole = [wire.attribute(tag, name, " " * length) for length in range(1, _LONGEST + 1)]
    heads = [b"", *(attribute[:-length] for length, attribute in enumerate(whole, start=1))]
    return Words(cells_of(heads), np.array([len(head) for head in heads]))
