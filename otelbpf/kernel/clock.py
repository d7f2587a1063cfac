"""Kernel time to Unix time."""

from __future__ import annotations

import functools
import time
from pathlib import Path

_READS = 5
_NAMESPACE = Path("/proc/self/timens_offsets")


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
    return max(0, min(tries)[1] + _ahead_ns())


def boottime_ns() -> int:
    """CLOCK_BOOTTIME as BPF programs read it."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - _ahead_ns()


@functools.cache
def _ahead_ns() -> int:
    """What the time namespace of this process adds to CLOCK_BOOTTIME; BPF programs read the clock without it."""
    try:
        lines = _NAMESPACE.read_text().splitlines()
    except OSError:  # a kernel without time namespaces
        return 0
    offsets = {words[0]: int(words[1]) * 10**9 + int(words[2]) for line in lines if len(words := line.split()) == 3}
    return offsets.get("boottime", 0)
