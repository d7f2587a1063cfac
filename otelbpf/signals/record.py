"""One declared event, compiled: a batch of rows becomes encoded log records.

A record is the join of a row of numbers (`rows.py`: times, ids, every numeric attribute), its body, a block for its
choices and a block for each thing that is known of it. Blocks are encoded once and reused, so that per record only a
handful of references is put in a list; everything else is done for the whole batch at once.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from otelbpf.lines import Lines
from otelbpf.probes.probe import Address, Choice, Constant, Hex, Known, Number
from otelbpf.signals import names, wire
from otelbpf.signals.attributes import AddressTexts, Blocks, Codes, checked, present, raw_bytes, scaled, with_legacy
from otelbpf.signals.envelope import Encoded
from otelbpf.signals.rows import Hole, Layout, distinct_of, gathered, order_of, varint_format, varint_width, varints

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from otelbpf.batch import Batch
    from otelbpf.probes.probe import Attribute, Event

INFO: Final = 9
WARN: Final = 13
ERROR: Final = 17

_TIME: Final = b"\x09"
_SEVERITY: Final = b"\x10"
_BODY: Final = b"\x2a"
_ATTRIBUTE: Final = b"\x32"
_TRACE_ID: Final = b"\x4a"
_OBSERVED_TIME: Final = b"\x59"
_EVENT_NAME: Final = b"\x62"

_HEX: Final = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), "<u2")
_MAX_LAYOUTS: Final = 128
_MAX_BLOCKS: Final = 4096

Part = tuple[str | None, list[bytes | Hole]]
Presence = dict[str, Any]
"""Optional part → mask of the rows that have it."""


class Records:
    """The encoded records of a batch."""

    def __init__(self, columns: Sequence[list[bytes]], lengths: NDArray[np.intp], times_ns: NDArray[np.uint64]) -> None:
        self.lengths = lengths
        self._times_ns = times_ns
        self._stride = len(columns)
        self._pieces: list[bytes] = [b""] * (self._stride * len(lengths))
        for index, column in enumerate(columns):
            self._pieces[index :: self._stride] = column

    def encoded(self, first: int, last: int) -> Encoded:
        pieces = self._pieces[first * self._stride : last * self._stride]
        return Encoded(pieces, self._stride, self.lengths[first:last])

    def oldest_ns(self, first: int, last: int) -> int:
        return int(self._times_ns[first:last].min())


class Numbers:
    """Everything about a record that is a row of fixed layout: its frame, times, ids and numeric attributes."""

    def __init__(self, attributes: Sequence[Number | Hex], trace_id: str | None) -> None:
        self._numbers = [item for item in attributes if isinstance(item, Number)]
        self._hexes = [item for item in attributes if isinstance(item, Hex)]
        self._trace_id = trace_id
        self._layouts: dict[Any, Layout] = {}

    def encode(
        self, batch: Batch, times_ns: NDArray[np.uint64], now_ns: int, rest: NDArray[np.intp], bodies: NDArray[np.intp]
    ) -> tuple[list[bytes], NDArray[np.intp]]:
        """The rows, and the whole length of each record; *rest* is what follows a row, *bodies* the body in it."""
        presence: Presence = {}
        columns, formats = self._columns(batch, presence)
        body_width = varint_width(int(bodies.max()) + 11)
        key = (*formats.values(), body_width, int(rest.max()) >> 13)
        layout = self._layouts.get(key) or self._made(key, formats, body_width, int(rest.max()))
        rows = layout.rows(len(batch))
        rows["time"] = times_ns
        rows["observed"] = now_ns
        for name, values in columns.items():
            rows[name] = values
        rows["body"] = varints(bodies.astype(np.uint64), body_width)
        rows["any"] = varints((bodies + 1 + body_width).astype(np.uint64), body_width)
        return self._cut(layout, rows, presence, rest)

    def _columns(self, batch: Batch, presence: Presence) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
        """What fills the holes, by name of the attribute, and the format of each hole."""
        columns: dict[str, NDArray[Any]] = {}
        for number in self._numbers:
            column = batch.number(number.column)
            known = present(column, number.absent)
            if known is not None:
                presence[number.name] = known
            columns[number.name] = self._encoded(number, column, known)
        for item in self._hexes:
            raw = raw_bytes(batch.number(item.column))
            presence[item.name] = raw.any(axis=1)
            columns[item.name] = _HEX[raw].view(f"V{2 * raw.shape[1]}").ravel()
        if self._trace_id is not None:
            raw = raw_bytes(batch.number(self._trace_id))
            presence["trace_id"] = raw.any(axis=1)
            columns["trace_id"] = raw.view(f"V{raw.shape[1]}").ravel()
        return columns, {name: values.dtype.str for name, values in columns.items()}

    @staticmethod
    def _encoded(number: Number, column: NDArray[Any], known: NDArray[np.bool_] | None) -> NDArray[Any]:
        if names.ATTRIBUTES[number.name].type == "double":
            return scaled(column, number.scale)
        if column.dtype.kind == "f":
            column = np.nan_to_num(column)
        integers = column.astype(np.int64).view(np.uint64) if column.dtype.kind != "u" else column.astype(np.uint64)
        if known is not None:
            integers[~known] = 0  # what marks an absent number may be large, and would widen the whole column
        return varints(integers, varint_width(int(integers.max())))

    def _made(self, key: Any, formats: dict[str, str], body_width: int, longest_rest: int) -> Layout:
        if len(self._layouts) >= _MAX_LAYOUTS:
            self._layouts.clear()
        parts = self._parts(formats, body_width)
        without_frame = Layout(parts).width
        # *longest_rest* is rounded up to the step of the cache's key.
        frame_width = varint_width(without_frame + ((longest_rest >> 13) + 1 << 13))
        frame: Part = (None, [wire.SCOPE_ITEM, Hole("frame", varint_format(frame_width))])
        layout = self._layouts[key] = Layout([frame, *parts])
        return layout

    def _parts(self, formats: dict[str, str], body_width: int) -> list[Part]:
        start: Part = (None, [_TIME, Hole("time", "<u8"), _OBSERVED_TIME, Hole("observed", "<u8")])
        parts = [start]
        for number in self._numbers:
            kind = formats[number.name]
            double = names.ATTRIBUTES[number.name].type == "double"
            parts.append((number.name, _attribute(number.name, wire.DOUBLE if double else wire.INT, kind)))
        for item in self._hexes:
            kind = formats[item.name]
            length = wire.STRING + wire.varint(np.dtype(kind).itemsize)
            parts.append((item.name, _attribute(item.name, length, kind)))
        if self._trace_id is not None:
            kind = formats["trace_id"]
            parts.append(("trace_id", [_TRACE_ID + wire.varint(np.dtype(kind).itemsize), Hole("trace_id", kind)]))
        body = varint_format(body_width)
        parts.append((None, [_BODY, Hole("any", body), wire.STRING, Hole("body", body)]))
        return parts

    @staticmethod
    def _cut(
        layout: Layout, rows: NDArray[Any], presence: Presence, rest: NDArray[np.intp]
    ) -> tuple[list[bytes], NDArray[np.intp]]:
        """Leaves out what is absent, pattern by pattern, and writes the length of each record into its frame."""
        frame_width = rows.dtype["frame"].itemsize
        patterns = _patterns(len(rows), presence)
        lengths = np.empty(len(rows), np.intp)
        for absent, chosen in patterns:
            lengths[chosen] = layout.width_without(absent)
        lengths += rest
        rows["frame"] = varints((lengths - 1 - frame_width).astype(np.uint64), frame_width)
        if len(patterns) == 1:
            return layout.without(rows, *patterns[0]), lengths
        cut = np.empty(len(rows), object)
        for absent, chosen in patterns:
            cut[chosen] = layout.without(rows, absent, chosen)
        return cut.tolist(), lengths


def _patterns(count: int, presence: Presence) -> list[tuple[frozenset[str], NDArray[np.intp] | slice]]:
    """Which parts are absent together, and in which rows."""
    varying = {name: known for name, known in presence.items() if not known.all()}
    if not varying:
        return [(frozenset(), slice(None))]
    bits = np.zeros(count, np.int64)
    for index, known in enumerate(varying.values()):
        bits |= (~known).astype(np.int64) << index
    order = order_of(bits)
    starts = np.flatnonzero(np.diff(bits[order], prepend=-1))
    ends = [*starts[1:].tolist(), count]
    labels = list(varying)
    return [
        (
            frozenset(label for index, label in enumerate(labels) if int(bits[order[start]]) >> index & 1),
            order[start:end],
        )
        for start, end in zip(starts.tolist(), ends, strict=True)
    ]


def _attribute(name: str, before: bytes, kind: str) -> list[bytes | Hole]:
    """A KeyValue field whose value is a hole behind *before* (the tag of the value in its AnyValue)."""
    size = len(before) + np.dtype(kind).itemsize
    key = wire.field(wire.KEY, wire.text(name))
    value = wire.VALUE + wire.varint(size) + before
    return [_ATTRIBUTE + wire.varint(len(key) + len(value) - len(before) + size) + key + value, Hole(name, kind)]


class Choices:
    """What is the same on every record or one of a few: constants, severity, choices; one block per combination."""

    def __init__(self, fixed: bytes, choices: Sequence[Choice]) -> None:
        self._fixed = fixed
        self._choices = [(choice, Codes(choice.values)) for choice in choices]
        self._combinations = (ERROR + 1) * math.prod(codes.count for _, codes in self._choices)
        self._blocks: dict[int, bytes] = {}

    def of(self, batch: Batch, severities: NDArray[np.int64]) -> tuple[list[bytes], NDArray[np.intp]]:
        mixed = severities
        for choice, codes in self._choices:
            mixed = mixed * codes.count + codes.of(batch.number(choice.column))
        distinct, which = distinct_of(mixed, self._combinations)
        if len(self._blocks) > _MAX_BLOCKS:
            self._blocks.clear()
        blocks = [self._blocks.get(key) or self._made(key) for key in distinct]
        lengths = np.fromiter(map(len, blocks), np.intp, len(blocks))
        return gathered(blocks, which), lengths[which]

    def _made(self, mixed: int) -> bytes:
        key, block = mixed, self._fixed
        for choice, codes in reversed(self._choices):
            mixed, code = divmod(mixed, codes.count)
            if code:
                block += wire.attribute(_ATTRIBUTE, choice.name, codes.values[code])
        self._blocks[key] = block + _SEVERITY + wire.varint(mixed)
        return self._blocks[key]


class CompiledEvent:
    """An Event ready to encode; `rows` says which rows get a record, `encode` makes them."""

    def __init__(self, event: Event, *, legacy: bool, name_attribute: bool) -> None:
        attributes: tuple[Attribute, ...] = checked(event.attributes, event.name)
        if legacy:
            attributes = tuple(with_legacy(attributes))
        if name_attribute:
            attributes = (Constant(names.OTEL_EVENT_NAME, event.name), *attributes)
        constants = [item for item in attributes if isinstance(item, Constant)]
        fixed = wire.field(_EVENT_NAME, wire.text(event.name)) + b"".join(
            wire.attribute(_ATTRIBUTE, item.name, wire.typed(item.name, item.value)) for item in constants
        )
        self.event = event
        self._body: Callable[[Batch], Any] = event.body
        self._choices = Choices(fixed, [item for item in attributes if isinstance(item, Choice)])
        self._numbers = Numbers([item for item in attributes if isinstance(item, Number | Hex)], event.trace_id)
        self._blocks = [Blocks(_ATTRIBUTE, item, legacy=legacy) for item in attributes if isinstance(item, Known)]
        addresses = [item for item in attributes if isinstance(item, Address)]
        self._addresses = [
            AddressTexts(_ATTRIBUTE, column, [item.name for item in addresses if item.column == column])
            for column in dict.fromkeys(item.column for item in addresses)
        ]

    def encode(self, batch: Batch, now_ns: int) -> Records:
        """A record for every row of *batch*, which has at least one."""
        bodies = self._bodies(batch)
        body_lengths = bodies.lengths()
        columns: list[list[bytes]] = [[], *bodies.pieces]
        rest = body_lengths.copy()
        blocks, lengths = self._choices.of(batch, self._severities(batch))
        columns.append(blocks)
        rest += lengths
        for known in self._blocks:
            found = known.of(batch)
            if found is not None:
                columns.append(found[0])
                rest += found[1]
        for address in self._addresses:
            pieces, lengths = address.of(batch)
            columns += pieces
            rest += lengths
        times_ns = batch.number("time_ns").astype(np.uint64) + np.uint64(batch.clock_offset_ns)
        columns[0], record_lengths = self._numbers.encode(batch, times_ns, now_ns, rest, body_lengths)
        return Records(columns, record_lengths, times_ns)

    def _bodies(self, batch: Batch) -> Lines:
        lines = self._body(batch)
        return lines if isinstance(lines, Lines) else Lines([wire.texts(lines)])

    def _severities(self, batch: Batch) -> NDArray[np.int64]:
        severities = np.full(len(batch), INFO, np.int64)
        if self.event.failed is not None:
            severities[batch.number(self.event.failed)] = WARN
        if self.event.error is not None:
            severities[batch.number(self.event.error)] = ERROR
        return severities
