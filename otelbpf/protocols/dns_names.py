"""Domain names in DNS messages, and their text."""

from __future__ import annotations

from otelbpf.errors import ProtocolError

MAX_NAME_BYTES = 255

_POINTER = 0xC0
_SPECIAL = frozenset(b'"().;\\@$')
_PLAIN = bytes(byte for byte in range(0x21, 0x7F) if byte not in _SPECIAL)
_ODD = 0
_TO_TEXT = bytes(
    byte if byte in _PLAIN else ord(".") if 0 < byte < 0x20 else _ODD  # lengths above 31 look like letters
    for byte in range(256)
)


def read_name(message: bytes, at: int) -> tuple[str, int]:
    """The name at *at*, and where what follows it begins.

    Raises ProtocolError for a name that is too long or points forward, IndexError for one that is cut.
    """
    end = message.find(0, at)
    plain = _plain_text(message[at:end]) if end > at else None
    if plain is not None:
        return plain, end + 1
    labels, after, room, limit = [], 0, MAX_NAME_BYTES, at
    while length := message[at]:
        if length < 64:
            end = at + 1 + length
            labels.append(message[at + 1 : end])
            room -= end - at
            if room < 1:
                raise ProtocolError("a DNS name of more than 255 bytes")
            at = end
        elif length >= _POINTER:
            after = after or at + 2
            at = (length & 0x3F) << 8 | message[at + 1]
            if at >= limit:
                raise ProtocolError("a DNS name points forward")
            limit = at
        else:
            raise ProtocolError("a DNS label of unknown kind")
    return name_text(labels), after or at + 1


def skip_name(message: bytes, at: int) -> int:
    """Where what follows the name at *at* begins; the name itself is not looked at."""
    while length := message[at]:
        if length >= _POINTER:
            return at + 2
        if length >= 64:
            raise ProtocolError("a DNS label of unknown kind")
        at += 1 + length
    return at + 1


def _plain_text(wire: bytes) -> str | None:
    """The name whose labels, without the zero at the end, are *wire*: the frequent kind, without pointers, odd bytes
    and labels of more than 31. None for any other, and for what is no name."""
    text = wire.translate(_TO_TEXT)
    size, at, labels = len(wire), 0, 0
    if size >= MAX_NAME_BYTES or _ODD in text:
        return None
    while at < size:
        at += wire[at] + 1
        labels += 1
    # More dots than labels: a byte inside of a label looks like a length.
    return text[1:].decode("ascii") if at == size and text.count(b".") == labels else None


def name_text(labels: list[bytes]) -> str:
    """Labels as one text without a trailing dot; bytes that a name's text cannot hold as `\\.` or `\\032` (RFC 4343)."""
    return ".".join("".join([_ESCAPED[byte] for byte in label]) for label in labels) or "."


def quoted(value: bytes) -> str:
    """A character string as zone files have it: in quotation marks, odd bytes escaped."""
    return '"' + "".join(_QUOTED[byte] for byte in value) + '"'


def _escaped(byte: int) -> str:
    if byte in _SPECIAL:
        return "\\" + chr(byte)
    return chr(byte) if 0x20 < byte < 0x7F else f"\\{byte:03d}"


def _quoted(byte: int) -> str:
    if byte in b'"\\':
        return "\\" + chr(byte)
    return chr(byte) if 0x20 <= byte < 0x7F else f"\\{byte:03d}"


_ESCAPED = tuple(map(_escaped, range(256)))
_QUOTED = tuple(map(_quoted, range(256)))
