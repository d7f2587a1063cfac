"""What a sender and its keeper share: the lanes of one exporter, the lock, and what each has to tell the other."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from otelbpf.export.lane import NEVER, Lane

if TYPE_CHECKING:
    from collections.abc import Callable, ItemsView, Iterable, Iterator

    from otelbpf.export.waiting import Waiting


class Lanes:
    """Lanes by signal. Whoever calls it holds `changed`, and notifies all when something has."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.changed = threading.Condition(threading.Lock())
        self.write_delay_s = NEVER
        """Age at which what waits is to be written to disk; NEVER without a spool, or while it takes nothing."""
        self.forget: set[int] = set()
        """Numbers of what has its answer and is still on disk."""
        self.closed = ""
        """Why nothing is taken any more."""
        self.hurried = False
        self._of: dict[str, Lane] = {}
        self._turns: deque[Lane] = deque()

    def __getitem__(self, signal: str) -> Lane:
        lane = self._of.get(signal)
        if lane is None:
            lane = self._of[signal] = Lane(signal)
            self._turns.append(lane)
        return lane

    def all(self) -> Iterable[Lane]:
        return self._of.values()

    def in_turn(self) -> Iterator[Lane]:
        """Each lane once, beginning with the one whose turn it is; one that is given has had its turn."""
        for _ in range(len(self._turns)):
            self._turns.rotate(-1)
            yield self._turns[-1]

    def items(self) -> ItemsView[str, Lane]:
        return self._of.items()

    def to_forget(self, entry: Waiting) -> None:
        """*entry* is not needed on disk any more."""
        if entry.row:
            self.forget.add(entry.row)
