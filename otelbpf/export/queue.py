"""What waits for one exporter: its lanes, one a signal, under one lock.

One lock holds memory and disk, so that the account balances at any moment. Nobody who holds it waits for anything, the
disk included, so the producer never does. Senders' threads take, and say what became of it; what the keeper does with
the same lanes is in `backlog`.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otelbpf.export.answer import MEMORY_LIMIT, QUEUE_FULL
from otelbpf.export.backlog import Backlog
from otelbpf.export.lane import NEVER, Room
from otelbpf.export.lanes import Lanes
from otelbpf.export.waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from otelbpf.export.account import SignalLedger
    from otelbpf.export.request import Request
    from otelbpf.export.waiting import Family


@dataclass(frozen=True, slots=True)
class QueueSize:
    """How full the queue of one signal is."""

    size_bytes: int
    capacity_bytes: int
    in_flight: int
    """Items of requests that are being sent."""
    oldest_ns: int | None = None
    """Unix time of the oldest item in memory; None when there is none."""


class Queue:
    """Requests by signal, *max_bytes* of each in memory; beyond that the oldest that is neither being sent nor on disk
    is dropped and counted."""

    def __init__(self, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_bytes = max_bytes
        self._rooms: dict[str, Room] = {}
        self._lanes = Lanes(clock)
        self.backlog = Backlog(self._lanes)

    def put(self, request: Request) -> int:
        """Takes *request*; gives the number of items that were dropped for it. Never waits."""
        lanes = self._lanes
        with lanes.changed:
            lane = lanes[request.signal]
            lane.put(Waiting(request, len(request.body), since=lanes.clock()))
            dropped = lane.drop_all(lanes.closed) if lanes.closed else lane.make_room(self.room(request.signal))
            lanes.changed.notify_all()
            return dropped

    def room(self, signal: str) -> Room:
        """What of *signal* may wait in memory now."""
        return self._rooms.get(signal) or Room(self.max_bytes, QUEUE_FULL)

    def shrink(self, signals: Collection[str], max_bytes: int) -> dict[str, int]:
        """From now on no more than *max_bytes* of each of *signals* waits in memory; more than it was made with is not
        given. What is beyond goes at once, the oldest first, for the memory limit; gives signal → items dropped."""
        with self._lanes.changed:
            for signal in signals:
                self._rooms[signal] = Room(min(max_bytes, self.max_bytes), MEMORY_LIMIT)
                if max_bytes >= self.max_bytes:
                    del self._rooms[signal]
            dropped = {
                signal: lane.make_room(self.room(signal)) for signal, lane in self._lanes.items() if signal in signals
            }
            self._lanes.changed.notify_all()
            return {signal: items for signal, items in dropped.items() if items}

    def wait_for_room(self, request: Request) -> None:
        """Returns when *request* can be put without another being dropped for it, or the queue is closed."""
        lanes = self._lanes
        with lanes.changed:
            account = lanes[request.signal].account
            while (
                account.size_bytes
                and account.size_bytes + len(request.body) > self.room(request.signal).max_bytes
                and not lanes.closed
            ):
                lanes.changed.wait()

    def take(self, timeout_s: float) -> Waiting | None:
        """The next request that is due, signals in turn; None when there is none in time, or the queue was closed.

        It is in flight until it is given to `settle`, `split`, `steps_aside` or `again`. Without a body it has to be
        loaded first (`Backlog.loaded`).
        """
        lanes = self._lanes
        until = lanes.clock() + timeout_s
        with lanes.changed:
            while not lanes.closed:
                now = lanes.clock()
                if (entry := self._next_due(now)) is not None:
                    return entry
                if until <= now:
                    return None
                wait_s = min(until, self._earliest(now)) - now
                lanes.changed.wait(min(max(wait_s, 0.001), threading.TIMEOUT_MAX))
            return None

    def settle(self, entry: Waiting, *, rejected: int = 0, dropped: str = "") -> bool:
        """The request has its answer: dropped for that reason, else accepted but for *rejected* items.

        Not so, and False, when the queue was closed meanwhile: then it is counted already.
        """
        with self._lanes.changed:
            lane = self._lanes[entry.request.signal]
            if not lane.landed(entry):
                return False
            accepted = 0 if dropped else entry.request.items - rejected
            lane.account.end(entry, accepted=accepted, rejected=rejected, dropped=dropped)
            self._lanes.to_forget(entry)
            self._lanes.changed.notify_all()
            return True

    def split(self, entry: Waiting, parts: Sequence[Request], family: Family | None = None) -> None:
        """*parts*, which hold the items of *entry*, go on in its place, as members of *family*."""
        with self._lanes.changed:
            lane = self._lanes[entry.request.signal]
            if lane.landed(entry):
                lane.replace(entry, entry.split(parts, family))
                self._lanes.to_forget(entry)
                self._lanes.changed.notify_all()

    def steps_aside(self, entry: Waiting, after_s: float) -> None:
        """Lets the next request of its signal go before *entry*; the signal waits so long."""
        with self._lanes.changed:
            lane = self._lanes[entry.request.signal]
            if lane.landed(entry):
                following = lane.next(self._lanes.clock())
                lane.first.extendleft(one for one in (entry, following) if one is not None)
                lane.not_before = self._lanes.clock() + after_s
                self._lanes.changed.notify_all()

    def again(self, entry: Waiting, after_s: float) -> int:
        """Puts *entry* back to the front; its signal waits so long. Gives what overflowed meanwhile, as `put`."""
        with self._lanes.changed:
            lane = self._lanes[entry.request.signal]
            if not lane.landed(entry):
                return 0
            entry.failures += 1
            lane.first.appendleft(entry)
            lane.not_before = max(lane.not_before, self._lanes.clock() + after_s)
            dropped = lane.make_room(self.room(entry.request.signal))
            self._lanes.changed.notify_all()
            return dropped

    def others_pass(self, entry: Waiting) -> bool:
        """Whether others of its signal were accepted since *entry* was first taken."""
        with self._lanes.changed:
            return self._lanes[entry.request.signal].account.accepted > entry.accepted_before

    def backs_off(self, signal: str) -> bool:
        """Whether *signal* waits already, as another request of it has failed."""
        with self._lanes.changed:
            return self._lanes[signal].not_before > self._lanes.clock()

    def hurry(self) -> None:
        """Forgets the waits before a next try, and before writing to disk: whatever is queued is due."""
        lanes = self._lanes
        with lanes.changed:
            for lane in lanes.all():
                lane.not_before = 0.0
            lanes.write_delay_s = 0.0 if lanes.write_delay_s != NEVER else NEVER
            lanes.hurried = True
            lanes.changed.notify_all()

    def follow(self, max_bytes: int) -> None:
        """Another bound from now on, and no wait before a next try: the peer may be another, too."""
        with self._lanes.changed:
            self.max_bytes = max_bytes
            for lane in self._lanes.all():
                lane.not_before = 0.0
            self._lanes.changed.notify_all()

    def wait_until_empty(self, deadline: float) -> bool:
        """Waits for every request to be settled, until *deadline* by the queue's clock; says whether they are.

        Signals that `again` was told never to try any more are not waited for.
        """
        lanes = self._lanes
        with lanes.changed:
            while not lanes.closed and not all(lane.rests for lane in lanes.all()):
                remaining_s = deadline - lanes.clock()
                if remaining_s <= 0:
                    return False
                lanes.changed.wait(min(remaining_s, threading.TIMEOUT_MAX))
            return all(lane.idle for lane in lanes.all())

    def close(self, reason: str) -> dict[str, int]:
        """Drops what is left and not on disk, in flight or not, and all that still comes; gives signal → items."""
        lanes = self._lanes
        with lanes.changed:
            lanes.closed = lanes.closed or reason
            dropped = {signal: lane.drop_all(lanes.closed) for signal, lane in lanes.items()}
            lanes.changed.notify_all()
            return {signal: items for signal, items in dropped.items() if items}

    def ledger(self) -> dict[str, SignalLedger]:
        """Signal → its account, all of one moment."""
        with self._lanes.changed:
            return {signal: lane.account.ledger() for signal, lane in self._lanes.items()}

    def sizes(self) -> dict[str, QueueSize]:
        """Signal → how full its queue is."""
        with self._lanes.changed:
            return {
                signal: QueueSize(
                    lane.account.size_bytes,
                    self.room(signal).max_bytes,
                    sum(entry.request.items for entry in lane.in_flight),
                    min((entry.request.oldest_ns for entry in lane.in_memory()), default=None),
                )
                for signal, lane in self._lanes.items()
            }

    def _next_due(self, now: float) -> Waiting | None:
        for lane in self._lanes.in_turn():
            if lane.not_before <= now and (entry := lane.next(now)) is not None:
                lane.take(entry, now)
                return entry
        return None

    def _earliest(self, now: float) -> float:
        return min((lane.due(now) for lane in self._lanes.all()), default=NEVER)
