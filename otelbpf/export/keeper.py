"""The thread between a queue and its spool: writes what waits, deletes what has its answer, finds what is next.

What is answered soon after it was put is never written: most of it, while the peer is well. The disk may be full,
slow or gone: then what waits is in memory only, which is said once, and the disk is tried again every few seconds.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from otelbpf.export.answer import SPOOL_CORRUPT, SPOOL_EXPIRED, SPOOL_FULL
from otelbpf.export.backlog import SHELF_ROWS
from otelbpf.export.lane import NEVER
from otelbpf.export.spool import PAGE_BYTES, Spool, SpoolCorruptError, SpoolError
from otelbpf.export.wall_clock import WallClock
from otelbpf.pulse import Pulse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from otelbpf.config import Spool as Settings
    from otelbpf.export.backlog import Work
    from otelbpf.export.queue import Queue
    from otelbpf.export.waiting import Waiting

log = logging.getLogger("otelbpf.export")

WRITE_DELAY_S = 0.03
"""An answer that comes sooner saves two writes. With the tenth of a second that the line takes then it stays well below 200 ms."""
WRITE_BYTES = 4 * 2**20
"""Of one transaction, about: it waits in memory a second time."""
IDLE_S = 10.0
"""Time between two looks for what is too old."""
RETRY_S = 5.0
"""Time between two tries while the disk does not take anything."""
UNREADABLE_AFTER = 2
"""Times that a request may not be read before, RETRY_S apart, until it is believed to be lost: a bad sector stays bad,
and must not hold what is behind it."""


@dataclass(frozen=True, slots=True)
class SpoolSize:
    """How full the spool of one exporter is."""

    size_bytes: int
    capacity_bytes: int
    oldest_ns: int | None
    """Unix time of the oldest item in it; None when there is none."""


class Keeper:
    """Keeps the requests of *queue* on disk as well. `lose` is told (signal, reason, items, message) of losses."""

    def __init__(self, name: str, queue: Queue, settings: Settings, lose: Callable[[str, str, int, str], None]) -> None:
        self.name = name
        self._queue = queue
        self._backlog = queue.backlog
        self._settings = settings
        self._lose = lose
        self._spool = Spool(Path(settings.directory), name)
        self._clock = WallClock()
        self._open = False
        self._trouble = ""
        self._retry_at = 0.0
        self._expire_at = 0.0
        self._used_bytes = 0
        self._stopping = threading.Event()
        self.pulse = Pulse(f"spool {name}")
        self._thread = threading.Thread(target=self._run, name=self.pulse.stage, daemon=True)
        self.failure: BaseException | None = None
        """What ended its thread, if that was not `finish`."""

    def start(self) -> None:
        self._thread.start()

    def follow(self, settings: Settings) -> None:
        """Another size and age from now on; the directory stays as it was."""
        self._settings = settings

    def finish(self, deadline: float) -> None:
        """Writes what is not yet on disk until *deadline* (time.monotonic), and ends."""
        self._stopping.set()
        self._queue.hurry()
        if self._thread.is_alive():
            self._thread.join(max(0.0, deadline - time.monotonic()))

    def load(self, entry: Waiting) -> bool:
        """Reads the body of *entry*, which is in flight; not so when it cannot be read, which is then dealt with."""
        try:
            body = self._spool.read(entry.row)
        except SpoolError as error:
            self._complain(error)
            if entry.unread < UNREADABLE_AFTER:
                self._backlog.not_read(entry, RETRY_S)
            else:
                self._drop(entry, SPOOL_CORRUPT)
            return False
        if body is None:
            self._drop(entry, SPOOL_CORRUPT)
            return False
        self._backlog.loaded(entry, body)
        return True

    def size(self) -> SpoolSize:
        return SpoolSize(self._backlog.size_bytes(), self._settings.max_size, self._backlog.oldest_ns())

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                wait_s = self._wait_s()
                self.pulse.beat(wait_s)
                self._step(wait_s)
            self._retry_at = 0.0
            self._step(0.0)
            self._disown()
            self._spool.__exit__()
            self.pulse.end()
        except BaseException as failure:  # noqa: BLE001 - kept for the main thread, which ends the agent with it
            self.failure = failure

    def _wait_s(self) -> float:
        return IDLE_S if self._open and not self._trouble else max(0.0, self._retry_at - time.monotonic())

    def _step(self, timeout_s: float) -> None:
        try:
            if not self._open:
                self._stopping.wait(timeout_s)
                self._enter()
            self._put_back()
            self._resume()
            self._do(self._backlog.work(timeout_s))
            self._expire()
        except SpoolCorruptError as error:
            self._start_afresh(error)
        except SpoolError as error:
            self._pause(error)

    def _enter(self) -> None:
        self._spool.__enter__()
        kept = self._spool.kept()
        self._used_bytes = self._spool.size_bytes()
        self._open = True
        self._backlog.recover(kept)
        if items := sum(found.items for found in kept.values()):
            log.info("exporter %s: %d items of an earlier run wait in %s", self.name, items, self._spool.path)

    def _put_back(self) -> None:
        """Somebody may have removed the file while it is in use, to have more room, say."""
        if not self._spool.is_there():
            self._spool.put_back()
            log.warning("exporter %s: %s was removed; what it held is written anew", self.name, self._spool.path)

    def _disown(self) -> None:
        """What is in a file that nobody will find is not on disk."""
        if self._open and not self._spool.is_there():
            self._unspool(f"{self._spool.path} was removed")

    def _unspool(self, message: str) -> None:
        for signal, items in self._backlog.unspool(SPOOL_CORRUPT).items():
            self._lose(signal, SPOOL_CORRUPT, items, message)

    def _resume(self) -> None:
        """Lets what waits be written, again if the disk took nothing for a while."""
        if not self._backlog.is_written and time.monotonic() >= self._retry_at:
            self._backlog.write_after(0.0 if self._stopping.is_set() else WRITE_DELAY_S)

    def _do(self, work: Work) -> None:
        for signal, known in work.shelves:
            self._shelve(signal, known)
        if not (work.write or work.forget):
            return
        forget = work.forget
        for piece in _pieces(work.write):
            forget += self._make_room(sum(entry.size + PAGE_BYTES for entry in piece))
            # A request may have been answered since it was looked at: then it is written in vain, and forgotten next.
            rows = self._spool.write([entry.request for entry in piece], forget)
            self._backlog.stored(zip(piece, rows, strict=True), forget)
            forget = []
        self._used_bytes = self._spool.size_bytes()
        if self._backlog.size_bytes() == 0:
            self._spool.shrink()
        if self._trouble and work.write:
            self._trouble = ""
            log.warning("exporter %s: what waits is kept on disk again", self.name)

    def _shelve(self, signal: str, known: int) -> None:
        try:
            rows = self._spool.rows(signal, known, SHELF_ROWS)
        except SpoolError:
            self._backlog.passes(signal, RETRY_S)
            raise
        self._backlog.shelve(signal, rows)

    def _make_room(self, size_bytes: int) -> list[int]:
        """Drops the oldest of the signal that takes most room until *size_bytes* more fit; gives their numbers."""
        excess = self._used_bytes + size_bytes - self._settings.max_size
        rows = []
        while excess > 0 and (entry := self._oldest()) is not None:
            excess -= entry.size
            rows.append(entry.row)
            self._drop(entry, SPOOL_FULL)
        return rows

    def _oldest(self) -> Waiting | None:
        signal = self._backlog.fullest()
        if signal is None:
            for short, known in self._backlog.work(0.0).shelves:
                self._shelve(short, known)
            signal = self._backlog.fullest()
        return self._backlog.take_oldest(signal) if signal is not None else None

    def _expire(self) -> None:
        if time.monotonic() < self._expire_at:
            return
        self._expire_at = time.monotonic() + IDLE_S
        limit_ns = self._clock.before(self._settings.max_age)
        for signal in self._backlog.signals():
            while (entry := self._backlog.take_oldest(signal, before_ns=limit_ns)) is not None:
                self._drop(entry, SPOOL_EXPIRED)

    def _drop(self, entry: Waiting, reason: str) -> None:
        if self._queue.settle(entry, dropped=reason):
            self._lose(entry.request.signal, reason, entry.request.items, "")

    def _start_afresh(self, error: SpoolCorruptError) -> None:
        """Puts a damaged file aside; what was only in it is lost."""
        self._open = False
        try:
            aside = self._spool.set_aside()
        except SpoolError as other:
            self._pause(other)
            return
        log.warning("exporter %s: %s; it is set aside as %s", self.name, error, aside)
        self._unspool(str(error))

    def _pause(self, error: SpoolError) -> None:
        """From now on in memory only, for a while."""
        self._complain(error)
        self._retry_at = time.monotonic() + RETRY_S
        self._backlog.write_after(NEVER)
        if self._open and not self._stopping.is_set():
            self._clean_up()

    def _clean_up(self) -> None:
        """What has its answer is forgotten even when nothing more can be written."""
        try:
            self._spool.empty_log()
            forget = self._backlog.work(0.0).forget
            self._spool.write((), forget)
            self._backlog.stored((), forget)
        except SpoolError:
            self._stopping.wait(RETRY_S)

    def _complain(self, error: SpoolError) -> None:
        if not self._trouble:
            log.warning("exporter %s: %s; what waits is in memory only until that is over", self.name, error)
        self._trouble = str(error)


def _pieces(entries: Sequence[Waiting]) -> Iterator[list[Waiting]]:
    """*entries* in parts that are not too large for one transaction; an empty one when there are none."""
    piece: list[Waiting] = []
    size = 0
    for entry in entries:
        piece.append(entry)
        size += entry.size
        if size >= WRITE_BYTES:
            yield piece
            piece, size = [], 0
    if piece or not entries:
        yield piece
