"""The id that both ends of a TCP connection compute without talking: a keyed hash of its initial sequence numbers.

The kernel side recovers both numbers at either end, through any NAT. The key keeps the numbers of living connections
secret; it is the same on all nodes.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from otelbpf.native.library import address_of, library

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otelbpf.batch import Batch
    from otelbpf.config import Config

BYTES = 16
PAIR_BYTES = 8
KEY_BYTES = 64


def add_connection_ids(config: Config, batch: Batch) -> None:
    """The column `connection_id` of connections that become records."""
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
    pairs = (client_isn[chosen].astype(np.uint64) << np.uint64(32) | server_isn[chosen]).astype(">u8")
    ids[chosen] = hash_each(_key_bytes(key), pairs.view(np.uint8).reshape(-1, PAIR_BYTES))
    return ids


def hash_each(key: bytes, inputs: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """BLAKE2b of each row of *inputs*, uint8 of shape (rows, 8): of shape (rows, 16)."""
    digests = np.empty((len(inputs), BYTES), np.uint8)
    library().otelbpf_hash_each(key, len(key), address_of(inputs), len(inputs), address_of(digests))
    return digests


def _key_bytes(key: str) -> bytes:
    """BLAKE2b takes 64 bytes of key; a longer one is hashed first."""
    encoded = key.encode()
    return encoded if len(encoded) <= KEY_BYTES else hashlib.blake2b(encoded, digest_size=KEY_BYTES).digest()
