"""Protobuf's wire format and the few OTLP messages that are the same in every signal.

A *field* is framed (tag, length, payload); a *message* is the payload alone. Field numbers are those of
opentelemetry-proto 1.x, which are stable.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otelbpf.signals.name import AttributeName

REQUEST_RESOURCE: Final = b"\x0a"
RESOURCE: Final = b"\x0a"
RESOURCE_ATTRIBUTE: Final = b"\x0a"
RESOURCE_SCOPE: Final = b"\x12"
RESOURCE_SCHEMA_URL: Final = b"\x1a"
SCOPE: Final = b"\x0a"
SCOPE_ITEM: Final = b"\x12"
SCOPE_SCHEMA_URL: Final = b"\x1a"
SCOPE_NAME: Final = b"\x0a"
SCOPE_VERSION: Final = b"\x12"

KEY: Final = b"\x0a"
VALUE: Final = b"\x12"
STRING: Final = b"\x0a"
BOOL: Final = b"\x10"
INT: Final = b"\x18"
DOUBLE: Final = b"\x21"
ARRAY: Final = b"\x2a"
ARRAY_ITEM: Final = b"\x0a"

_ONE_BYTE = tuple(bytes((number,)) for number in range(128))
_DOUBLE = struct.Struct("<d")


def varint(number: int) -> bytes:
    """*number* as varint; a negative one as the 64 bits of its two's complement."""
    if 0 <= number < 128:
        return _ONE_BYTE[number]
    number &= 0xFFFF_FFFF_FFFF_FFFF
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def double(number: float) -> bytes:
    return _DOUBLE.pack(number)


def field(tag: bytes, payload: bytes) -> bytes:
    """A field whose payload has a length: a message, a string, bytes, packed numbers."""
    return tag + varint(len(payload)) + payload


def text(value: str) -> bytes:
    """UTF-8; what cannot be written in it (half of a surrogate pair, from an undecodable path) becomes a `?`."""
    return value.encode("utf-8", "replace")


def texts(values: Iterable[str]) -> list[bytes]:
    """`text` of each."""
    lines = list(values)
    try:
        return list(map(str.encode, lines))
    except UnicodeEncodeError:
        return list(map(text, lines))


def any_value(value: Any) -> bytes:
    """An AnyValue message by the type of *value*: str, bool, int, float, or a sequence of them."""
    if isinstance(value, str):
        return field(STRING, text(value))
    if isinstance(value, bool):
        return BOOL + (b"\x01" if value else b"\x00")
    if isinstance(value, int):
        return INT + varint(value)
    if isinstance(value, float):
        return DOUBLE + double(value)
    return field(ARRAY, b"".join(field(ARRAY_ITEM, any_value(item)) for item in value))


def attribute(tag: bytes, key: str, value: Any) -> bytes:
    """A KeyValue field; *tag* is that of the attributes in the message around it."""
    return field(tag, field(KEY, text(key)) + field(VALUE, any_value(value)))


def known(value: Any) -> bool:
    """Whether there is something to say: neither None nor an empty text nor an empty list."""
    return value is not None and value not in ("", [], ())


class Writer:
    """Writes one attribute for many values: its key is encoded once, its type is the one that the table says."""

    def __init__(self, tag: bytes, name: AttributeName, words: Mapping[str, str] | None = None) -> None:
        self._tag = tag
        self._key = field(KEY, text(name)) + VALUE
        self._name = name
        self._words = words or {}

    def __call__(self, value: Any) -> bytes:
        """The field; nothing when there is nothing to say."""
        if not known(value):
            return b""
        if self._name.type == "str":
            encoded = text(self._words.get(value, value) if self._words else str(value))
            size = len(encoded)
            if size < 100 - len(self._key):  # all lengths are one byte: most texts are
                whole = len(self._key) + size + 3
                return (
                    self._tag + _ONE_BYTE[whole] + self._key + _ONE_BYTE[size + 2] + STRING + _ONE_BYTE[size] + encoded
                )
            payload = field(STRING, encoded)
        else:
            payload = any_value(typed(self._name, value))
        return field(self._tag, self._key + varint(len(payload)) + payload)


def typed(name: AttributeName, value: Any) -> Any:
    """*value* in the type that the table gives to *name*, so that a series or a store never sees two types."""
    match name.type:
        case "double":
            return float(value)
        case "int":
            return int(value)
        case "bool":
            return bool(value)
        case "str":
            return str(value)
    return [str(item) for item in value]


def scope(name: str, version: str) -> bytes:
    """An InstrumentationScope message."""
    return field(SCOPE_NAME, text(name)) + field(SCOPE_VERSION, text(version))


def resource(values: Mapping[str, Any]) -> bytes:
    """A Resource message; sorted by key, so that equal resources are equal bytes."""
    return b"".join(attribute(RESOURCE_ATTRIBUTE, key, value) for key, value in sorted(values.items()) if known(value))
