"""What a probe's ring holds, for tests that read it without the agent."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from otelbpf.kernel.attach import AttachedProbe

PATIENCE_S = 10.0


class Feed:
    """Everything that has come out of the ring of one attached probe so far."""

    def __init__(self, attached: AttachedProbe) -> None:
        assert attached.ring is not None, [str(refusal) for refusal in attached.refused]
        assert attached.record is not None
        self.attached = attached
        self._ring = attached.ring
        self._bytes = b""

    def rows(self) -> NDArray[np.void]:
        while chunk := self._ring.drain(self._ring.producer):
            self._bytes += bytes(chunk)
        return np.frombuffer(self._bytes, self.attached.record)

    def where(self, chosen: Callable[[NDArray[np.void]], NDArray[np.bool_]], count: int) -> NDArray[np.void]:
        """The rows that are *chosen*, as soon as there are *count* of them, or as many as came in ten seconds."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            rows = self.rows()
            found = rows[chosen(rows)]
            if len(found) >= count or time.monotonic() > deadline:
                return found
            time.sleep(0.01)

    def count(self, term: str) -> int:
        return int(self.attached.counts[term])
