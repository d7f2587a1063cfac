"""How much of the CPU budget is used: the `cpu_limit` setting becomes a pressure, 1.0 at the budget.

`auto` stays below the quota of the cgroup: an agent that reaches it is stopped by the kernel for the rest of each tenth of
a second and loses events meanwhile, whereas records that are left out make no number wrong.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from otelbpf.guards.cgroup import cpu_quota

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelbpf.config import Config

OF_QUOTA = 0.9
WINDOW_S = 3.0
"""A burst of one export of all metrics is no reason to change anything."""
STARTING_S = 10.0
"""Starting is expensive, and happens once."""


def budget(config: Config) -> float | None:
    """The cores that `cpu_limit` allows; None: there is no limit."""
    if config.cpu_limit == "off":
        return None
    if config.cpu_limit == "auto":
        quota = cpu_quota()
        return None if quota is None else quota * OF_QUOTA
    return float(config.cpu_limit)


class CpuPressure:
    """The share of *cores* that the process has used over the last seconds, 0 before they have passed; each call looks
    anew."""

    def __init__(
        self,
        cores: float,
        used_s: Callable[[], float] = time.process_time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cores = cores
        self._used_s = used_s
        self._clock = clock
        self._seen: deque[tuple[float, float]] = deque()
        self._from_s = clock() + STARTING_S

    def __call__(self) -> float:
        now_s, used_s = self._clock(), self._used_s()
        if now_s < self._from_s:
            return 0.0
        self._seen.append((now_s, used_s))
        while len(self._seen) > 2 and self._seen[1][0] <= now_s - WINDOW_S:
            self._seen.popleft()
        since_s, before_s = self._seen[0]
        return (used_s - before_s) / (now_s - since_s) / self._cores if now_s - since_s >= WINDOW_S else 0.0
