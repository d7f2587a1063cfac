"""Cuts an encoded request in two at the border of an item, by walking along the lengths: nothing is decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelbpf.errors import ProtocolError
from otelbpf.signals.wire import varint

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from otelbpf.export.request import Request

LENGTH_DELIMITED = 2
FIXED_BYTES = {1: 8, 5: 4}
Levels = tuple[frozenset[int], ...]
"""Numbers of the fields that lead from a message to the items in it, from the outside to the inside."""
_RESOURCE, _SCOPE, _ITEM = frozenset({1}), frozenset({2}), frozenset({2})
_METRIC_DATA, _POINT = frozenset({5, 7, 9, 10, 11}), frozenset({1})
LEVELS: dict[str, Levels] = {
    "logs": (_RESOURCE, _SCOPE, _ITEM),
    "traces": (_RESOURCE, _SCOPE, _ITEM),
    "metrics": (_RESOURCE, _SCOPE, _ITEM, _METRIC_DATA, _POINT),
}


def halves(request: Request) -> tuple[Request, Request] | None:
    """Two requests with half of the items each, in order; None when there is nothing to cut."""
    levels = LEVELS[request.signal]
    try:
        items = count(request.body, levels)
        if items < 2 or items != request.items:
            return None
        middle = items // 2
        bodies = [between(request.body, levels, *part) for part in ((0, middle), (middle, items))]
    except ProtocolError:
        return None
    first, second = bodies
    return request._replace(body=first, items=middle), request._replace(body=second, items=items - middle)


def count(message: bytes, levels: Levels) -> int:
    """The items in *message*. Raises ProtocolError for what is no message."""
    inner = levels[1:]
    found = (payload for number, payload, _ in fields(message) if number in levels[0] and payload is not None)
    return sum(count(payload, inner) if inner else 1 for payload in found)


def between(message: bytes, levels: Levels, first: int, last: int) -> bytes:
    """*message* with its items from *first* to *last* only; all else in it is kept, but what would be empty."""
    kept: list[bytes] = []
    position = 0
    for number, payload, whole in fields(message):
        if number not in levels[0] or payload is None:
            kept.append(whole)
            continue
        size = count(payload, levels[1:]) if levels[1:] else 1
        begin, end = max(first - position, 0), min(last - position, size)
        position += size
        if begin < end:
            part = whole if end - begin == size else _framed(whole, between(payload, levels[1:], begin, end))
            kept.append(part)
    return b"".join(kept)


def fields(message: bytes) -> Iterator[tuple[int, bytes | None, bytes]]:
    """Each field's number, its payload if that has a length, and all its bytes."""
    at, end = 0, len(message)
    while at < end:
        tag, after = _varint(message, at)
        kind = tag & 7
        payload = None
        if kind == LENGTH_DELIMITED:
            size, begin = _varint(message, after)
            after = begin + size
            payload = message[begin:after]
        elif kind in FIXED_BYTES:
            after += FIXED_BYTES[kind]
        elif kind == 0:
            _, after = _varint(message, after)
        else:
            raise ProtocolError(f"a field of wire type {kind}")
        if after > end:
            raise ProtocolError("a field is longer than its message")
        yield tag >> 3, payload, message[at:after]
        at = after


def _framed(whole: bytes, replacement: bytes) -> bytes:
    """The field *whole* with *replacement* for its payload."""
    _, after = _varint(whole, 0)
    return whole[:after] + varint(len(replacement)) + replacement


def _varint(message: Sequence[int], at: int) -> tuple[int, int]:
    """The number at *at*, and where it ends."""
    number = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise ProtocolError("a number does not end")
        byte = message[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7
