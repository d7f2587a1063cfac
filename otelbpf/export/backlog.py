"""The queue as its keeper sees it: what is to be written, forgotten and looked up on disk, and what is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from otelbpf.export.lane import NEVER

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from otelbpf.export.lane import Lane
    from otelbpf.export.lanes import Lanes
    from otelbpf.export.spool import Kept, Row
    from otelbpf.export.waiting import Waiting

SHELF_ROWS = 256
"""Rows of the backlog that are looked up at a time."""


class Work(NamedTuple):
    """What is to be done on disk."""

    write: list[Waiting]
    forget: list[int]
    shelves: list[tuple[str, int]]
    """(signal, the last row that is known) of those that need more rows."""


class Backlog:
    """What of *lanes* is on disk, or should be. For the thread that works there."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes

    @property
    def is_written(self) -> bool:
        """Whether what waits is to be written, some time after it came."""
        return self._lanes.write_delay_s != NEVER

    def write_after(self, delay_s: float) -> None:
        """From now on what has waited for so long is to be written; NEVER while the disk takes nothing."""
        self._lanes.write_delay_s = delay_s

    def recover(self, kept: Mapping[str, Kept]) -> None:
        """These requests of an earlier run are on disk."""
        with self._lanes.changed:
            for signal, found in kept.items():
                self._lanes[signal].recover(found.rows, found.items, found.size_bytes)
            self._lanes.changed.notify_all()

    def work(self, timeout_s: float) -> Work:
        """Waits until there is something to do on disk, *timeout_s* at most, and not once it was hurried."""
        lanes = self._lanes
        until = lanes.clock() + timeout_s
        with lanes.changed:
            while True:
                now = lanes.clock()
                work = self._work(now)
                if any(work) or now >= until or lanes.closed or lanes.hurried:
                    lanes.hurried = False
                    return work
                lanes.changed.wait(max(0.001, min(until, self._next_write()) - now))

    def stored(self, written: Iterable[tuple[Waiting, int]], forgotten: Collection[int]) -> None:
        """These are on disk now under these numbers, and *forgotten* are not any more."""
        lanes = self._lanes
        with lanes.changed:
            lanes.forget.difference_update(forgotten)
            for entry, row in written:
                if entry.settled:
                    lanes.forget.add(row)
                else:
                    lanes[entry.request.signal].stored(entry, row)
            for lane in lanes.all():
                lane.release_surplus()
            lanes.changed.notify_all()

    def shelve(self, signal: str, rows: Sequence[Row]) -> None:
        """The rows that follow the last known one; none when there are no more."""
        with self._lanes.changed:
            self._lanes[signal].shelve(rows, self._lanes.forget)
            self._lanes.changed.notify_all()

    def take_oldest(self, signal: str, before_ns: int | None = None) -> Waiting | None:
        """The oldest of the backlog of *signal*, in flight as after `Queue.take`, if it is from *before_ns* (Unix time).

        None when no row of the backlog is known.
        """
        with self._lanes.changed:
            lane = self._lanes[signal]
            if not lane.shelf or (before_ns is not None and lane.shelf[0].request.oldest_ns >= before_ns):
                return None
            entry = lane.unshelve()
            if entry is not None:
                lane.in_flight.append(entry)
            return entry

    def loaded(self, entry: Waiting, body: bytes) -> None:
        """The body of *entry* was read from disk."""
        with self._lanes.changed:
            if not entry.settled:
                self._lanes[entry.request.signal].account.size_bytes += len(body)
                entry.request = entry.request._replace(body=body)

    def not_read(self, entry: Waiting, after_s: float) -> None:
        """The body of *entry*, which is in flight, could not be read; what is on disk is tried again after so long."""
        lanes = self._lanes
        with lanes.changed:
            lane = lanes[entry.request.signal]
            if lane.landed(entry):
                lane.put_back(entry, lanes.clock() + after_s)
                lanes.changed.notify_all()

    def passes(self, signal: str, for_s: float) -> None:
        """What of *signal* is on disk cannot be found for so long; what is made now goes its way."""
        with self._lanes.changed:
            self._lanes[signal].unreadable_until = self._lanes.clock() + for_s
            self._lanes.changed.notify_all()

    def unspool(self, reason: str) -> dict[str, int]:
        """The disk has lost everything: what is in memory is queued again, the rest dropped; gives signal → items."""
        with self._lanes.changed:
            lost = {signal: lane.unspool(reason) for signal, lane in self._lanes.items()}
            self._lanes.forget.clear()
            self._lanes.changed.notify_all()
            return {signal: items for signal, items in lost.items() if items}

    def signals(self) -> list[str]:
        with self._lanes.changed:
            return [signal for signal, _ in self._lanes.items()]

    def fullest(self) -> str | None:
        """The signal that takes most of the disk, of those that have something there to drop."""
        with self._lanes.changed:
            candidates = [(lane.account.spooled_bytes, signal) for signal, lane in self._lanes.items() if lane.shelf]
            return max(candidates)[1] if candidates else None

    def oldest_ns(self) -> int | None:
        """Unix time of the oldest that is on disk and known; None when there is none."""
        with self._lanes.changed:
            return min(
                (
                    entry.request.oldest_ns
                    for lane in self._lanes.all()
                    for entry in (*lane.in_memory(), *lane.shelf)
                    if entry.row
                ),
                default=None,
            )

    def size_bytes(self) -> int:
        """Of the bodies on disk."""
        with self._lanes.changed:
            return sum(lane.account.spooled_bytes for lane in self._lanes.all())

    def _work(self, now: float) -> Work:
        lanes = self._lanes
        return Work(
            [entry for lane in lanes.all() for entry in self._unwritten(lane, now)],
            list(lanes.forget),
            [
                (signal, lane.known)
                for signal, lane in lanes.items()
                if len(lane.shelf) < min(lane.backlog, SHELF_ROWS // 4) and not lanes.closed
            ],
        )

    def _unwritten(self, lane: Lane, now: float) -> Iterator[Waiting]:
        """What is due to be written. While the signal waits for its next try no answer will come before."""
        if not self.is_written:
            return
        delay_s = 0.0 if lane.not_before > now else self._lanes.write_delay_s
        yield from (entry for entry in lane.in_memory() if not entry.row and entry.since + delay_s <= now)

    def _next_write(self) -> float:
        since = (entry.since for lane in self._lanes.all() for entry in lane.in_memory() if not entry.row)
        return min(since, default=NEVER) + self._lanes.write_delay_s
