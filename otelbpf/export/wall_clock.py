"""Unix time that may be set while the agent runs: how far it was set forward lately."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

STEP_NS = 10**9
"""A smaller step between two looks is the clock being slewed."""


def steady_ns() -> int:
    """A clock that nobody sets, and that goes on while the machine sleeps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class WallClock:
    """Knows the steps forward since it was made, found by looking now and then. For one thread."""

    def __init__(self, wall: Callable[[], int] = time.time_ns, steady: Callable[[], int] = steady_ns) -> None:
        self._wall = wall
        self._steady = steady
        self._ahead_ns = wall() - steady()
        self._steps: list[tuple[int, int]] = []
        """When, by the steady clock, and by how much."""

    def before(self, age_s: float) -> int:
        """Unix time of what is older than *age_s* for sure.

        What was made before a step forward bears a time that is too early by as much, so for *age_s* after the step
        that is added; later it is that old by any clock.
        """
        wall_ns, steady_ns_ = self._wall(), self._steady()
        step_ns = wall_ns - steady_ns_ - self._ahead_ns
        self._ahead_ns += step_ns
        if step_ns > STEP_NS:
            self._steps.append((steady_ns_, step_ns))
        age_ns = int(age_s * 1e9)
        self._steps = [(at_ns, step) for at_ns, step in self._steps if steady_ns_ - at_ns <= age_ns]
        return wall_ns - age_ns - sum(step for _, step in self._steps)
