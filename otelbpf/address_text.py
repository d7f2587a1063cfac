"""Addresses and ports as text, a whole column at a time: tens of thousands a second may be new."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from otelbpf.lines import Part, Words
from otelbpf.native.library import address_of, library

if TYPE_CHECKING:
    from numpy.typing import NDArray

BYTES = 16
_MAPPED = np.uint64(0xFFFF0000)
_LOW_HALF = np.uint64(0xFFFFFFFF)
_CELL, _PORT_CELL = 48, 8
"""Bytes for the text of any address (39, and two brackets), and of a port; native/address.c has them too."""


def texts(addresses: NDArray[np.void]) -> list[str]:
    """Each address of 16 bytes as text (RFC 5952), a mapped IPv4 address with dots; the unspecified one is empty."""
    return [text.decode() for text in Part(words(addresses)).texts()]


def words(addresses: NDArray[np.void], *, bracketed: bool = False) -> Words:
    """The same as words; *bracketed* puts an IPv6 address into brackets."""
    raw, count = raw_addresses(addresses), len(addresses)
    cells, lengths = np.empty(count, f"V{_CELL}"), np.empty(count, np.intp)
    library().otelbpf_address_words(address_of(raw), count, bracketed, address_of(cells), address_of(lengths))
    return Words(cells, lengths)


def port_words(ports: NDArray[np.uint16]) -> Words:
    """Each port in digits."""
    ports, count = np.require(ports, np.uint16, ["C", "A"]), len(ports)
    cells, lengths = np.empty(count, f"V{_PORT_CELL}"), np.empty(count, np.intp)
    library().otelbpf_port_words(address_of(ports), count, address_of(cells), address_of(lengths))
    return Words(cells, lengths)


def is_mapped(addresses: NDArray[np.void]) -> NDArray[np.bool_]:
    """The rows that hold an IPv4 address."""
    parts = raw_addresses(addresses).view("<u8")
    mapped: NDArray[np.bool_] = (parts[:, 0] == 0) & (parts[:, 1] & _LOW_HALF == _MAPPED)
    return mapped


def raw_addresses(addresses: NDArray[np.void]) -> NDArray[np.uint8]:
    """The same as bytes, of shape (rows, 16)."""
    return np.ascontiguousarray(addresses).view(np.uint8).reshape(-1, BYTES)
