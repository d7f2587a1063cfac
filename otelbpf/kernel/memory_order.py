"""Rings on machines that reorder loads and stores (AArch64 does): barriers that Python itself does not have.

Three things must stay in order: the producer position before the headers, the headers before the payloads, the
payloads before the consumer position.
"""

from __future__ import annotations

import ctypes
import os
import platform
from typing import Self

import numpy as np

from otelbpf.kernel.ring import Ring

_STRONGLY_ORDERED = {"x86_64", "AMD64", "i686"}
_ACQUIRE, _RELEASE = 2, 3


class YieldingRing(Ring):
    """For machines that reorder memory accesses and have no libatomic: the scheduler's full barrier is used."""

    @property
    def producer(self) -> int:
        position = self._producer[0]
        os.sched_yield()
        return position

    def _publish(self, position: int) -> None:
        os.sched_yield()
        super()._publish(position)

    def _fence(self) -> None:
        os.sched_yield()


class AtomicRing(Ring):
    """For machines that reorder memory accesses: acquire and release by libatomic.so.1, 1 µs a batch."""

    def __enter__(self) -> Self:
        super().__enter__()
        # numpy, because only a writable buffer tells ctypes its address, and that of the producer cannot be one.
        self._producer_address = np.frombuffer(self._producer, np.uint64, 1).ctypes.data
        self._consumer_address = np.frombuffer(self._consumer, np.uint64, 1).ctypes.data
        atomic = ctypes.CDLL("libatomic.so.1")
        # By index: a name with two underscores would be mangled in a class.
        self._load, self._store = atomic["__atomic_load_8"], atomic["__atomic_store_8"]
        self._load.argtypes, self._load.restype = (ctypes.c_void_p, ctypes.c_int), ctypes.c_uint64
        self._store.argtypes, self._store.restype = (ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int), None
        self._thread_fence = atomic.atomic_thread_fence
        self._thread_fence.argtypes, self._thread_fence.restype = (ctypes.c_int,), None
        return self

    @property
    def producer(self) -> int:
        return int(self._load(self._producer_address, _ACQUIRE))

    def _publish(self, position: int) -> None:
        self._store(self._consumer_address, position, _RELEASE)
        self.position = position

    def _fence(self) -> None:
        self._thread_fence(_ACQUIRE)


def ring_class(machine: str | None = None) -> type[Ring]:
    """The reader for this machine's memory model."""
    if (machine or platform.machine()) in _STRONGLY_ORDERED:
        return Ring
    try:
        ctypes.CDLL("libatomic.so.1")
    except OSError:
        return YieldingRing
    return AtomicRing
