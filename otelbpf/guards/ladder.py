"""Steps down while there is too much pressure, and up again when there is room: when, not what.

Between *over* and *under* nothing changes. A step up that proved too early makes the next one wait twice as long, so
that an agent at its limit settles one step down and does not swing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

LONGEST_QUIET_S = 300.0


@dataclass(slots=True)
class Ladder:
    """A state machine without a clock: `follow` is told the pressure (1.0 is the limit) and the time.

    The first step down is taken when the pressure is at *over*, the next ones when it still is *patience_s* later, or at
    once when it is at *urgent*. It must be at *under* or below for *quiet_s* before a step up.
    """

    steps: int
    over: float
    under: float
    patience_s: float
    quiet_s: float
    urgent: float = float("inf")
    level: int = 0
    """Steps down that hold now."""
    downs: int = 0
    ups: int = 0
    """Steps taken so far."""
    _under: bool = field(default=False, init=False)
    _since_s: float = field(default=0.0, init=False)
    _wait_s: float = field(default=0.0, init=False)
    _up_s: float = field(default=float("-inf"), init=False)
    _down_s: float = field(default=float("-inf"), init=False)

    def __post_init__(self) -> None:
        self._wait_s = self.quiet_s

    def follow(self, pressure: float, now_s: float) -> int:
        """The level that holds from now on; it differs from the last one by at most 1."""
        if (pressure <= self.under) != self._under:
            self._under, self._since_s = not self._under, now_s
        if pressure >= self.over:
            patient = self.patience_s if pressure < self.urgent else 0.0
            if self.level < self.steps and now_s - self._down_s >= patient:
                self._down(now_s)
        elif self._under and self.level and now_s - self._since_s >= self._wait_s:
            self._up(now_s)
        return self.level

    def _down(self, now_s: float) -> None:
        too_early = now_s - self._up_s <= self._wait_s
        self._wait_s = min(2 * self._wait_s, LONGEST_QUIET_S) if too_early else self.quiet_s
        self._down_s = now_s
        self.level += 1
        self.downs += 1

    def _up(self, now_s: float) -> None:
        self._since_s = self._up_s = now_s
        self.level -= 1
        self.ups += 1
