"""Rows → the distinct things among them: what is done once a thing need not be done once a row."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from otelbpf.native.library import address_of, library

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_SEED_BYTES = 8


class Distinct(NamedTuple):
    """*rows* holds the first row of each distinct thing, *codes* which of them each row is."""

    rows: NDArray[np.intp]
    codes: NDArray[np.intp]


def distinct(keys: NDArray[np.uint64]) -> Distinct:
    """The distinct values of *keys*, in the order in which they first appear."""
    return distinct_together((keys,))


def distinct_together(columns: Sequence[NDArray[np.uint64]]) -> Distinct:
    """The distinct combinations of *columns*, at least one, in the order in which they first appear.

    By sorting, as numpy would do it, enrichment took 0.44 µs an event instead of 0.31 (`python -m tests.bench kubernetes`).
    """
    columns = [np.asarray(column, np.uint64) for column in columns]
    rows = min(map(len, columns))
    places = np.array([(column.ctypes.data, column.strides[0]) for column in columns], np.int64)
    table = np.zeros(2 << max(1, rows - 1).bit_length(), np.int32)
    first, codes = np.empty(rows, np.intp), np.empty(rows, np.intp)
    found = library().otelbpf_distinct(
        address_of(places),
        len(columns),
        rows,
        _seed(),
        address_of(table),
        len(table) - 1,
        address_of(first),
        address_of(codes),
    )
    return Distinct(first[:found], codes)


def words(addresses: NDArray[np.void]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Addresses of 16 bytes as two columns of numbers."""
    pair = np.ascontiguousarray(addresses).view(np.uint64).reshape(-1, 2)
    return pair[:, 0], pair[:, 1]


@functools.cache
def _seed() -> int:
    """Another in each process: what comes from the network must not be able to collide by design."""
    return int.from_bytes(os.urandom(_SEED_BYTES), "little")
