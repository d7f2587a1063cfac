"""Records other than addresses and aliases as text, in the form of zone files: `MX 10 mx.example.org`."""

from __future__ import annotations

import base64
from socket import AF_INET6, inet_ntoa, inet_ntop
from struct import Struct
from typing import TYPE_CHECKING

from otelbpf.errors import ProtocolError
from otelbpf.protocols.dns_names import quoted, read_name
from otelbpf.protocols.dns_registry import CAA, DNAME, HTTPS, MX, NAPTR, NS, PTR, SOA, SRV, SVCB, TXT, type_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SHORT = Struct(">H")
_SRV = Struct(">3H")
_SOA = Struct(">5I")
_SPF = 99

_MANDATORY, _ALPN, _NO_DEFAULT_ALPN, _PORT, _IPV4_HINT, _ECH, _IPV6_HINT, _DOHPATH = range(8)


def record_text(message: bytes, type_: int, at: int, end: int) -> str:
    """The record whose data are ``message[at:end]``; the form of RFC 3597 for a type that is not known here.

    Raises ProtocolError or IndexError when the data are not what the type says.
    """
    write = _WRITERS.get(type_)
    data = write(message, at, end) if write else _unknown(message, at, end)
    return f"{type_name(type_)} {data}"


def _unknown(message: bytes, at: int, end: int) -> str:
    return f"\\# {end - at} {message[at:end].hex()}".rstrip()


def _name_until(message: bytes, at: int, end: int) -> str:
    name, after = read_name(message, at)
    if after != end:
        raise ProtocolError("a DNS record is longer or shorter than its name")
    return name


def _unpack(layout: Struct, message: bytes, at: int, end: int) -> tuple[int, ...]:
    if at + layout.size > end:
        raise ProtocolError("a DNS record is too short")
    return layout.unpack_from(message, at)


def _mx(message: bytes, at: int, end: int) -> str:
    (preference,) = _unpack(_SHORT, message, at, end)
    return f"{preference} {_name_until(message, at + 2, end)}"


def _srv(message: bytes, at: int, end: int) -> str:
    priority, weight, port = _unpack(_SRV, message, at, end)
    return f"{priority} {weight} {port} {_name_until(message, at + 6, end)}"


def _soa(message: bytes, at: int, end: int) -> str:
    primary, at = read_name(message, at)
    mailbox, at = read_name(message, at)
    numbers = _unpack(_SOA, message, at, end)
    return f"{primary} {mailbox} {' '.join(map(str, numbers))}"


def _strings(message: bytes, at: int, end: int) -> Iterator[bytes]:
    while at < end:
        after = at + 1 + message[at]
        if after > end:
            raise ProtocolError("a string in a DNS record is longer than the record")
        yield message[at + 1 : after]
        at = after


def _txt(message: bytes, at: int, end: int) -> str:
    return " ".join(map(quoted, _strings(message, at, end)))


def _caa(message: bytes, at: int, end: int) -> str:
    if at + 2 + message[at + 1] > end:
        raise ProtocolError("the tag of a CAA record is longer than the record")
    flags, value = message[at], at + 2 + message[at + 1]
    return f"{flags} {quoted(message[at + 2 : value])[1:-1]} {quoted(message[value:end])}"


def _naptr(message: bytes, at: int, end: int) -> str:
    order, at = _unpack(_SHORT, message, at, end)[0], at + 2
    preference, at = _unpack(_SHORT, message, at, end)[0], at + 2
    texts = []
    for _ in range(3):
        after = at + 1 + message[at]
        if after > end:
            raise ProtocolError("a string in a DNS record is longer than the record")
        texts.append(quoted(message[at + 1 : after]))
        at = after
    return f"{order} {preference} {' '.join(texts)} {_name_until(message, at, end)}"


def _svcb(message: bytes, at: int, end: int) -> str:
    (priority,) = _unpack(_SHORT, message, at, end)
    target, at = read_name(message, at + 2)
    parts = [str(priority), target]
    while at < end:
        (key,) = _unpack(_SHORT, message, at, end)
        (length,) = _unpack(_SHORT, message, at + 2, end)
        at += 4 + length
        if at > end:
            raise ProtocolError("a parameter in a DNS record is longer than the record")
        parts.append(_parameter(key, message[at - length : at]))
    return " ".join(parts)


def _parameter(key: int, value: bytes) -> str:
    name = _PARAMETERS.get(key, f"key{key}")
    return f"{name}={_parameter_value(key, value)}" if value else name


def _parameter_value(key: int, value: bytes) -> str:
    if key == _ALPN:
        return quoted(b",".join(_strings(value, 0, len(value))))
    if key == _PORT and len(value) == 2:
        return str(_SHORT.unpack(value)[0])
    if key == _MANDATORY and len(value) % 2 == 0:
        return ",".join(_PARAMETERS.get(number, f"key{number}") for (number,) in _SHORT.iter_unpack(value))
    if key == _IPV4_HINT and len(value) % 4 == 0:
        return ",".join(inet_ntoa(value[i : i + 4]) for i in range(0, len(value), 4))
    if key == _IPV6_HINT and len(value) % 16 == 0:
        return ",".join(inet_ntop(AF_INET6, value[i : i + 16]) for i in range(0, len(value), 16))
    if key == _ECH:
        return base64.b64encode(value).decode("ascii")
    return quoted(value)


_PARAMETERS = {
    _MANDATORY: "mandatory",
    _ALPN: "alpn",
    _NO_DEFAULT_ALPN: "no-default-alpn",
    _PORT: "port",
    _IPV4_HINT: "ipv4hint",
    _ECH: "ech",
    _IPV6_HINT: "ipv6hint",
    _DOHPATH: "dohpath",
}

_WRITERS: dict[int, Callable[[bytes, int, int], str]] = {
    NS: _name_until,
    PTR: _name_until,
    DNAME: _name_until,
    SOA: _soa,
    MX: _mx,
    TXT: _txt,
    _SPF: _txt,
    SRV: _srv,
    NAPTR: _naptr,
    SVCB: _svcb,
    HTTPS: _svcb,
    CAA: _caa,
}
