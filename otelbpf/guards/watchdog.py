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


class Watchdog:
    """Looks at the pulses that *pulses* gives, which may come and go. `look` is called by one thread, the rest by any."""

    def __init__(
        self,
        pulses: Callable[[], Iterable[Pulse]],
        limit_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pulses = pulses
        self._limit_s = limit_s
        self._clock = clock
        self._stuck: dict[Pulse, str] = {}
        """Those that have been told, with what was said."""

    def look(self) -> list[StageChange]:
        """What has changed since the last look."""
        now_s = self._clock()
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
        return [StageState(one.stage, self._state(one, now_s), one.overdue_s(now_s)) for one in self._pulses()]

    def troubles(self) -> list[str]:
        """A sentence for each stage that is stuck or has ended, if a restart may cure it; none while all is well."""
        now_s = self._clock()
        return [
            self._stuck.get(pulse) or _sentence(pulse, now_s)
            for pulse in self._pulses()
            if pulse.stage != KUBERNETES and self._state(pulse, now_s) != RUNS
        ]

    def hopeless(self) -> str:
        """What is wrong with a stage that the agent cannot do without, and that will not come back; else nothing."""
        now_s = self._clock()
        given_up = [
            pulse
            for pulse in self._pulses()
            if pulse.stage in VITAL and pulse.overdue_s(now_s) >= HOPELESS * self._limit_s
        ]
        return _sentence(given_up[0], now_s) if given_up else ""

    def _state(self, pulse: Pulse, now_s: float) -> str:
        if pulse.has_ended:
            return ENDED
        return STUCK if pulse.overdue_s(now_s) >= self._limit_s else RUNS

    def _told(self, pulse: Pulse, state: str, now_s: float) -> StageChange:
        sentence = self._stuck[pulse] = _sentence(pulse, now_s)
        return StageChange(pulse.stage, state != RUNS, sentence)


def _sentence(pulse: Pulse, now_s: float) -> str:
    if pulse.has_ended or pulse.thread is None:
        return f"{pulse.stage} is no longer running"
    where = place(pulse.thread)
    return f"{pulse.stage} has been stuck for {pulse.overdue_s(now_s):.0f} s{f', {where}' if where else ''}"


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
