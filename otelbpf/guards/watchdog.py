"""Notices a stage whose thread has ended, or is at the same piece of work for too long, and says where it hangs."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable
    from types import FrameType

    from otelbpf.pulse import Pulse

RUNS, STUCK, ENDED = "runs", "stuck", "ended"
VITAL = ("drain", "line")
"""Without these nothing is seen any more. A restart is the only cure, whoever does it."""
KUBERNETES = "kubernetes"
"""Who hangs there waits for the API server: events go on with the names that are known, which a restart would lose."""
HOPELESS = 2
"""Times the limit, after which a vital stage is given up."""
AWAY, LEAST_AWAY_S = 0.5, 2.0
"""Share of the limit: who has not looked for so long was stopped, and all the others with him."""
OURS = Path(__file__).parents[1]


class StageState(NamedTuple):
    """How one stage fares."""

    stage: str
    state: str
    overdue_s: float
    """How long it takes more than it may for its piece of work."""


class StageChange(NamedTuple):
    """A stage that is stuck from now on, or moves again."""

    stage: str
    stuck: bool
    sentence: str


class _Looking:
    """Since when somebody who looks every now and then has done so without a break.

    A process that was stopped (a container that is paused) has not hung: what its threads were at counts from when it
    goes on.
    """

    def __init__(self, away_s: float) -> None:
        self._away_s = away_s
        self._last_s = float("-inf")
        self.since_s = float("-inf")

    def at(self, now_s: float) -> float:
        """Looks *now_s*; gives since when."""
        if now_s - self._last_s >= self._away_s:
            self.since_s = now_s
        self._last_s = now_s
        return self.since_s


class Watchdog:
    """Looks at the pulses that *pulses* gives, which may come and go. `look` is called by one thread, `hopeless` by
    one, both every now and then; the rest by any."""

    def __init__(
        self,
        pulses: Callable[[], Iterable[Pulse]],
        limit_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pulses = pulses
        self._limit_s = limit_s
        self._clock = clock
        away_s = max(LEAST_AWAY_S, AWAY * limit_s)
        self._looking, self._asking = _Looking(away_s), _Looking(away_s)
        self._stuck: dict[Pulse, str] = {}
        """Those that have been told, with what was said."""

    def look(self) -> list[StageChange]:
        """What has changed since the last look."""
        now_s = self._clock()
        self._looking.at(now_s)
        found = [(pulse, self._state(pulse, now_s)) for pulse in self._pulses()]
        changes = [
            self._told(pulse, state, now_s) for pulse, state in found if state != RUNS and pulse not in self._stuck
        ]
        moving = [pulse for pulse in self._stuck if (pulse, RUNS) in found]
        self._stuck = {pulse: said for pulse, said in self._stuck.items() if (pulse, RUNS) not in found}
        return changes + [StageChange(pulse.stage, False, f"{pulse.stage} moves again") for pulse in moving]

    def states(self) -> list[StageState]:
        """How each stage fares, now."""
        now_s = self._clock()
        return [StageState(one.stage, self._state(one, now_s), self._overdue_s(one, now_s)) for one in self._pulses()]

    def troubles(self) -> list[str]:
        """A sentence for each stage that is stuck or has ended, if a restart may cure it; none while all is well."""
        now_s = self._clock()
        return [
            self._stuck.get(pulse) or self._sentence(pulse, now_s)
            for pulse in self._pulses()
            if pulse.stage != KUBERNETES and self._state(pulse, now_s) != RUNS
        ]

    def hopeless(self) -> str:
        """What is wrong with a stage that the agent cannot do without, and that will not come back; else nothing."""
        now_s = self._clock()
        since_s = self._asking.at(now_s)
        given_up = [
            pulse
            for pulse in self._pulses()
            if pulse.stage in VITAL and pulse.overdue_s(now_s, since_s) >= HOPELESS * self._limit_s
        ]
        return self._sentence(given_up[0], now_s) if given_up else ""

    def _state(self, pulse: Pulse, now_s: float) -> str:
        if pulse.has_ended:
            return ENDED
        return STUCK if self._overdue_s(pulse, now_s) >= self._limit_s else RUNS

    def _overdue_s(self, pulse: Pulse, now_s: float) -> float:
        return pulse.overdue_s(now_s, self._looking.since_s)

    def _told(self, pulse: Pulse, state: str, now_s: float) -> StageChange:
        sentence = self._stuck[pulse] = self._sentence(pulse, now_s)
        return StageChange(pulse.stage, state != RUNS, sentence)

    def _sentence(self, pulse: Pulse, now_s: float) -> str:
        if pulse.has_ended or pulse.thread is None:
            return f"{pulse.stage} is no longer running"
        where = place(pulse.thread)
        return f"{pulse.stage} has been stuck for {self._overdue_s(pulse, now_s):.0f} s{f', {where}' if where else ''}"


def place(thread: threading.Thread) -> str:
    """Where *thread* is: the innermost of our own lines, which says more than the library's that it waits in."""
    frame = sys._current_frames().get(thread.ident or 0)  # noqa: SLF001 - documented, in spite of its name
    innermost = frame
    while frame is not None and not _is_ours(frame):
        frame = frame.f_back
    frame = frame or innermost
    if frame is None:
        return ""
    path = Path(frame.f_code.co_filename)
    shown = path.relative_to(OURS.parent) if _is_ours(frame) else path.name
    return f"in {frame.f_code.co_name} ({shown}:{frame.f_lineno})"


def _is_ours(frame: FrameType) -> bool:
    return OURS in Path(frame.f_code.co_filename).parents
