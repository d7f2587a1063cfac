"""Numeric attributes of log records, and what else is written from bytes of the row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from otelbpf.native.strands import Kind, Strand
from otelbpf.probes.probe import Hex, Number
from otelbpf.signals import names, wire
from otelbpf.signals.attributes import present, raw_bytes, scaled

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from otelbpf.batch import Batch
    from otelbpf.signals.name import AttributeName

_TRACE_ID: Final = b"\x4a"
_DOUBLE_BYTES: Final = 8
_ONE_BYTE_LENGTH: Final = 127 - 10
"""A head has so many bytes at most, that its lengths stay one byte with the longest varint behind it."""

Found = tuple["NDArray[Any]", "NDArray[np.bool_] | None"]
"""The words of a column, and the rows in which it is known; None is all."""


class Numbers:
    """The numeric attributes, those in hex, and the trace id."""

    def __init__(self, tag: bytes, attributes: Sequence[Number | Hex], trace_id: str | None) -> None:
        self._numbers = [(item, *_number_head(tag, item.name)) for item in attributes if isinstance(item, Number)]
        self._hexes = [(item.column, item.name) for item in attributes if isinstance(item, Hex)]
        self._tag = tag
        self._trace_id = trace_id

    def strands(self, batch: Batch) -> Iterator[Strand]:
        """Where they stand in a record."""
        found: dict[Any, Found] = {}
        for item, kind, head in self._numbers:
            source = (item.column, item.scale, item.absent, kind)  # two names for one source are made once
            if source not in found:
                found[source] = _doubles(item, batch) if kind is Kind.WORD else _integers(item, batch)
            words, known = found[source]
            yield Strand(kind, head, words, known=known)
        for column, name in self._hexes:
            raw = raw_bytes(batch.number(column))
            head = _head(self._tag, name, wire.STRING + wire.varint(2 * raw.shape[1]), 2 * raw.shape[1])
            yield Strand(Kind.HEX, head, _cells(raw), known=_not_zero(raw))
        if self._trace_id is not None:
            raw = raw_bytes(batch.number(self._trace_id))
            yield Strand(Kind.WORD, _TRACE_ID + wire.varint(raw.shape[1]), _cells(raw), known=_not_zero(raw))


def _number_head(tag: bytes, name: AttributeName) -> tuple[Kind, bytes]:
    """What stands before the number; without the length that a varint will have."""
    if names.ATTRIBUTES[name].type == "double":
        return Kind.WORD, _head(tag, name, wire.DOUBLE, _DOUBLE_BYTES)
    head = _head(tag, name, wire.INT, 0)
    if len(head) > _ONE_BYTE_LENGTH:
        raise ValueError(f"{name} is too long for the name of a number")
    return Kind.INTEGER, head


def _head(tag: bytes, name: AttributeName, before: bytes, size: int) -> bytes:
    """A KeyValue field up to the *size* bytes that follow *before* (the tag of the value in its AnyValue)."""
    key = wire.field(wire.KEY, wire.text(name))
    value = wire.VALUE + wire.varint(len(before) + size) + before
    return tag + wire.varint(len(key) + len(value) + size) + key + value


def _doubles(number: Number, batch: Batch) -> Found:
    values = batch.number(number.column)
    return scaled(values, number.scale), present(values, number.absent)


def _integers(number: Number, batch: Batch) -> Found:
    values = batch.number(number.column)
    known = present(values, number.absent)
    if values.dtype.kind == "f":
        values = np.nan_to_num(values)
    return values.astype(np.uint64) if values.dtype.kind == "u" else values.astype(np.int64).view(np.uint64), known


def _cells(raw: NDArray[np.uint8]) -> NDArray[np.void]:
    cells: NDArray[np.void] = raw.view(f"V{raw.shape[1]}").ravel()
    return cells


def _not_zero(raw: NDArray[np.uint8]) -> NDArray[np.bool_]:
    known: NDArray[np.bool_] = np.logical_or.reduce(raw, axis=1)
    return known
