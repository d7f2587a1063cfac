"""The drain thread: copies records out of the rings before they are full, and does nothing else."""

from __future__ import annotations

import math
import os
import select
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Self

from otelbpf.pulse import Pulse

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from otelbpf.kernel.ring import Ring

_POLL_MS = 1000
"""Bounded, because a commit that races our consumer position may go unnotified."""
_COALESCE_S = 0.010
"""A wake-up costs the traced application 5 µs, so there is at most one a tick; also the wait for a busy head."""
_BUSY_BYTES = 4 << 10
"""Read in one tick, it means that there will be more in the next: to ask the kernel would cost as much as to read it."""
_LOOK_S = 0.002
_SLICE_BYTES = 8 << 20
"""What is taken together; a stage needs several times as much for what it finds out about it."""
_NICENESS = -10
"""A ring holds less than a tenth of a second of the most that a node may see, and on a node whose cores are all busy a
thread may wait longer than that for its turn. This one needs 2 % of a core."""


PLENTY_BYTES = 8 << 20
"""So much that waiting for more is not worth it: thousands of the largest events."""

Slice = list[tuple[int, bytes]]
"""(index of the source, records with their headers), in the order of each source."""


class Source(NamedTuple):
    """One ring, open, and whose it is."""

    name: str
    ring: Ring


class Drain:
    """The thread between rings and the rest; a context manager.

    What it has read waits for `take`, bounded by *capacity_bytes* for each source, so that a flood of one kind costs
    no other kind. When the consumer is too slow the *oldest* is shed, and counted: what is fresh is what an operator
    looks at, and the rings stay able to take more.
    """

    def __init__(self, sources: Sequence[Source], capacity_bytes: int) -> None:
        self.sources = tuple(sources)
        self._rings = [source.ring for source in self.sources]
        self.shed = [0] * len(self.sources)
        """Events thrown away here, by source."""
        self.arrived = threading.Event()
        """Set, at most once a tick, when there is something to take; cleared by `take`."""
        self.plenty = threading.Event()
        """Set when so much waits that it should be taken now; cleared by `take`."""
        self.most_waiting_bytes = 0
        """The most that has waited so far of one source."""
        self._capacity_bytes = capacity_bytes
        self._waiting: list[deque[tuple[int, bytes]]] = [deque() for _source in self.sources]
        """Of each source: (number of the tick, records)."""
        self.ticks = 0
        """How often the rings have been read: what has a lower number is complete."""
        self._waiting_bytes = [0] * len(self.sources)
        self._stopping = False
        self._lock = threading.Lock()
        self._failure: BaseException | None = None
        self._read_up_to = [0] * len(self.sources)
        """Where the producer of each ring was at the last tick that is over."""
        self.pulse = Pulse("drain")
        self._thread = threading.Thread(target=self._run, name="drain", daemon=True)

    def __enter__(self) -> Self:
        self._stop_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poller = select.poll()
        for fd in (self._stop_fd, *(ring.fd for ring in self._rings)):
            self._poller.register(fd, select.POLLIN)
        self._read_up_to = [ring.position for ring in self._rings]
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        os.close(self._stop_fd)

    def stop(self) -> None:
        """Reads all that the rings hold now, once, and ends; what it read can still be taken. May be called twice."""
        self._stopping = True
        os.eventfd_write(self._stop_fd, 1)
        self._thread.join()

    def take(self, before_tick: float = math.inf) -> Slice:
        """The oldest of what was read before *before_tick*: whole ticks of all sources, as many as make a slice. To be
        called until nothing is left.

        Raises what ended the thread, if it did not end by `stop`.
        """
        self.arrived.clear()
        self.plenty.clear()
        taken: Slice = []
        with self._lock:
            while (tick := self._oldest_tick()) < before_tick and sum(len(part) for _, part in taken) < _SLICE_BYTES:
                taken += self._of_tick(tick)
        if self._failure is not None:
            if not taken:
                raise self._failure
            self.arrived.set()  # so that the consumer comes once more, and hears of it
        return taken

    def _oldest_tick(self) -> float:
        return min((waiting[0][0] for waiting in self._waiting if waiting), default=math.inf)

    def _of_tick(self, tick: float) -> Iterator[tuple[int, bytes]]:
        """Kept together: what one ring teaches about the content of another came in the same tick."""
        for index, waiting in enumerate(self._waiting):
            while waiting and waiting[0][0] == tick:
                _tick, records = waiting.popleft()
                self._waiting_bytes[index] -= len(records)
                yield index, records

    def catch_up(self, within_s: float) -> None:
        """Returns when what the rings hold now can be taken, or after *within_s*."""
        now = [ring.producer for ring in self._rings]
        until = time.monotonic() + within_s
        while self._thread.is_alive() and time.monotonic() < until:
            if all(read >= written for read, written in zip(self._read_up_to, now, strict=True)):
                break
            time.sleep(_LOOK_S)

    def pending(self, source: int) -> int:
        """Records of the source that the kernel has written and nobody has taken."""
        ring = self._rings[source]
        return ring.pending + self._waiting_bytes[source] // ring.stride

    def _run(self) -> None:
        _be_first_in_line()
        try:
            busy = False
            self.pulse.rest()
            while not (self._stopping if busy else self._stop_asked()):
                self.pulse.beat()
                time.sleep(_COALESCE_S)
                busy = self._tick() >= _BUSY_BYTES
                self.pulse.rest()
            self._tick()
            self.pulse.end()
        except BaseException as failure:  # noqa: BLE001 - whatever it is, the consumer is told: `take` raises it
            self._failure = failure
        finally:
            self.arrived.set()
            self.plenty.set()

    def _stop_asked(self) -> bool:
        return any(fd == self._stop_fd for fd, _event in self._poller.poll(_POLL_MS))

    def _tick(self) -> int:
        """Gives the bytes that there were."""
        # Up to where the producers are now: chasing them would never end, and costs 25 times as much a record.
        limits = [ring.producer for ring in self._rings]
        read_bytes = 0
        for index, (ring, limit) in enumerate(zip(self._rings, limits, strict=True)):
            while ring.position < limit and (records := ring.drain(limit)) is not None:
                if records:
                    self._keep(index, records)
                    read_bytes += len(records)
        self.ticks += 1
        self._read_up_to = limits
        if read_bytes:
            self.arrived.set()
        if sum(self._waiting_bytes) >= PLENTY_BYTES:
            self.plenty.set()
        return read_bytes

    def _keep(self, index: int, records: bytes) -> None:
        with self._lock:
            self._waiting[index].append((self.ticks, records))
            self._waiting_bytes[index] += len(records)
            while self._waiting_bytes[index] > self._capacity_bytes:
                _tick, lost = self._waiting[index].popleft()
                self._waiting_bytes[index] -= len(lost)
                self.shed[index] += len(lost) // self._rings[index].stride
            self.most_waiting_bytes = max(self.most_waiting_bytes, self._waiting_bytes[index])


def _be_first_in_line() -> None:
    with suppress(OSError):  # without CAP_SYS_NICE it has its turn like others, and what is lost is counted
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
