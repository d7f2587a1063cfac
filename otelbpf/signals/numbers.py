"""Numeric attributes of log records, and what else has the same width in every record of a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from otelbpf.probes.probe import Hex, Number
from otelbpf.signals import names, wire
from otelbpf.signals.attributes import present, raw_bytes, scaled
from otelbpf.signals.rows import Hole, varint_width, varints
from otelbpf.signals.sheet import Section

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from otelbpf.batch import Batch
    from otelbpf.signals.name import AttributeName
    from otelbpf.signals.sheet import Columns

_NARROWEST: Final = 2
"""A byte that is saved is not worth that one batch has another layout than the next."""
_TRACE_ID: Final = b"\x4a"
_TRACE: Final = "trace_id"
_HEX: Final = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), "<u2")


class Source(NamedTuple):
    """Where a number comes from, and how it is written: two names for one source are encoded once."""

    column: str
    scale: float | None
    absent: int | None
    double: bool


class Found(NamedTuple):
    """A column and the rows in which it is known; None is all."""

    values: NDArray[Any]
    known: NDArray[np.bool_] | None


class Numbers:
    """The numeric attributes, those in hex, and the trace id."""

    def __init__(self, tag: bytes, attributes: Sequence[Number | Hex], trace_id: str | None) -> None:
        self._tag = tag
        self._sources = {item.name: _source(item) for item in attributes if isinstance(item, Number)}
        self._hexes = [item for item in attributes if isinstance(item, Hex)]
        self._trace_id = trace_id

    def add(self, batch: Batch, columns: Columns) -> None:
        """Those that any row has."""
        encoded = _encoded({source: _found(source, batch) for source in dict.fromkeys(self._sources.values())})
        for name, source in self._sources.items():
            if source in encoded:
                columns.add(name, *encoded[source])
        for item in self._hexes:
            raw = raw_bytes(batch.number(item.column))
            columns.add(item.name, _HEX[raw].view(f"V{2 * raw.shape[1]}").ravel(), _not_zero(raw))
        if self._trace_id is not None:
            raw = raw_bytes(batch.number(self._trace_id))
            columns.add(_TRACE, raw.view(f"V{raw.shape[1]}").ravel(), _not_zero(raw))

    def sections(self, columns: Columns) -> Iterator[Section]:
        """Where they stand in a record."""
        for name, source in self._sources.items():
            if name in columns.numbers:
                yield self._attribute(name, wire.DOUBLE if source.double else wire.INT, columns.numbers[name].dtype)
        for item in self._hexes:
            if item.name in columns.numbers:
                kind = columns.numbers[item.name].dtype
                yield self._attribute(item.name, wire.STRING + wire.varint(kind.itemsize), kind)
        if _TRACE in columns.numbers:
            kind = columns.numbers[_TRACE].dtype
            yield Section((_TRACE_ID + wire.varint(kind.itemsize), Hole(_TRACE, kind.str)), _TRACE)

    def _attribute(self, name: AttributeName, before: bytes, kind: np.dtype[Any]) -> Section:
        """A KeyValue field whose value is a hole behind *before* (the tag of the value in its AnyValue)."""
        size = len(before) + kind.itemsize
        key = wire.field(wire.KEY, wire.text(name))
        value = wire.VALUE + wire.varint(size) + before
        head = self._tag + wire.varint(len(key) + len(value) - len(before) + size) + key + value
        return Section((head, Hole(name, kind.str)), name)


def _not_zero(raw: NDArray[np.uint8]) -> NDArray[np.bool_]:
    known: NDArray[np.bool_] = np.logical_or.reduce(raw, axis=1)
    return known


def _source(number: Number) -> Source:
    return Source(number.column, number.scale, number.absent, names.ATTRIBUTES[number.name].type == "double")


def _found(source: Source, batch: Batch) -> Found:
    values = batch.number(source.column)
    known = present(values, source.absent)
    if source.double:
        return Found(scaled(values, source.scale), known)
    return Found(np.nan_to_num(values) if values.dtype.kind == "f" else values, known)


def _encoded(found: Mapping[Source, Found]) -> dict[Source, Found]:
    """Doubles as they are; integers as varints, those of one width in one go."""
    integers = {source: column for source, column in found.items() if not source.double}
    widths, matrix = _widths(list(integers.values()))
    encoded = {source: column for source, column in found.items() if source.double}
    for width in set(widths):
        chosen = [place for place, of_place in enumerate(widths) if of_place == width]
        for place, values in zip(chosen, varints(matrix[chosen], width), strict=True):
            source = list(integers)[place]
            encoded[source] = Found(values, integers[source].known)
    return encoded


def _widths(columns: Sequence[Found]) -> tuple[list[int], NDArray[np.uint64]]:
    """The bytes that each column needs, and all of them as numbers of 64 bits, of shape (columns, rows)."""
    matrix = np.empty((len(columns), len(columns[0].values) if columns else 0), np.uint64)
    for row, column in enumerate(columns):
        values = column.values
        matrix[row] = values if values.dtype.kind == "u" else values.astype(np.int64).view(np.uint64)
        if column.known is not None:
            matrix[row] *= column.known  # what marks an absent number may be large, and would widen the whole column
    return [max(_NARROWEST, varint_width(most)) for most in matrix.max(axis=1, initial=0).tolist()], matrix
