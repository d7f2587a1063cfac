"""The id that both ends of a TCP connection compute without talking: a keyed hash of its initial sequence numbers.

The kernel side recovers both numbers at either end, through any NAT. The key keeps the numbers of living connections
secret; it is the same on all nodes.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BYTES = 16
KEY_BYTES = 64


def connection_ids(
    client_isn: NDArray[np.uint32], server_isn: NDArray[np.uint32], wanted: NDArray[np.bool_], key: str
) -> NDArray[np.uint8]:
    """An id a row, uint8 of shape (rows, 16); zeros where it is not wanted or the numbers are unknown (both 0)."""
    ids = np.zeros((len(wanted), BYTES), np.uint8)
    chosen = np.flatnonzero(wanted & ((client_isn != 0) | (server_isn != 0)))
    pairs = client_isn[chosen].astype(">u8") << 32 | server_isn[chosen]
    once, which = np.unique(pairs, return_inverse=True)  # where both ends are on this node
    ids[chosen] = np.frombuffer(_hashed(once.astype(">u8").tobytes(), key), np.uint8).reshape(-1, BYTES)[which]
    return ids


def _hashed(pairs: bytes, key: str) -> bytes:
    """Each 8 bytes hashed on their own, joined."""
    fresh = hashlib.blake2b(digest_size=BYTES, key=_key_bytes(key)).copy
    digests = []
    for at in range(0, len(pairs), 8):
        hasher = fresh()
        hasher.update(pairs[at : at + 8])
        digests.append(hasher.digest())
    return b"".join(digests)


def _key_bytes(key: str) -> bytes:
    """BLAKE2b takes 64 bytes of key; a longer one is hashed first."""
    encoded = key.encode()
    return encoded if len(encoded) <= KEY_BYTES else hashlib.blake2b(encoded, digest_size=KEY_BYTES).digest()
