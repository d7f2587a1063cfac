"""What a thread says of itself, so that another can see that it is stuck: since when it is at the same piece of work."""

from __future__ import annotations

import threading
import time


class Pulse:
    """The pulse of one stage. Its thread calls `beat` and `rest`, which cost a store or two; others read.

    What is read may be some microseconds old, which does not matter to somebody who looks for minutes.
    """

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.thread: threading.Thread | None = None
        """Who works here; None before the first beat and after the end."""
        self._since_s = float("inf")
        self._allowed_s = 0.0

    def beat(self, allowed_s: float = 0.0) -> None:
        """A piece of work begins, which may well take *allowed_s*."""
        if self.thread is None:
            self.thread = threading.current_thread()
        self._allowed_s = allowed_s
        self._since_s = time.monotonic()

    def rest(self) -> None:
        """There is nothing to do, for as long as it takes."""
        self._since_s = float("inf")

    def end(self) -> None:
        """The thread ends as it should."""
        self.rest()
        self.thread = None

    def overdue_s(self, now_s: float, not_before_s: float = float("-inf")) -> float:
        """How long the piece of work takes more than it may; 0 while it does not, or there is none. What was before
        *not_before_s* does not count."""
        return max(0.0, now_s - max(self._since_s, not_before_s) - self._allowed_s)

    @property
    def has_ended(self) -> bool:
        """Whether the thread that worked here is gone, and did not say so."""
        return self.thread is not None and not self.thread.is_alive()
