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

    *patience_s*: so long the pressure must be at *over* or above before a step down, also between two of them.
    *quiet_s*: so long it must be at *under* or below before a step up.
    """

    steps: int
    over: float
    under: float
    patience_s: float
    quiet_s: float
    level: int = 0
    """Steps down that hold now."""
    downs: int = 0
    ups: int = 0
    """Steps taken so far."""
    _side: int = field(default=0, init=False)
    _since_s: float = field(default=0.0, init=False)
    _wait_s: float = field(default=0.0, init=False)
    _up_s: float = field(default=float("-inf"), init=False)

    def __post_init__(self) -> None:
        self._wait_s = self.quiet_s

    def follow(self, pressure: float, now_s: float) -> int:
        """The level that holds from now on; it differs from the last one by at most 1."""
        side = 1 if pressure >= self.over else -1 if pressure <= self.under else 0
        if side != self._side:
            self._side, self._since_s = side, now_s
        held_s = now_s - self._since_s
        if side > 0 and self.level < self.steps and held_s >= self.patience_s:
            self._down(now_s)
        elif side < 0 and self.level and held_s >= self._wait_s:
            self._up(now_s)
        return self.level

    def _down(self, now_s: float) -> None:
        too_early = now_s - self._up_s <= self._wait_s
        self._wait_s = min(2 * self._wait_s, LONGEST_QUIET_S) if too_early else self.quiet_s
        self._since_s = now_s
        self.level += 1
        self.downs += 1

    def _up(self, now_s: float) -> None:
        self._since_s = self._up_s = now_s
        self.level -= 1
        self.ups += 1
