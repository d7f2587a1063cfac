"""Netlink: how messages and their attributes lie in bytes."""

from __future__ import annotations

import struct

HEAD = struct.Struct("=IHHII")
"""Of a message: its size, kind and flags, its number, whose it is."""
ATTRIBUTE = struct.Struct("=HH")
TYPE_MASK = 0x3FFF
"""The two bits above say that an attribute is nested, or in network byte order."""
ALIGNED = 4
"""Each message, and each attribute, begins at a multiple of this."""


def attributes(content: bytes) -> dict[int, bytes]:
    """The attributes in *content* by their types, as far as they are whole."""
    found: dict[int, bytes] = {}
    at = 0
    while at + ATTRIBUTE.size <= len(content):
        size, kind = ATTRIBUTE.unpack_from(content, at)
        if size < ATTRIBUTE.size:
            break
        found[kind & TYPE_MASK] = content[at + ATTRIBUTE.size : at + size]
        at += -(-size // ALIGNED) * ALIGNED
    return found
