"""The thread that runs the line: a tick while something has arrived, and what is due at intervals."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from otelbpf.errors import OtelbpfError, described
from otelbpf.pulse import Pulse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

TICK_S = 0.25
"""One batch of many rows costs far less than many of few: with 0.1 s, connections and thousands of names cost a tenth to a
sixth more CPU time. To measure it again, change it and run `python -m tests.bench tcp dns`."""
TICK_ON_DISK_S = 0.1
"""Where an exporter keeps on disk what waits: it has to be there within 200 ms of the event."""
LEFT_BEHIND_S = 1.0
"""A thread that hangs must not delay the end of the agent that it has caused."""
PAUSED_WITHIN_S = 10.0


def pace_s(*, on_disk: bool) -> float:
    """Time between two ticks; *on_disk*: whether an exporter keeps what waits there."""
    return TICK_ON_DISK_S if on_disk else TICK_S


@dataclass(slots=True)
class Timer:
    """Something that is due again and again; a late tick is not made up for."""

    interval_s: float
    action: Callable[[], None]
    due: float = field(default=0.0)

    def every(self, interval_s: float) -> None:
        """Another interval from now on, in which it may be due sooner."""
        self.due += min(0.0, interval_s - self.interval_s)
        self.interval_s = interval_s

    def run_if_due(self, now: float) -> None:
        if now >= self.due:
            self.due = now + self.interval_s
            self.action()


class Conveyor:
    """Runs the line in a thread of its own: a tick every *tick_s* while something has *arrived*, sooner when that is
    *plenty*; timers when they are due.

    A context manager. An error in the thread is kept in `failure`, and raised to whoever asks `check`: the agent must
    not go on as if it were working.
    """

    def __init__(
        self,
        tick: Callable[[], None],
        timers: Sequence[Timer],
        arrived: threading.Event,
        plenty: threading.Event,
        tick_s: float = TICK_S,
    ) -> None:
        self._tick = tick
        self._timers = timers
        self._arrived = arrived
        self._plenty = plenty
        self._tick_s = tick_s
        self._at_least_s = 0.0
        self._turn = threading.Lock()
        self._stopping = threading.Event()
        self.failure: BaseException | None = None
        self.pulse = Pulse("line")
        self._thread = threading.Thread(target=self._run, name="line", daemon=True)

    def __enter__(self) -> Self:
        now = time.monotonic()
        for timer in self._timers:
            timer.due = now + timer.interval_s
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.stop(None if kind is None else time.monotonic() + LEFT_BEHIND_S)

    def stop(self, deadline: float | None = None) -> bool:
        """Ends the thread after the tick it is in; what has not been taken is left to the caller. May be called twice.

        Waits for that until *deadline* (time.monotonic), if there is one; says whether it has ended.
        """
        self._stopping.set()
        self._arrived.set()
        self._plenty.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return not self._thread.is_alive()

    def pace(self, tick_s: float) -> None:
        """From now on ticks are *tick_s* apart. From any thread."""
        self._tick_s = tick_s

    def slow_down(self, at_least_s: float) -> None:
        """From now on ticks are so far apart at least, which costs less CPU time, and delay. From any thread."""
        self._at_least_s = at_least_s

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While the block runs the line pauses between two ticks, and its parts may be changed. Keep it short.

        Raises OtelbpfError when the tick under way does not end.
        """
        if not self._turn.acquire(timeout=PAUSED_WITHIN_S):
            raise OtelbpfError(f"the line has been busy for {PAUSED_WITHIN_S:.0f} s; try again later")
        try:
            yield
        finally:
            self._turn.release()

    def check(self) -> None:
        """Raises OtelbpfError with what ended the thread, if it did not end by `stop`."""
        if isinstance(self.failure, OtelbpfError):
            raise self.failure
        if self.failure is not None:
            raise OtelbpfError(
                f"the line ended because of a bug in otelbpf: {described(self.failure)}; please report it"
            )

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self.pulse.rest()
                self._arrived.wait(self._until_due())
                if self._arrived.is_set():
                    self._plenty.wait(max(self._tick_s, self._at_least_s))
                self._arrived.clear()
                with self._turn:
                    self.pulse.beat()
                    self._take_turn()
            self.pulse.end()
        except BaseException as error:  # noqa: BLE001 - kept for the main thread, which ends the agent with it
            self.failure = error

    def _take_turn(self) -> None:
        self._tick()
        now = time.monotonic()
        for timer in self._timers:
            timer.run_if_due(now)

    def _until_due(self) -> float:
        now = time.monotonic()
        return max(0.0, min((timer.due - now for timer in self._timers), default=1.0))
