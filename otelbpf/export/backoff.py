"""How long to wait before the next try."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otelbpf.config import Retry


LEAST_ASKED_S = 1.0
"""A peer that asks for less, or for a time that its clock has and ours has left behind, must not be asked without end:
our own waits count up to here."""


@dataclass(slots=True)
class Backoff:
    """Exponential waits with jitter, in the collector's manner, until something went well."""

    retry: Retry
    chance: random.Random = field(default_factory=random.Random)
    interval_s: float = 0.0

    def reset(self) -> None:
        self.interval_s = 0.0

    def wait_s(self, asked_s: float | None) -> float:
        """The next wait; *asked_s* is what the peer asked for, and wins, unless that would be hardly any."""
        retry = self.retry
        grown = self.interval_s * retry.multiplier if self.interval_s else retry.initial_interval
        self.interval_s = min(grown, retry.max_interval)
        own_s = self.interval_s * (1 + retry.randomization_factor * self.chance.uniform(-1, 1))
        return own_s if asked_s is None else max(asked_s, min(own_s, LEAST_ASKED_S))

    def allows(self, wait_s: float, tried_for_s: float) -> bool:
        """Whether a request that was first tried *tried_for_s* ago may wait *wait_s* more."""
        retry = self.retry
        return retry.enabled and not (retry.max_elapsed_time and tried_for_s + wait_s > retry.max_elapsed_time)
