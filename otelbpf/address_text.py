"""Addresses as text, a whole column at a time: tens of thousands a second may be new, so none is made on its own.

Each octet stands in a table as four bytes, padded with zeros and with what separates it from the next; without the zeros
the column is one text with a line for each address.
"""

from __future__ import annotations

import socket
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BYTES = 16
_FIRST_OCTET = 12
_MAPPED = np.uint64(0xFFFF0000)
_LOW_HALF = np.uint64(0xFFFFFFFF)
_NO_TEXT = (0, 0, 0, ord("\n"))


def texts(addresses: NDArray[np.void]) -> list[str]:
    """`encoded`, as text."""
    return list(map(bytes.decode, encoded(addresses)))


def encoded(addresses: NDArray[np.void]) -> list[bytes]:
    """Each address of 16 bytes as text, a mapped IPv4 address with dots; the unspecified address is an empty text."""
    raw = raw_addresses(addresses)
    mapped = is_mapped(addresses)
    octets = raw[:, _FIRST_OCTET:]
    known = octets.view("<u4").ravel() != 0
    cells = _cells()[np.arange(4), octets]
    if not (plain := mapped & known).all():
        cells[~plain] = _NO_TEXT
    lines = cells.tobytes().translate(None, b"\0").split(b"\n")
    lines.pop()
    if not mapped.all():
        for row in np.flatnonzero(~mapped & raw.any(axis=1)).tolist():
            lines[row] = socket.inet_ntop(socket.AF_INET6, raw[row].tobytes()).encode()
    return lines


def is_mapped(addresses: NDArray[np.void]) -> NDArray[np.bool_]:
    """The rows that hold an IPv4 address."""
    parts = raw_addresses(addresses).view("<u8")
    mapped: NDArray[np.bool_] = (parts[:, 0] == 0) & (parts[:, 1] & _LOW_HALF == _MAPPED)
    return mapped


def raw_addresses(addresses: NDArray[np.void]) -> NDArray[np.uint8]:
    """The same as bytes, of shape (rows, 16)."""
    return np.ascontiguousarray(addresses).view(np.uint8).reshape(-1, BYTES)


@cache
def _cells() -> NDArray[np.uint32]:
    """(place of the octet, octet) → its four bytes."""
    return np.array([[f"{octet}{end}" for octet in range(256)] for end in "...\n"], "S4").view("<u4")
