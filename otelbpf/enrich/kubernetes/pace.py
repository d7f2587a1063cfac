"""When to ask the API server again: after waits that grow until it was steady for a while, or as it asks itself."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

from otelbpf.config import Retry
from otelbpf.export.backoff import Backoff

BACKOFF = Retry(initial_interval=1.0, randomization_factor=0.75, multiplier=2.0, max_interval=20.0)
"""The agents of all nodes lose a server that is restarted at the same moment: they must not come back together."""
STEADY_S = 10.0
"""A stream that lasted so long was a good one: after it, waits begin small again."""
SOON = 0.2
"""Of a wait, where nothing went wrong: a watch has had its time, or was away for too long."""


@dataclass(slots=True)
class Pace:
    """Of one watch."""

    opened_s: float = 0.0
    """When its stream was opened; 0: it has none."""
    _backoff: Backoff = field(default_factory=lambda: Backoff(BACKOFF))

    def opened(self) -> None:
        """The server has begun to answer."""
        self.opened_s = time.monotonic()

    def again_s(self, *, asked_s: float | None = None, share: float = 1.0) -> float:
        """The time, on time.monotonic's clock, of the next try; *asked_s* is what the server asks to wait."""
        now_s = time.monotonic()
        if self.opened_s and now_s - self.opened_s > STEADY_S:
            self._backoff.reset()
        self.opened_s = 0.0
        wait_s = self._backoff.wait_s(None) * share
        if asked_s is not None:
            wait_s = asked_s * random.uniform(1, 1.5)  # noqa: S311 - no secret
        return now_s + wait_s
