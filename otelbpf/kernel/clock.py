"""Kernel time to Unix time."""

from __future__ import annotations

import time

_READS = 5


def boottime_offset_ns() -> int:
    """What must be added to a CLOCK_BOOTTIME time to get Unix time, now.

    The clocks cannot be read at once; of a few tries the one with the least time between its two readings of
    CLOCK_BOOTTIME is taken, so being preempted in between does no harm. Never negative: a clock that was set to before
    1970 plus the uptime makes wrong times, which OTLP can carry, not times before the epoch, which it cannot.
    """
    tries = []
    for _ in range(_READS):
        before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        unix = time.time_ns()
        after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        tries.append((after - before, unix - (before + after) // 2))
    return max(0, min(tries)[1])
