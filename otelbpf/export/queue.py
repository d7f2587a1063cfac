"""What waits for one exporter, in memory and on disk, and the account of every item that was given to it.

One lock holds both, so that the ledger balances at any moment: made + recovered = accepted + rejected + dropped +
queued + spooled, where a request that is being sent is still queued, or spooled when it is on disk too. Nobody who
holds the lock waits for anything, the disk included, so the producer never does.

Without a spool a lane is a deque. With one, what was written may leave memory and waits as *backlog*, of which only
the next few rows are known here. Of logs and spans the latest go first and the backlog in between: nobody who looks
at a node wants to wait for an hour's backlog. Metrics keep their order, as stores refuse points that are older than
the last one of their series.
"""

from __future__ import annotations

import threading
import time
from bisect import insort
from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from otelbpf.export.answer import QUEUE_FULL
from otelbpf.export.request import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from otelbpf.export.spool import Kept, Row

RESIDENT_BYTES = 2**20
"""What may wait in memory although it is on disk: enough for a peer that is slow, nothing next to the agent."""
SHELF_ROWS = 256
"""Rows of the backlog that are looked up at a time."""
BACKLOG_TURN = 4
"""One request in so many comes from the backlog even if new ones never cease."""
IN_ORDER = {"metrics"}
NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class SignalLedger:
    """The items of one signal at one exporter; each is in exactly one term."""

    made: int
    accepted: int
    rejected: int
    dropped: Mapping[str, int]
    """Reason → items."""
    queued: int
    """In memory only."""
    spooled: int = 0
    """On disk."""
    recovered: int = 0
    """Made by an earlier run, found on disk."""

    @property
    def balanced(self) -> bool:
        ended = self.accepted + self.rejected + sum(self.dropped.values())
        return self.made + self.recovered == ended + self.queued + self.spooled


@dataclass(frozen=True, slots=True)
class QueueSize:
    """How full the queue of one signal is."""

    size_bytes: int
    capacity_bytes: int
    in_flight: int
    """Items of requests that are being sent."""


@dataclass(slots=True)
class Family:
    """The parts of one request that a peer has refused as a whole."""

    patience: int
    """Refusals, one after the other, after which it is believed."""
    refused: int = 0


@dataclass(eq=False, slots=True)
class Waiting:
    """A request in the queue; equal to no other."""

    request: Request
    """Without its body while that is only on disk."""
    size: int
    row: int = 0
    """Its number on disk; 0 while it is not there."""
    since: float = 0.0
    """When it was put, by the queue's clock."""
    first_try: float | None = None
    failures: int = 0
    accepted_before: int = 0
    """Items that its signal had accepted when it was first taken."""
    settled: bool = False
    family: Family | None = None

    def __lt__(self, other: Waiting) -> bool:
        return self.row < other.row


class Work(NamedTuple):
    """What is to be done on disk."""

    write: list[Waiting]
    forget: list[int]
    shelves: list[tuple[str, int]]
    """(signal, the last row that is known) of those that need more rows."""


@dataclass(slots=True)
class _Lane:
    """One signal's part of the queue."""

    in_order: bool = False
    """Whether nothing may overtake what is on disk."""
    first: deque[Waiting] = field(default_factory=deque)
    """To be sent before all others: tried already, or parts of one that was."""
    live: deque[Waiting] = field(default_factory=deque)
    shelf: deque[Waiting] = field(default_factory=deque)
    """The oldest of the backlog, by their numbers; all that is on disk and no higher than *known*, but for the above."""
    known: int = 0
    backlog: int = 0
    """Requests that are on disk and not in memory, shelf included."""
    in_flight: list[Waiting] = field(default_factory=list)
    size_bytes: int = 0
    spooled_bytes: int = 0
    not_before: float = 0.0
    turn: int = 0
    made: int = 0
    recovered: int = 0
    accepted: int = 0
    rejected: int = 0
    queued: int = 0
    spooled: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def idle(self) -> bool:
        return not (self.first or self.live or self.backlog or self.in_flight)

    def in_memory(self) -> Iterator[Waiting]:
        """The oldest first."""
        return chain(self.in_flight, self.first, self.live)

    def settle(self, entry: Waiting, *, accepted: int = 0, rejected: int = 0, dropped: str = "") -> None:
        """Moves the items of *entry*, already taken out, to where they ended."""
        items = entry.request.items
        entry.settled = True
        self._leave(entry)
        self.accepted += accepted
        self.rejected += rejected
        if dropped:
            self.dropped[dropped] += items

    def _leave(self, entry: Waiting) -> None:
        self.size_bytes -= len(entry.request.body)
        if entry.row:
            self.spooled -= entry.request.items
            self.spooled_bytes -= entry.size
        else:
            self.queued -= entry.request.items

    def add(self, entry: Waiting) -> None:
        self.queued += entry.request.items
        self.size_bytes += entry.size

    def replace(self, entry: Waiting, parts: Sequence[Waiting]) -> None:
        """*entry*, already taken out, goes on as *parts*, which have its items."""
        entry.settled = True
        self._leave(entry)
        for part in parts:
            self.add(part)
        self.first.extendleft(reversed(parts))

    def stored(self, entry: Waiting, row: int) -> None:
        entry.row = row
        self.queued -= entry.request.items
        self.spooled += entry.request.items
        self.spooled_bytes += entry.size

    def release(self, entry: Waiting) -> None:
        """*entry*, already taken out and on disk, leaves memory for the backlog."""
        self.size_bytes -= len(entry.request.body)
        entry.request = entry.request._replace(body=b"")
        self.backlog += 1
        if entry.row <= self.known:
            insort(self.shelf, entry)

    def release_surplus(self) -> None:
        resident = sum(len(entry.request.body) for entry in self.live)
        while resident > RESIDENT_BYTES and self.live and self.live[0].row:
            entry = self.live.popleft()
            resident -= len(entry.request.body)
            self.release(entry)

    def next(self) -> Waiting | None:
        """The one to be sent now, taken out."""
        if self.first:
            return self.first.popleft()
        if self.in_order and self.backlog:
            return self.unshelve()
        self.turn += 1
        if self.live and not (self.shelf and self.turn % BACKLOG_TURN == 0):
            return self.live.popleft()
        return self.unshelve()

    def unshelve(self) -> Waiting | None:
        """The oldest of the backlog, taken out; None while its rows are not known."""
        if not self.shelf:
            return None
        self.backlog -= 1
        return self.shelf.popleft()

    @property
    def has_next(self) -> bool:
        return bool(self.first or self.shelf or (self.live and not (self.in_order and self.backlog)))

    def ledger(self) -> SignalLedger:
        return SignalLedger(
            self.made, self.accepted, self.rejected, dict(self.dropped), self.queued, self.spooled, self.recovered
        )


class Queue:
    """Requests by signal, *max_bytes* of each in memory; beyond that the oldest that is neither being sent nor on disk
    is dropped and counted."""

    def __init__(self, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_bytes = max_bytes
        self.clock = clock
        self.write_delay_s = NEVER
        """Age at which what waits is to be written to disk; NEVER without a spool, or while it takes nothing."""
        self._lanes: dict[str, _Lane] = {}
        self._turn: deque[str] = deque()
        self._forget: set[int] = set()
        self._changed = threading.Condition(threading.Lock())
        self._closed = ""
        self._hurried = False

    def put(self, request: Request) -> int:
        """Takes *request*; gives the number of items that were dropped for it. Never waits."""
        with self._changed:
            lane = self._lane(request.signal)
            entry = Waiting(request, len(request.body), since=self.clock())
            lane.live.append(entry)
            lane.made += request.items
            lane.add(entry)
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

        It is in flight until it is given to `settle`, `split` or `again`. Without a body it has to be `loaded` first.
        """
        until = self.clock() + timeout_s
        with self._changed:
            while not self._closed:
                now = self.clock()
                if (entry := self._next_due(now)) is not None:
                    if entry.first_try is None:
                        entry.first_try = now
                        entry.accepted_before = self._lanes[entry.request.signal].accepted
                    return entry
                wait_s = min(until, self._earliest()) - now
                if until <= now:
                    return None
                self._changed.wait(min(max(wait_s, 0.001), threading.TIMEOUT_MAX))
            return None

    def take_oldest(self, signal: str, before_ns: int | None = None) -> Waiting | None:
        """The oldest of the backlog of *signal*, in flight as after `take`, if it is from *before_ns* (Unix time).

        None when no row of the backlog is known.
        """
        with self._changed:
            lane = self._lanes[signal]
            if not lane.shelf or (before_ns is not None and lane.shelf[0].request.oldest_ns >= before_ns):
                return None
            entry = lane.unshelve()
            if entry is not None:
                lane.in_flight.append(entry)
            return entry

    def loaded(self, entry: Waiting, body: bytes) -> None:
        """The body of *entry* was read from disk."""
        with self._changed:
            lane = self._lanes[entry.request.signal]
            if not entry.settled:
                lane.size_bytes += len(body)
                entry.request = entry.request._replace(body=body)

    def settle(self, entry: Waiting, *, rejected: int = 0, dropped: str = "") -> bool:
        """The request has its answer: dropped for that reason, else accepted but for *rejected* items.

        Not so, and False, when the queue was closed meanwhile: then it is counted already.
        """
        with self._changed:
            lane = self._lanes[entry.request.signal]
            if not self._landed(lane, entry):
                return False
            accepted = 0 if dropped else entry.request.items - rejected
            lane.settle(entry, accepted=accepted, rejected=rejected, dropped=dropped)
            self._forget_row(entry)
            self._changed.notify_all()
            return True

    def split(self, entry: Waiting, parts: Sequence[Request], family: Family | None = None) -> None:
        """*parts*, which hold the items of *entry*, go on in its place, as members of *family*."""
        with self._changed:
            lane = self._lanes[entry.request.signal]
            if self._landed(lane, entry):
                # Written at once, together with forgetting the whole: a crash in between leaves one or the other.
                first_try = entry.first_try
                lane.replace(
                    entry, [Waiting(part, len(part.body), first_try=first_try, family=family) for part in parts]
                )
                self._forget_row(entry)
                self._changed.notify_all()

    def steps_aside(self, entry: Waiting, after_s: float) -> None:
        """Lets the next request of its signal go before *entry*; the signal waits so long."""
        with self._changed:
            lane = self._lanes[entry.request.signal]
            if self._landed(lane, entry):
                following = lane.next()
                lane.first.extendleft(one for one in (entry, following) if one is not None)
                lane.not_before = self.clock() + after_s
                self._changed.notify_all()

    def others_pass(self, entry: Waiting) -> bool:
        """Whether others of its signal were accepted since *entry* was first taken."""
        with self._changed:
            return self._lanes[entry.request.signal].accepted > entry.accepted_before

    def again(self, entry: Waiting, after_s: float) -> int:
        """Puts *entry* back to the front; its signal waits so long. Gives what overflowed meanwhile, as `put`."""
        with self._changed:
            lane = self._lanes[entry.request.signal]
            if not self._landed(lane, entry):
                return 0
            entry.failures += 1
            lane.first.appendleft(entry)
            lane.not_before = max(lane.not_before, self.clock() + after_s)
            dropped = self._make_room(lane)
            self._changed.notify_all()
            return dropped

    def backs_off(self, signal: str) -> bool:
        """Whether *signal* waits already, as another request of it has failed."""
        with self._changed:
            return self._lanes[signal].not_before > self.clock()

    def hurry(self) -> None:
        """Forgets the waits before a next try, and before writing to disk: whatever is queued is due."""
        with self._changed:
            for lane in self._lanes.values():
                lane.not_before = 0.0
            self.write_delay_s = 0.0 if self.write_delay_s != NEVER else NEVER
            self._hurried = True
            self._changed.notify_all()

    def follow(self, max_bytes: int) -> None:
        """Another bound from now on, and no wait before a next try: the peer may be another, too."""
        with self._changed:
            self.max_bytes = max_bytes
            for lane in self._lanes.values():
                lane.not_before = 0.0
            self._changed.notify_all()

    def wait_until_empty(self, deadline: float) -> bool:
        """Waits for every request to be settled, until *deadline* by the queue's clock; says whether they are.

        Signals that `again` was told never to try any more are not waited for.
        """
        with self._changed:
            while not self._closed and not all(self._rests(lane) for lane in self._lanes.values()):
                remaining_s = deadline - self.clock()
                if remaining_s <= 0:
                    return False
                self._changed.wait(min(remaining_s, threading.TIMEOUT_MAX))
            return all(lane.idle for lane in self._lanes.values())

    def close(self, reason: str) -> dict[str, int]:
        """Drops what is left and not on disk, in flight or not, and all that still comes; gives signal → items."""
        with self._changed:
            self._closed = self._closed or reason
            dropped = {signal: self._drop_all(lane, self._closed) for signal, lane in self._lanes.items()}
            self._changed.notify_all()
            return {signal: items for signal, items in dropped.items() if items}

    # What is on disk, told by the thread that works there

    def recover(self, kept: Mapping[str, Kept]) -> None:
        """These requests of an earlier run are on disk."""
        with self._changed:
            for signal, found in kept.items():
                lane = self._lane(signal)
                lane.recovered += found.items
                lane.spooled += found.items
                lane.spooled_bytes += found.size_bytes
                lane.backlog += found.rows
            self._changed.notify_all()

    def work(self, timeout_s: float) -> Work:
        """Waits until there is something to do on disk, *timeout_s* at most, and not once it was hurried."""
        until = self.clock() + timeout_s
        with self._changed:
            while True:
                now = self.clock()
                work = self._work(now)
                if any(work) or now >= until or self._closed or self._hurried:
                    self._hurried = False
                    return work
                self._changed.wait(max(0.001, min(until, self._next_write()) - now))

    def stored(self, written: Iterable[tuple[Waiting, int]], forgotten: Collection[int]) -> None:
        """These are on disk now under these numbers, and *forgotten* are not any more."""
        with self._changed:
            self._forget.difference_update(forgotten)
            for entry, row in written:
                if entry.settled:
                    self._forget.add(row)
                else:
                    self._lanes[entry.request.signal].stored(entry, row)
            for lane in self._lanes.values():
                lane.release_surplus()
            self._changed.notify_all()

    def shelve(self, signal: str, rows: Sequence[Row]) -> None:
        """The rows that follow the last known one; none when there are no more."""
        with self._changed:
            lane = self._lanes[signal]
            elsewhere = self._forget | {entry.row for entry in lane.in_memory()}
            for row in rows:
                lane.known = row.id
                if row.id not in elsewhere:
                    lane.shelf.append(Waiting(Request(signal, b"", row.items, row.oldest_ns), row.size, row.id))
            if not rows:
                self._miscounted(lane)
            self._changed.notify_all()

    def unspool(self, reason: str) -> dict[str, int]:
        """The disk has lost everything: what is in memory is queued again, the rest dropped; gives signal → items."""
        with self._changed:
            lost = {signal: self._unspool(lane, reason) for signal, lane in self._lanes.items()}
            self._forget.clear()
            self._changed.notify_all()
            return {signal: items for signal, items in lost.items() if items}

    def fullest(self) -> str | None:
        """The signal that takes most of the disk, of those that have something there to drop."""
        with self._changed:
            candidates = [(lane.spooled_bytes, signal) for signal, lane in self._lanes.items() if lane.shelf]
            return max(candidates)[1] if candidates else None

    def oldest_on_disk_ns(self) -> dict[str, int]:
        """Signal → Unix time of the oldest that waits on disk and is known."""
        with self._changed:
            return {
                signal: min(times)
                for signal, lane in self._lanes.items()
                if (times := [entry.request.oldest_ns for entry in (*lane.in_memory(), *lane.shelf) if entry.row])
            }

    def spooled_bytes(self) -> int:
        with self._changed:
            return sum(lane.spooled_bytes for lane in self._lanes.values())

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

    def _lane(self, signal: str) -> _Lane:
        lane = self._lanes.get(signal)
        if lane is None:
            lane = self._lanes[signal] = _Lane(in_order=signal in IN_ORDER)
            self._turn.append(signal)
        return lane

    def _next_due(self, now: float) -> Waiting | None:
        for _ in range(len(self._turn)):
            lane = self._lanes[self._turn[0]]
            self._turn.rotate(-1)
            if lane.not_before <= now and (entry := lane.next()) is not None:
                lane.in_flight.append(entry)
                return entry
        return None

    def _earliest(self) -> float:
        return min((lane.not_before for lane in self._lanes.values() if lane.has_next), default=NEVER)

    def _landed(self, lane: _Lane, entry: Waiting) -> bool:
        """Takes *entry* out of those in flight; not so when the queue was closed meanwhile: it is counted already."""
        if entry not in lane.in_flight:
            return False
        lane.in_flight.remove(entry)
        return True

    def _forget_row(self, entry: Waiting) -> None:
        if entry.row:
            self._forget.add(entry.row)

    def _rests(self, lane: _Lane) -> bool:
        return lane.idle or (lane.not_before == NEVER and not lane.in_flight)

    def _work(self, now: float) -> Work:
        lanes = self._lanes.items()
        return Work(
            [entry for lane in self._lanes.values() for entry in self._unwritten(lane, now)],
            list(self._forget),
            [
                (signal, lane.known)
                for signal, lane in lanes
                if len(lane.shelf) < min(lane.backlog, SHELF_ROWS // 4) and not self._closed
            ],
        )

    def _unwritten(self, lane: _Lane, now: float) -> Iterator[Waiting]:
        """What is due to be written. While the signal waits for its next try no answer will come before."""
        delay_s = min(self.write_delay_s, 0.0) if lane.not_before > now else self.write_delay_s
        if self.write_delay_s != NEVER:
            yield from (entry for entry in lane.in_memory() if not entry.row and entry.since + delay_s <= now)

    def _next_write(self) -> float:
        since = (entry.since for lane in self._lanes.values() for entry in lane.in_memory() if not entry.row)
        return min(since, default=NEVER) + self.write_delay_s

    def _make_room(self, lane: _Lane) -> int:
        dropped = 0
        while lane.size_bytes > self.max_bytes and (waiting := lane.first or lane.live):
            entry = waiting.popleft()
            if entry.row:
                lane.release(entry)
            else:
                dropped += self._drop(lane, entry, QUEUE_FULL)
        return dropped

    def _drop_all(self, lane: _Lane, reason: str) -> int:
        left = [*lane.in_memory()]
        lane.in_flight.clear()
        lane.first.clear()
        lane.live.clear()
        for entry in left:
            if entry.row:
                lane.release(entry)
        return sum(self._drop(lane, entry, reason) for entry in left if not entry.row)

    def _unspool(self, lane: _Lane, reason: str) -> int:
        unread = [entry for entry in lane.in_flight if entry.row and not entry.request.body]
        for entry in unread:
            lane.in_flight.remove(entry)
            lane.settle(entry, dropped=reason)
        for entry in lane.in_memory():
            if entry.row:
                lane.spooled -= entry.request.items
                lane.queued += entry.request.items
                entry.row = 0
        lost, lane.spooled, lane.spooled_bytes = lane.spooled, 0, 0
        lane.shelf.clear()
        lane.known = lane.backlog = 0
        if lost:
            lane.dropped[reason] += lost
        return lost + sum(entry.request.items for entry in unread)

    @staticmethod
    def _part(entry: Waiting, part: Request, family: Family | None) -> Waiting:
        return Waiting(
            part,
            len(part.body),
            first_try=entry.first_try,
            failures=entry.failures,
            accepted_before=entry.accepted_before,
            family=family,
        )

    @staticmethod
    def _miscounted(lane: _Lane) -> None:
        """Fewer rows are on disk than were counted there: nothing more is to be waited for."""
        lane.backlog = len(lane.shelf)

    @staticmethod
    def _drop(lane: _Lane, entry: Waiting, reason: str) -> int:
        lane.settle(entry, dropped=reason)
        return entry.request.items
