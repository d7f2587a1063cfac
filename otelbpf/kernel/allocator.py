"""The C library's allocator, told to give back what is not used.

Batches and requests are large and short-lived. glibc answers that by raising its thresholds until such blocks come from
the heap, where one small block above them keeps megabytes for ever, in each of the arenas that threads get of their own.
But a block that is mapped costs a page fault for each 4 KiB, every time: mapped from 256 KiB on, connections with log
records cost half as much CPU time again as from 1 MiB on; from 4 MiB on they leave a quarter more memory. To measure
it again, change the size and run `python -m tests.bench tcp memory`.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_MAPPED_FROM_BYTES = 1 << 20
_TRIMMED_FROM_BYTES = 4 << 20
_ARENAS = 2


def give_memory_back() -> None:
    """Large blocks are mapped, and unmapped when freed. Does nothing with a C library that has no mallopt(3)."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in (
            (_M_ARENA_MAX, _ARENAS),
            (_M_MMAP_THRESHOLD, _MAPPED_FROM_BYTES),
            (_M_TRIM_THRESHOLD, _TRIMMED_FROM_BYTES),
        ):
            mallopt(option, value)


class Trimming:
    """Called now and then it returns free pages in the middle of the heap, which no threshold does: after a burst a
    quarter of the anonymous memory. Takes a millisecond or two. Does nothing with a C library without malloc_trim(3)."""

    def __init__(self) -> None:
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)

    def __call__(self) -> None:
        if self._trim is not None:
            self._trim(0)
