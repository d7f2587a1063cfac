"""One signal's part of a queue: which request leaves next, and what may leave memory.

Without a spool a lane is a deque. With one, what was written may leave memory and waits as *backlog*, of which only
the next few rows are known here. Of logs and spans the latest go first and the backlog in between: nobody who looks
at a node wants to wait for an hour's backlog. Metrics keep their order, as stores refuse points that are older than
the last one of their series.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from otelbpf.export.account import Account
from otelbpf.export.request import Request
from otelbpf.export.waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from otelbpf.export.spool import Row

RESIDENT_BYTES = 2**20
"""What may wait in memory although it is on disk: enough for a peer that is slow, nothing next to the agent."""
BACKLOG_TURN = 4
"""One request in so many comes from the backlog even if new ones never cease."""
IN_ORDER = {"metrics"}
NEVER = float("inf")


class Room(NamedTuple):
    """What may wait in memory, and what is said of that which has to go."""

    max_bytes: int
    reason: str


@dataclass(slots=True)
class Lane:
    """The requests of *signal*. Whoever calls it holds the lock of the queue."""

    signal: str
    first: deque[Waiting] = field(default_factory=deque)
    """To be sent before all others: tried already, or parts of one that was."""
    live: deque[Waiting] = field(default_factory=deque)
    shelf: deque[Waiting] = field(default_factory=deque)
    """The oldest of the backlog, by their numbers; all that is on disk and no higher than *known*, but for the above."""
    known: int = 0
    backlog: int = 0
    """Requests that are on disk and not in memory, shelf included."""
    in_flight: list[Waiting] = field(default_factory=list)
    not_before: float = 0.0
    """The next try, by the queue's clock; NEVER when there is none any more."""
    unreadable_until: float = 0.0
    """While the disk does not give what is on it, by the queue's clock, the rest goes its way."""
    account: Account = field(default_factory=Account)
    _turn: int = 0

    @property
    def in_order(self) -> bool:
        """Whether nothing may overtake what is on disk."""
        return self.signal in IN_ORDER

    @property
    def idle(self) -> bool:
        return not (self.first or self.live or self.backlog or self.in_flight)

    @property
    def rests(self) -> bool:
        """Whether nothing of it is tried any more."""
        return self.idle or (self.not_before == NEVER and not self.in_flight)

    def in_memory(self) -> Iterator[Waiting]:
        """The oldest first."""
        return chain(self.in_flight, self.first, self.live)

    def put(self, entry: Waiting) -> None:
        """Takes what was just made."""
        self.live.append(entry)
        self.account.made += entry.request.items
        self.account.add(entry)

    def next(self, now: float) -> Waiting | None:
        """The one to be sent now, taken out."""
        if self.first:
            return self.first.popleft()
        if self._waits_for_backlog(now):
            return self.unshelve()
        readable = self.unreadable_until <= now
        self._turn += 1
        if self.live and not (self.shelf and readable and self._turn % BACKLOG_TURN == 0):
            return self.live.popleft()
        return self.unshelve() if readable else None

    def due(self, now: float) -> float:
        """When there is one to be sent; NEVER while there is none."""
        if self.first or (self.live and not self._waits_for_backlog(now)):
            return self.not_before
        return max(self.not_before, self.unreadable_until) if self.shelf else NEVER

    def _waits_for_backlog(self, now: float) -> bool:
        """Whether what is on disk has to be sent before what is made now."""
        return self.in_order and self.backlog > 0 and self.unreadable_until <= now

    def unshelve(self) -> Waiting | None:
        """The oldest of the backlog, taken out; None while its rows are not known."""
        if not self.shelf:
            return None
        self.backlog -= 1
        return self.shelf.popleft()

    def take(self, entry: Waiting, now: float) -> None:
        """*entry*, taken out, is in flight."""
        if entry.first_try is None:
            entry.first_try = now
            entry.accepted_before = self.account.accepted
        self.in_flight.append(entry)

    def landed(self, entry: Waiting) -> bool:
        """Takes *entry* out of those in flight; not so when the queue was closed meanwhile: it is counted already."""
        if entry not in self.in_flight:
            return False
        self.in_flight.remove(entry)
        return True

    def replace(self, entry: Waiting, parts: Sequence[Waiting]) -> None:
        """*entry*, already taken out, goes on as *parts*, which have its items."""
        entry.settled = True
        self.account.leave(entry)
        for part in parts:
            self.account.add(part)
        self.first.extendleft(reversed(parts))

    def make_room(self, room: Room) -> int:
        """Lets the oldest go until what is in memory fits into *room*; gives the items that were dropped."""
        dropped = 0
        while self.account.size_bytes > room.max_bytes and (waiting := self.first or self.live):
            entry = waiting.popleft()
            if entry.row:
                self.release(entry)
            else:
                dropped += self._drop(entry, room.reason)
        return dropped

    def drop_all(self, reason: str) -> int:
        """Lets everything go, what is in flight too; gives the items that were dropped, as they were not on disk."""
        left = [*self.in_memory()]
        self.in_flight.clear()
        self.first.clear()
        self.live.clear()
        for entry in left:
            if entry.row:
                self.release(entry)
        return sum(self._drop(entry, reason) for entry in left if not entry.row)

    def _drop(self, entry: Waiting, reason: str) -> int:
        self.account.end(entry, dropped=reason)
        return entry.request.items

    # What is on disk

    def recover(self, rows: int, items: int, size_bytes: int) -> None:
        """So much of an earlier run is on disk."""
        self.account.found(items, size_bytes)
        self.backlog += rows

    def stored(self, entry: Waiting, row: int) -> None:
        entry.row = row
        self.account.stored(entry)

    def release(self, entry: Waiting) -> None:
        """*entry*, already taken out and on disk, leaves memory for the backlog."""
        self.account.size_bytes -= len(entry.request.body)
        entry.request = entry.request._replace(body=b"")
        self.backlog += 1
        if entry.row <= self.known:
            insort(self.shelf, entry)

    def put_back(self, entry: Waiting, until: float) -> None:
        """*entry*, already taken out, could not be read; none is tried before *until*."""
        entry.unread += 1
        self.backlog += 1
        insort(self.shelf, entry)
        self.unreadable_until = until

    def release_surplus(self) -> None:
        """Lets the oldest that are on disk leave memory, down to RESIDENT_BYTES."""
        resident = sum(len(entry.request.body) for entry in self.live)
        while resident > RESIDENT_BYTES and self.live and self.live[0].row:
            entry = self.live.popleft()
            resident -= len(entry.request.body)
            self.release(entry)

    def shelve(self, rows: Sequence[Row], forgotten: set[int]) -> None:
        """The rows that follow the last known one, but for what is *forgotten*; none when there are no more."""
        elsewhere = forgotten | {entry.row for entry in self.in_memory()}
        for row in rows:
            self.known = row.id
            if row.id not in elsewhere:
                self.shelf.append(Waiting(Request(self.signal, b"", row.items, row.oldest_ns), row.size, row.id))
        if not rows:  # fewer than were counted: nothing more is to be waited for
            self.backlog = len(self.shelf)

    def unspool(self, reason: str) -> int:
        """The disk has lost everything: what is in memory is queued again, the rest dropped; gives the items."""
        unread = [entry for entry in self.in_flight if entry.row and not entry.request.body]
        for entry in unread:
            self.in_flight.remove(entry)
            self._drop(entry, reason)
        for entry in self.in_memory():
            if entry.row:
                self.account.unstored(entry)
                entry.row = 0
        self.shelf.clear()
        self.known = self.backlog = 0
        self.unreadable_until = 0.0
        return self.account.lose_disk(reason) + sum(entry.request.items for entry in unread)
