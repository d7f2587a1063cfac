"""What waits for one exporter, and the account of every item that was given to it.

One lock holds both, so that the ledger balances at any moment: made = accepted + rejected + dropped + queued, where a
request that is being sent is queued. Nobody who holds the lock waits for anything, so the producer never does.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from otelbpf.export.answer import QUEUE_FULL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from otelbpf.export.request import Request


@dataclass(frozen=True, slots=True)
class SignalLedger:
    """The items of one signal at one exporter; each is in exactly one term."""

    made: int
    accepted: int
    rejected: int
    dropped: Mapping[str, int]
    """Reason → items."""
    queued: int

    @property
    def balanced(self) -> bool:
        return self.made == self.accepted + self.rejected + sum(self.dropped.values()) + self.queued


@dataclass(frozen=True, slots=True)
class QueueSize:
    """How full the queue of one signal is."""

    size_bytes: int
    capacity_bytes: int
    in_flight: int
    """Items of requests that are being sent."""


@dataclass(eq=False, slots=True)
class Waiting:
    """A request in the queue; equal to no other."""

    request: Request
    first_try: float | None = None
    """When it was first taken, by the queue's clock."""


@dataclass(slots=True)
class _Lane:
    """One signal's part of the queue."""

    waiting: deque[Waiting] = field(default_factory=deque)
    in_flight: list[Waiting] = field(default_factory=list)
    size_bytes: int = 0
    not_before: float = 0.0
    made: int = 0
    accepted: int = 0
    rejected: int = 0
    queued: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def settle(self, entry: Waiting, *, accepted: int = 0, rejected: int = 0, dropped: str = "") -> None:
        """Moves the items of *entry*, already taken out, from *queued* to where they ended."""
        items = entry.request.items
        self.size_bytes -= len(entry.request.body)
        self.queued -= items
        self.accepted += accepted
        self.rejected += rejected
        if dropped:
            self.dropped[dropped] += items

    def ledger(self) -> SignalLedger:
        return SignalLedger(self.made, self.accepted, self.rejected, dict(self.dropped), self.queued)


class Queue:
    """Requests by signal, *max_bytes* of each; beyond that the oldest that is not being sent is dropped and counted."""

    def __init__(self, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_bytes = max_bytes
        self.clock = clock
        self._lanes: dict[str, _Lane] = {}
        self._turn: deque[str] = deque()
        self._changed = threading.Condition(threading.Lock())
        self._closed = ""

    def put(self, request: Request) -> int:
        """Takes *request*; gives the number of items that were dropped for it. Never waits."""
        with self._changed:
            lane = self._lanes.get(request.signal)
            if lane is None:
                lane = self._lanes[request.signal] = _Lane()
                self._turn.append(request.signal)
            lane.waiting.append(Waiting(request))
            lane.made += request.items
            lane.queued += request.items
            lane.size_bytes += len(request.body)
            dropped = self._drop_all(lane, self._closed) if self._closed else self._make_room(lane)
            self._changed.notify_all()
            return dropped

    def wait_for_room(self, request: Request) -> None:
        """Returns when *request* can be put without another being dropped for it, or the queue is closed."""
        with self._changed:
            lane = self._lanes.get(request.signal)
            while (
                lane and lane.size_bytes and lane.size_bytes + len(request.body) > self.max_bytes and not self._closed
            ):
                self._changed.wait()

    def take(self, timeout_s: float) -> Waiting | None:
        """The next request that is due, signals in turn; None when there is none in time, or the queue was closed.

        It is in flight until it is given to `settle` or `again`.
        """
        until = self.clock() + timeout_s
        with self._changed:
            while True:
                now = self.clock()
                if (entry := self._next_due(now)) is not None:
                    if entry.first_try is None:
                        entry.first_try = now
                    return entry
                wait_s = min(until, self._earliest()) - now
                if self._closed or until <= now:
                    return None
                self._changed.wait(min(max(wait_s, 0.001), threading.TIMEOUT_MAX))

    def settle(self, entry: Waiting, *, rejected: int = 0, dropped: str = "") -> None:
        """The request has its answer: dropped for that reason, else accepted but for *rejected* items."""
        with self._changed:
            lane = self._lanes[entry.request.signal]
            if entry not in lane.in_flight:
                return  # the queue was closed meanwhile; it is counted already
            lane.in_flight.remove(entry)
            accepted = 0 if dropped else entry.request.items - rejected
            lane.settle(entry, accepted=accepted, rejected=rejected, dropped=dropped)
            self._changed.notify_all()

    def again(self, entry: Waiting, after_s: float) -> int:
        """Puts *entry* back to the front; its signal waits so long. Gives what overflowed meanwhile, as `put`."""
        with self._changed:
            lane = self._lanes[entry.request.signal]
            if entry not in lane.in_flight:
                return 0
            lane.in_flight.remove(entry)
            lane.waiting.appendleft(entry)
            lane.not_before = self.clock() + after_s
            dropped = self._make_room(lane)
            self._changed.notify_all()
            return dropped

    def hurry(self) -> None:
        """Forgets the waits before a next try: whatever is queued is due."""
        with self._changed:
            for lane in self._lanes.values():
                lane.not_before = 0.0
            self._changed.notify_all()

    def wait_until_empty(self, deadline: float) -> bool:
        """Waits for every request to be settled, until *deadline* by the queue's clock; says whether they are."""
        with self._changed:
            while any(lane.waiting or lane.in_flight for lane in self._lanes.values()) and not self._closed:
                remaining_s = deadline - self.clock()
                if remaining_s <= 0:
                    return False
                self._changed.wait(min(remaining_s, threading.TIMEOUT_MAX))
            return True

    def close(self, reason: str) -> dict[str, int]:
        """Drops what is left, in flight or not, and all that still comes, for *reason*; gives signal → items."""
        with self._changed:
            self._closed = self._closed or reason
            dropped = {signal: self._drop_all(lane, self._closed) for signal, lane in self._lanes.items()}
            self._changed.notify_all()
            return {signal: items for signal, items in dropped.items() if items}

    def ledger(self) -> dict[str, SignalLedger]:
        """Signal → its account, all of one moment."""
        with self._changed:
            return {signal: lane.ledger() for signal, lane in self._lanes.items()}

    def sizes(self) -> dict[str, QueueSize]:
        """Signal → how full its queue is."""
        with self._changed:
            return {
                signal: QueueSize(lane.size_bytes, self.max_bytes, sum(entry.request.items for entry in lane.in_flight))
                for signal, lane in self._lanes.items()
            }

    def _next_due(self, now: float) -> Waiting | None:
        for _ in range(len(self._turn)):
            signal = self._turn[0]
            self._turn.rotate(-1)
            lane = self._lanes[signal]
            if lane.waiting and lane.not_before <= now:
                entry = lane.waiting.popleft()
                lane.in_flight.append(entry)
                return entry
        return None

    def _earliest(self) -> float:
        return min((lane.not_before for lane in self._lanes.values() if lane.waiting), default=float("inf"))

    def _make_room(self, lane: _Lane) -> int:
        dropped = 0
        while lane.size_bytes > self.max_bytes and lane.waiting:
            dropped += self._drop(lane, lane.waiting.popleft(), QUEUE_FULL)
        return dropped

    def _drop_all(self, lane: _Lane, reason: str) -> int:
        left = [*lane.in_flight, *lane.waiting]
        lane.in_flight.clear()
        lane.waiting.clear()
        return sum(self._drop(lane, entry, reason) for entry in left)

    @staticmethod
    def _drop(lane: _Lane, entry: Waiting, reason: str) -> int:
        lane.settle(entry, dropped=reason)
        return entry.request.items
