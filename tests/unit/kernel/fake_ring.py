"""A ring in a memory file: the producer's half of a BPF ring buffer, in Python."""

from __future__ import annotations

import os
from mmap import PAGESIZE, mmap

BUSY, DISCARDED = 1 << 31, 1 << 30


class FakeRing:
    """What the kernel does with a ring map, for one record size. The data is written twice, as it is mapped twice."""

    def __init__(self, ring_bytes: int, record_bytes: int) -> None:
        self.ring_bytes, self.record_bytes = ring_bytes, record_bytes
        self.stride = 8 + (record_bytes + 7 & ~7)
        self.fd = os.memfd_create("ring")
        os.ftruncate(self.fd, 2 * PAGESIZE + 2 * ring_bytes)
        self._memory = mmap(self.fd, 0)
        self._positions = memoryview(self._memory).cast("Q")

    @property
    def consumer(self) -> int:
        return self._positions[0]

    @consumer.setter
    def consumer(self, position: int) -> None:
        self._positions[0] = position

    @property
    def producer(self) -> int:
        return self._positions[PAGESIZE // 8]

    @producer.setter
    def producer(self, position: int) -> None:
        self._positions[PAGESIZE // 8] = position

    def reserve(self, payload: bytes) -> int | None:
        """Where the record is, busy; None when the ring is full."""
        position = self.producer
        if position + self.stride - self.consumer > self.ring_bytes:
            return None
        self._header(position, self.record_bytes | BUSY)
        self._write(position + 8, payload.ljust(self.stride - 8, b"\0"))
        self.producer = position + self.stride
        return position

    def commit(self, position: int, *, discard: bool = False) -> None:
        self._header(position, self.record_bytes | (DISCARDED if discard else 0))

    def put(self, payload: bytes) -> bool:
        position = self.reserve(payload)
        if position is None:
            return False
        self.commit(position)
        return True

    def _header(self, position: int, length: int) -> None:
        self._write(position, length.to_bytes(4, "little"))

    def _write(self, position: int, content: bytes) -> None:
        for index, value in enumerate(content):
            offset = (position + index) % self.ring_bytes
            for copy in (0, self.ring_bytes):
                self._memory[2 * PAGESIZE + copy + offset] = value
