"""Addresses as text, a whole column at a time: tens of thousands a second may be new, so none is made on its own.

Each octet stands in a table as four bytes, filled up with zeros and with the dot that separates it from the next; an
address is four of them side by side.
"""

from __future__ import annotations

import socket
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from otelbpf.lines import Part, Words

if TYPE_CHECKING:
    from numpy.typing import NDArray

BYTES = 16
_FIRST_OCTET = 12
_MAPPED = np.uint64(0xFFFF0000)
_LOW_HALF = np.uint64(0xFFFFFFFF)
_OCTETS = 256
_CELL, _LONG_CELL = 16, 48
"""Bytes for the text of an IPv4 address, and of any address (45, and two brackets)."""


def texts(addresses: NDArray[np.void]) -> list[str]:
    """Each address of 16 bytes as text, a mapped IPv4 address with dots; the unspecified address is an empty text."""
    return [text.decode() for text in Part(words(addresses)).texts()]


def words(addresses: NDArray[np.void], *, bracketed: bool = False) -> Words:
    """The same as words; *bracketed* puts an IPv6 address into brackets."""
    raw, mapped = raw_addresses(addresses), is_mapped(addresses)
    octets = raw[:, _FIRST_OCTET:]
    places = octets + _places()
    plain = mapped & (octets.view("<u4").ravel() != 0)
    cells = _cells().take(places) * plain[:, None]
    lengths = _sums(_lengths().take(places)) * plain
    long = np.flatnonzero(~mapped & raw.view("<u8").any(axis=1))
    if not len(long):
        return Words(cells.view(f"V{_CELL}").ravel(), lengths)
    wide = np.zeros((len(raw), _LONG_CELL), np.uint8)
    wide[:, :_CELL] = cells.view(np.uint8).reshape(-1, _CELL)
    once, which = np.unique(raw[long].view(f"S{BYTES}").ravel(), return_inverse=True)
    texts = [socket.inet_ntop(socket.AF_INET6, address.ljust(BYTES, b"\0")) for address in once.tolist()]
    cells_of_long = np.array([f"[{text}]" if bracketed else text for text in texts], f"S{_LONG_CELL}")
    wide[long] = cells_of_long.view(np.uint8).reshape(-1, _LONG_CELL)[which]
    lengths[long] = np.char.str_len(cells_of_long)[which]
    return Words(wide.view(f"V{_LONG_CELL}").ravel(), lengths)


def is_mapped(addresses: NDArray[np.void]) -> NDArray[np.bool_]:
    """The rows that hold an IPv4 address."""
    parts = raw_addresses(addresses).view("<u8")
    mapped: NDArray[np.bool_] = (parts[:, 0] == 0) & (parts[:, 1] & _LOW_HALF == _MAPPED)
    return mapped


def raw_addresses(addresses: NDArray[np.void]) -> NDArray[np.uint8]:
    """The same as bytes, of shape (rows, 16)."""
    return np.ascontiguousarray(addresses).view(np.uint8).reshape(-1, BYTES)


def _sums(fours: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Of each four bytes, by one multiplication that adds them up in the highest: a sum over so short an axis takes
    ten times as long."""
    return (fours.view("<u4").ravel() * np.uint32(0x01010101) >> np.uint32(24)).astype(np.intp)


@cache
def _cells() -> NDArray[np.uint32]:
    """Place of the octet * 256 + octet → its four bytes."""
    texts = [f"{octet}{end}" for end in (".", ".", ".", "") for octet in range(_OCTETS)]
    cells: NDArray[np.uint32] = np.array(texts, "S4").view("<u4")
    return cells


@cache
def _lengths() -> NDArray[np.uint8]:
    """The same → how many of the four bytes are text."""
    lengths: NDArray[np.uint8] = np.count_nonzero(_cells().view(np.uint8).reshape(-1, 4), axis=1).astype(np.uint8)
    return lengths


@cache
def _places() -> NDArray[np.intp]:
    return np.arange(4) * _OCTETS
