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

    from otelbpf.batch import Batch
    from otelbpf.config import Config

BYTES = 16
KEY_BYTES = 64


def add_connection_ids(config: Config, batch: Batch) -> None:
    """The column `connection_id` of connections that become records; a hash a row is the most expensive part of a batch."""
    numbers = batch.rows["client_isn"], batch.rows["server_isn"]
    batch.columns["connection_id"] = connection_ids(*numbers, batch.number("closed"), config.connection_id.key)


def identities(batch: Batch) -> NDArray[np.uint64]:
    """What both ends know of a connection, as a number; where that is not known, what this end calls its socket."""
    rows = batch.rows
    numbers = rows["client_isn"].astype(np.uint64) << np.uint64(32) | rows["server_isn"]
    return np.where(numbers > 0, numbers, rows["cookie"])


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
