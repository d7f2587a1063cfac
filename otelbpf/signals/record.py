"""One declared event, compiled: a batch of rows becomes encoded log records.

A record has its numbers (times, ids, every numeric attribute), texts that are made for it (addresses, its body) and
blocks that many records share: what is known of a thing, encoded once and kept with it. All of that is put together for
a whole batch at a time (`sheet.py`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from otelbpf.lines import Lines, Part
from otelbpf.probes.probe import Address, Choice, Constant, Hex, Known, Number
from otelbpf.signals import names, wire
from otelbpf.signals.addresses import Addresses
from otelbpf.signals.attributes import Blocks, Codes, blocks_of, checked, with_legacy
from otelbpf.signals.envelope import Stretches
from otelbpf.signals.numbers import Numbers
from otelbpf.signals.rows import Hole, distinct_of, varint_format, varint_width, varints
from otelbpf.signals.sheet import Columns, Layout, Section

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from otelbpf.batch import Batch
    from otelbpf.probes.probe import Attribute, Event
    from otelbpf.signals.envelope import Encoded
    from otelbpf.signals.sheet import Piece

INFO: Final = 9
WARN: Final = 13
ERROR: Final = 17

_TIME: Final = b"\x09"
_SEVERITY: Final = b"\x10"
_BODY: Final = b"\x2a"
_ATTRIBUTE: Final = b"\x32"
_OBSERVED_TIME: Final = b"\x59"
_EVENT_NAME: Final = b"\x62"

_FRAME_BYTES: Final = 12
_MAX_LAYOUTS: Final = 128
_MAX_BLOCKS: Final = 4096


class Records:
    """The encoded records of a batch."""

    def __init__(
        self, written: Iterable[NDArray[np.uint8]], lengths: NDArray[np.intp], times_ns: NDArray[np.uint64]
    ) -> None:
        self.lengths = lengths
        self._times_ns = times_ns
        self._encoded = Stretches([stretch.data for stretch in written], lengths)

    def encoded(self, first: int, last: int) -> Encoded:
        return self._encoded.part(first, last)

    def oldest_ns(self, first: int, last: int) -> int:
        return int(self._times_ns[first:last].min())


class Choices:
    """Severity and choices, which are a few: one block per combination."""

    def __init__(self, choices: Sequence[Choice]) -> None:
        self._choices = [(choice, Codes(choice.values)) for choice in choices]
        self._combinations = (ERROR + 1) * math.prod(codes.count for _, codes in self._choices)
        self._blocks: dict[int, bytes] = {}

    def of(self, batch: Batch, severities: NDArray[np.int64]) -> Part:
        """The block of each row."""
        mixed = severities
        for choice, codes in self._choices:
            mixed = mixed * codes.count + codes.of(batch.number(choice.column))
        distinct, which = distinct_of(mixed, self._combinations)
        if len(self._blocks) > _MAX_BLOCKS:
            self._blocks.clear()
        return blocks_of([self._blocks.get(key) or self._made(key) for key in distinct], which)

    def _made(self, mixed: int) -> bytes:
        key, block = mixed, b""
        for choice, codes in reversed(self._choices):
            mixed, code = divmod(mixed, codes.count)
            if code:
                block += wire.attribute(_ATTRIBUTE, choice.name, codes.values[code])
        self._blocks[key] = block + _SEVERITY + wire.varint(mixed)
        return self._blocks[key]


class CompiledEvent:
    """An Event ready to encode."""

    def __init__(self, event: Event, *, legacy: bool, name_attribute: bool) -> None:
        attributes: tuple[Attribute, ...] = checked(event.attributes, event.name)
        if legacy:
            attributes = tuple(with_legacy(attributes))
        if name_attribute:
            attributes = (Constant(names.OTEL_EVENT_NAME, event.name), *attributes)
        constants = [item for item in attributes if isinstance(item, Constant)]
        self._constants = wire.field(_EVENT_NAME, wire.text(event.name)) + b"".join(
            wire.attribute(_ATTRIBUTE, item.name, wire.typed(item.name, item.value)) for item in constants
        )
        self.event = event
        self._body: Callable[[Batch], Any] = event.body
        self._choices = Choices([item for item in attributes if isinstance(item, Choice)])
        self._numbers = Numbers(
            _ATTRIBUTE, [item for item in attributes if isinstance(item, Number | Hex)], event.trace_id
        )
        self._addresses = Addresses(_ATTRIBUTE, [item for item in attributes if isinstance(item, Address)])
        self._known = [Blocks(_ATTRIBUTE, item, legacy=legacy) for item in attributes if isinstance(item, Known)]
        self._layouts: dict[Any, Layout] = {}

    def encode(self, batch: Batch, now_ns: int) -> Records:
        """A record for every row of *batch*, which has at least one."""
        columns = Columns()
        times_ns = batch.number("time_ns").astype(np.uint64) + np.uint64(batch.clock_offset_ns)
        columns.numbers["time"] = times_ns
        columns.numbers["observed"] = np.broadcast_to(np.uint64(now_ns), len(batch))
        self._numbers.add(batch, columns)
        body = self._add_body(batch, columns)
        self._addresses.add(batch, columns)
        columns.blocks["choices"] = self._choices.of(batch, self._severities(batch))
        for index, known in enumerate(self._known):
            if (part := known.of(batch)) is not None:
                columns.blocks[f"known {index}"] = part
        layout = self._layout(columns, body)
        lengths = layout.lengths(len(batch), columns)
        frame_width = varint_width(layout.width)
        columns.numbers["frame"] = varints((lengths - 1 - frame_width).astype(np.uint64), frame_width)
        return Records(layout.written(len(batch), columns), lengths, times_ns)

    def _add_body(self, batch: Batch, columns: Columns) -> Lines:
        lines = self._body(batch)
        if not isinstance(lines, Lines):
            lines = Lines.written(lines)
        lengths = lines.lengths()
        width = varint_width(int(lengths.max()) + 11)
        columns.numbers["body"] = varints(lengths.astype(np.uint64), width)
        columns.numbers["any"] = varints((lengths + 1 + width).astype(np.uint64), width)
        for index, piece in enumerate(lines.pieces):
            if isinstance(piece, Part):
                columns.texts[f"body {index}"] = piece
        return lines

    def _layout(self, columns: Columns, body: Lines) -> Layout:
        """Kept for the next batch whose columns are as wide."""
        key = (columns.key(), tuple(piece for piece in body.pieces if isinstance(piece, str)))
        if key not in self._layouts:
            if len(self._layouts) >= _MAX_LAYOUTS:
                self._layouts.clear()
            self._layouts[key] = self._made(columns, body)
        return self._layouts[key]

    def _made(self, columns: Columns, body: Lines) -> Layout:
        begin = Section((_TIME, Hole("time", "<u8"), _OBSERVED_TIME, Hole("observed", "<u8"), self._constants))
        length = columns.numbers["body"].dtype.str
        head = Section((_BODY, Hole("any", length), wire.STRING, Hole("body", length)))
        numbers = [begin, *self._numbers.sections(columns), head]
        texts = [*_pieces_of_body(body), *self._addresses.pieces(columns)]
        blocks = [Hole(name, part.words.cells.dtype.str) for name, part in columns.blocks.items()]
        without_frame = Layout(numbers, texts, blocks).width
        frame = Hole("frame", varint_format(varint_width(without_frame + _FRAME_BYTES)))
        return Layout([Section((wire.SCOPE_ITEM, frame)), *numbers], texts, blocks)

    def _severities(self, batch: Batch) -> NDArray[np.int64]:
        severities = np.full(len(batch), INFO, np.int64)
        if self.event.failed is not None:
            severities[batch.number(self.event.failed)] = WARN
        if self.event.error is not None:
            severities[batch.number(self.event.error)] = ERROR
        return severities


def _pieces_of_body(body: Lines) -> Iterator[Piece]:
    for index, piece in enumerate(body.pieces):
        yield piece.encode() if isinstance(piece, str) else Hole(f"body {index}", piece.words.cells.dtype.str)
