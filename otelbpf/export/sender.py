"""One exporter at work: a queue, threads of its own, and a transport that they send through.

The producer only ever puts into the queue. Whether the peer is there, slow or wrong is these threads' business alone.
"""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Self

from otelbpf.errors import described
from otelbpf.export.answer import GIVEN_UP, MEMORY_LIMIT, MISTAKE, REJECTED, SHUTDOWN, Accepted, Failure
from otelbpf.export.backoff import Backoff
from otelbpf.export.isolation import Isolation
from otelbpf.export.lane import NEVER
from otelbpf.export.news import News
from otelbpf.export.queue import Queue
from otelbpf.export.route import Route
from otelbpf.pulse import Pulse

if TYPE_CHECKING:
    from collections.abc import Collection

    from otelbpf.config import Retry, SendingQueue, Spool
    from otelbpf.export.account import SignalLedger
    from otelbpf.export.keeper import Keeper, SpoolSize
    from otelbpf.export.news import Watcher
    from otelbpf.export.queue import QueueSize
    from otelbpf.export.request import Request
    from otelbpf.export.transport import Transport
    from otelbpf.export.waiting import Waiting

IDLE_S = 60.0
LEAST_BYTES = 2**20
"""Of each signal, however little memory there is: what is sent while the peer is well passes through."""
FLUSH_RETRY_S = 0.5
"""Longest wait for a retry while stopping: there is no time for more."""
JOIN_S = 0.2
SPOOL_S = 0.5
"""Reserved, of the time to stop, for writing what is not yet on disk."""


class Sender:
    """Exports to one peer. A context manager; `export` never waits, `flush` ends it.

    With a *spool* that has a directory, what waits is on disk as well, and stays there when the end comes first.
    """

    def __init__(
        self,
        name: str,
        transport: Transport,
        retry: Retry,
        queue: SendingQueue,
        signals: Collection[str],
        spool: Spool | None = None,
    ) -> None:
        self.name = name
        self._route = Route(transport)
        self.component = transport.component
        self.signals = frozenset(signals)
        self._news = News(name, transport.endpoint)
        self.watchers: list[Watcher] = self._news.watchers
        self._queue = Queue(queue.max_bytes)
        self._keeper = self._keeper_of(spool) if spool and spool.directory else None
        self._isolation = Isolation(self._queue, self._route)
        self._retry = retry
        self._backoffs: dict[str, Backoff] = {}
        self._deadline = float("inf")
        self._stopping = threading.Event()
        self._pulses = [Pulse(f"export {name}") for _ in range(queue.num_consumers)]
        self._failure: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._run, args=(pulse,), name=pulse.stage, daemon=True) for pulse in self._pulses
        ]

    def _keeper_of(self, spool: Spool) -> Keeper:
        from otelbpf.export.keeper import Keeper  # brings SQLite

        return Keeper(self.name, self._queue, spool, self._news.lost)

    def __enter__(self) -> Self:
        self._route.transport.check()
        if self._keeper:
            self._keeper.start()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def export(self, request: Request) -> None:
        """Queues *request*, if this exporter carries its signal."""
        if request.signal in self.signals and (dropped := self._queue.put(request)):
            reason = SHUTDOWN if self._stopping.is_set() else self._queue.room(request.signal).reason
            self._news.lost(request.signal, reason, dropped)

    def keep_within(self, share: float, signals: Collection[str]) -> None:
        """From now on *share* of the room for what waits in memory is given to each of *signals*, but for a little; what
        is beyond goes, the oldest first."""
        room_bytes = max(LEAST_BYTES, int(share * self._queue.max_bytes))
        for signal, items in self._queue.shrink(self.signals.intersection(signals), room_bytes).items():
            self._news.lost(signal, MEMORY_LIMIT, items)

    def wait_for_room(self, request: Request) -> None:
        """Returns when `export` would take *request* without a loss."""
        if request.signal in self.signals:
            self._queue.wait_for_room(request)

    def follow(
        self, transport: Transport, retry: Retry, queue: SendingQueue, signals: Collection[str], spool: Spool | None
    ) -> None:
        """Goes on with other settings, and with all that waits: it is sent by *transport*, which was checked.

        A request under way ends where it is. Where the spool is and how many threads send stays as it was.
        """
        former, self._route = self._route, Route(transport)
        former.leave()
        self._isolation = Isolation(self._queue, self._route)
        self._news.follow(transport.endpoint)
        self.signals = frozenset(signals)
        self._retry = retry
        self._backoffs.clear()
        if self._keeper and spool:
            self._keeper.follow(spool)
        self._queue.follow(queue.max_bytes)

    def begin_flush(self, deadline: float) -> None:
        """From now on retries are made at once, and until *deadline* (time.monotonic) at the latest."""
        self._deadline = deadline
        self._queue.hurry()

    def flush(self, deadline: float) -> bool:
        """Sends what is queued until *deadline* (time.monotonic), then ends; the rest stays in the spool, or is
        dropped as `shutdown`.

        Says whether everything had its answer in time.
        """
        self.begin_flush(deadline)
        remaining_s = deadline - time.monotonic()
        reserved_s = min(SPOOL_S if self._keeper else JOIN_S, remaining_s / 4)
        in_time = self._queue.wait_until_empty(deadline - reserved_s)
        self._close(deadline)
        return in_time

    def ledger(self) -> dict[str, SignalLedger]:
        return self._queue.ledger()

    def sizes(self) -> dict[str, QueueSize]:
        return self._queue.sizes()

    def spool_size(self) -> SpoolSize | None:
        """How full the spool is; None without one."""
        return self._keeper.size() if self._keeper else None

    def pulses(self) -> list[Pulse]:
        """Those of its threads."""
        return [*self._pulses, *([self._keeper.pulse] if self._keeper else [])]

    @property
    def failure(self) -> BaseException | None:
        """What ended one of its threads, if that was not the end."""
        return self._failure or (self._keeper.failure if self._keeper else None)

    @property
    def is_up(self) -> bool:
        """Whether the peer took, or refused, what it was last sent of every signal."""
        return self._news.is_up

    def _close(self, deadline: float = 0.0) -> None:
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._route.close()
        if self._keeper:
            self._keeper.finish(max(deadline, time.monotonic() + JOIN_S))
        for signal, items in self._queue.close(SHUTDOWN).items():
            self._news.lost(signal, SHUTDOWN, items)
        until = time.monotonic() + JOIN_S
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, until - time.monotonic()))

    def _run(self, pulse: Pulse) -> None:
        try:
            while (entry := self._next(pulse)) is not None:
                timeout_s = self._route.transport.timeout_s
                pulse.beat(timeout_s if math.isfinite(timeout_s) else 0.0)
                self._take_care_of(entry)
            pulse.end()
        except BaseException as failure:  # noqa: BLE001 - kept for the main thread, which ends the agent with it
            self._failure = failure

    def _take_care_of(self, entry: Waiting) -> None:
        try:
            if self._is_loaded(entry) and not self._isolation.halves_in_advance(entry):
                self._send(entry)
        except Exception as error:  # noqa: BLE001 - whatever it is, it costs this request and not the exporter
            if self._queue.settle(entry, dropped=MISTAKE):
                self._news.lost(entry.request.signal, MISTAKE, entry.request.items, described(error))

    def _next(self, pulse: Pulse) -> Waiting | None:
        pulse.rest()
        while not self._stopping.is_set():
            if (entry := self._queue.take(IDLE_S)) is not None:
                return entry
        return None

    def _is_loaded(self, entry: Waiting) -> bool:
        """Whether the body of *entry* is in memory; not so when it cannot be read from disk, which is then dealt with."""
        on_disk_only = bool(entry.row and not entry.request.body and entry.size)
        return not on_disk_only or (self._keeper is not None and self._keeper.load(entry))

    def _send(self, entry: Waiting) -> None:
        deadline = self._deadline
        remaining_s = deadline - time.monotonic()
        route = self._route
        answer = route.send(entry.request, max(0.001, min(route.transport.timeout_s, remaining_s)))
        if isinstance(answer, Accepted):
            self._accepted(entry, answer)
        elif self._stopping.is_set():
            return  # a closed transport says nothing about the peer
        elif route is not self._route:
            self._again(entry, 0.0)  # the former peer's answer says nothing about the present one
        elif answer.too_large:
            self._oversized(entry, answer)
        elif answer.retryable:
            self._failed(entry, answer, ending=deadline != float("inf"))
        else:
            self._refused(entry, answer)

    def _accepted(self, entry: Waiting, answer: Accepted) -> None:
        request = entry.request
        if not self._queue.settle(entry, rejected=answer.rejected):
            return
        self._answered(request.signal)
        self._isolation.accepted(entry, answer.rejected)
        self._news.acknowledged(request)
        if answer.rejected:
            self._news.lost(request.signal, REJECTED, answer.rejected, answer.message)
        elif answer.message:
            self._news.warned(answer.message)

    def _oversized(self, entry: Waiting, failure: Failure) -> None:
        self._answered(entry.request.signal)
        if not self._isolation.halves_too_large(entry):
            self._reject(entry, failure)

    def _refused(self, entry: Waiting, failure: Failure) -> None:
        self._answered(entry.request.signal)
        if not (failure.may_be_one_record and self._isolation.halves_refused(entry)):
            self._reject(entry, failure)

    def _reject(self, entry: Waiting, failure: Failure) -> None:
        signal, items = entry.request.signal, entry.request.items
        rejected = failure.reason == REJECTED
        if self._queue.settle(entry, rejected=items if rejected else 0, dropped="" if rejected else failure.reason):
            self._news.lost(signal, failure.reason, items, failure=failure)

    def _failed(self, entry: Waiting, failure: Failure, *, ending: bool) -> None:
        """*ending*: it was sent after `begin_flush`."""
        signal = entry.request.signal
        self._news.down(signal, failure)
        if self._deadline == float("inf") and self._isolation.suspects(entry, failure):
            self._put_apart(entry, failure)
        elif self._queue.backs_off(signal):  # another request that was under way has failed before
            self._again(entry, 0.0)
        else:
            self._try_later(entry, failure, ending=ending)

    def _put_apart(self, entry: Waiting, failure: Failure) -> None:
        """Halves a request that the peer does not answer, down to the record at fault, which is rejected.

        A single record is believed to be it only when others were accepted meanwhile.
        """
        if self._isolation.halve(entry, entry.family):
            return
        if self._queue.others_pass(entry):
            self._reject(entry, failure)
        else:
            self._queue.steps_aside(entry, self._backoff(entry.request.signal).wait_s(None))

    def _try_later(self, entry: Waiting, failure: Failure, *, ending: bool) -> None:
        signal = entry.request.signal
        backoff = self._backoff(signal)
        wait_s = backoff.wait_s(failure.after_s)
        tried_for_s = time.monotonic() - (entry.first_try or 0.0)
        if self._deadline != float("inf"):
            # On disk it is safe, so it need not be tried until the last moment.
            wait_s = NEVER if entry.row and ending else min(wait_s, FLUSH_RETRY_S)
        if not entry.row and not backoff.allows(wait_s, tried_for_s):
            if self._queue.settle(entry, dropped=GIVEN_UP):
                self._news.lost(signal, GIVEN_UP, entry.request.items, failure.text)
        else:
            self._again(entry, wait_s)

    def _again(self, entry: Waiting, after_s: float) -> None:
        if overflow := self._queue.again(entry, after_s):
            signal = entry.request.signal
            self._news.lost(signal, self._queue.room(signal).reason, overflow)

    def _backoff(self, signal: str) -> Backoff:
        if signal not in self._backoffs:  # one made in vain would be asked of the kernel's generator, each time
            self._backoffs[signal] = Backoff(self._retry)
        return self._backoffs[signal]

    def _answered(self, signal: str) -> None:
        self._backoff(signal).reset()
        self._news.up(signal)
