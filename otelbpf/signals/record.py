"""One declared event, compiled: a batch of rows becomes encoded log records.

A record has its numbers (times, ids, every numeric attribute), texts that are made for it (addresses, its body) and
blocks that many records share: what is known of a thing, encoded once and kept with it. All of that is put together for
a whole batch at a time (`native/strands.py`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from otelbpf.lines import Lines, Part, joined_words
from otelbpf.native.strands import Kind, Strand, Strands, of_part
from otelbpf.probes.probe import Address, Choice, Constant, Hex, Known, Number
from otelbpf.signals import names, wire
from otelbpf.signals.addresses import Addresses
from otelbpf.signals.attributes import Blocks, Codes, checked, with_legacy
from otelbpf.signals.envelope import Unwritten
from otelbpf.signals.numbers import Numbers
from otelbpf.signals.rows import distinct_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from otelbpf.batch import Batch
    from otelbpf.probes.probe import Attribute, Event
    from otelbpf.signals.envelope import Encoded

INFO: Final = 9
WARN: Final = 13
ERROR: Final = 17

_TIME: Final = b"\x09"
_SEVERITY: Final = b"\x10"
_BODY: Final = b"\x2a"
_ATTRIBUTE: Final = b"\x32"
_OBSERVED_TIME: Final = b"\x59"
_EVENT_NAME: Final = b"\x62"

_RECORD_WIDTH: Final = 4
_BODY_WIDTH: Final = 4
"""Bytes for their lengths: up to 256 MiB, far more than names and paths have together."""
_MAX_BLOCKS: Final = 4096


class Records:
    """The records of a batch, encoded when they are asked for."""

    def __init__(self, strands: Strands, times_ns: NDArray[np.uint64]) -> None:
        self.lengths = strands.lengths
        self._strands = strands
        self._times_ns = times_ns

    def encoded(self, first: int, last: int) -> Encoded:
        return Unwritten(self._strands, first, self.lengths[first:last])

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
        return Part(joined_words([self._blocks.get(key) or self._made(key) for key in distinct]), which)

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

    def encode(self, batch: Batch, now_ns: int) -> Records:
        """A record for every row of *batch*, which has at least one."""
        times_ns = batch.number("time_ns").astype(np.uint64) + np.uint64(batch.clock_offset_ns)
        constants = _OBSERVED_TIME + now_ns.to_bytes(8, "little") + self._constants
        strands = [
            Strand(Kind.OPEN, wire.SCOPE_ITEM, width=_RECORD_WIDTH),
            Strand(Kind.WORD, constants + _TIME, times_ns),
            *self._numbers.strands(batch),
            *_body(self._body(batch)),
            *self._addresses.strands(batch),
            of_part(self._choices.of(batch, self._severities(batch))),
            *(of_part(part) for known in self._known if (part := known.of(batch)) is not None),
            Strand(Kind.CLOSE),
        ]
        return Records(Strands(strands, len(batch)), times_ns)

    def _severities(self, batch: Batch) -> NDArray[np.int64]:
        severities = np.full(len(batch), INFO, np.int64)
        if self.event.failed is not None:
            severities[batch.number(self.event.failed)] = WARN
        if self.event.error is not None:
            severities[batch.number(self.event.error)] = ERROR
        return severities


def _body(lines: Any) -> Iterator[Strand]:
    """The field with the body, an AnyValue with a string."""
    if not isinstance(lines, Lines):
        lines = Lines.written(lines)
    yield Strand(Kind.OPEN, _BODY, width=_BODY_WIDTH)
    yield Strand(Kind.OPEN, wire.STRING, width=_BODY_WIDTH)
    for piece in lines.pieces:
        yield Strand(Kind.WORD, piece.encode()) if isinstance(piece, str) else of_part(piece)
    yield Strand(Kind.CLOSE)
    yield Strand(Kind.CLOSE)
