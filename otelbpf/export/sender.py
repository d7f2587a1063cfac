"""One exporter at work: a queue, threads of its own, and a transport that they send through.

The producer only ever puts into the queue. Whether the peer is there, slow or wrong is these threads' business alone.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Protocol, Self

from otelbpf.export import cut
from otelbpf.export.answer import GIVEN_UP, QUEUE_FULL, REJECTED, SHUTDOWN, Accepted, Failure
from otelbpf.export.backoff import Backoff
from otelbpf.export.diagnose import diagnose
from otelbpf.export.keeper import Keeper
from otelbpf.export.queue import NEVER, Family, Queue
from otelbpf.export.request import Request
from otelbpf.export.route import Route

if TYPE_CHECKING:
    from collections.abc import Collection

    from otelbpf.config import Retry, SendingQueue, Spool
    from otelbpf.export.keeper import SpoolSize
    from otelbpf.export.queue import QueueSize, SignalLedger, Waiting
    from otelbpf.export.route import Transport

log = logging.getLogger("otelbpf.export")

IDLE_S = 60.0
FLUSH_RETRY_S = 0.5
"""Longest wait for a retry while stopping: there is no time for more."""
SUSPECT_AFTER = 4
"""Failures of one request without an answer, after which the peer is asked whether it is well otherwise."""
JOIN_S = 0.2
SPOOL_S = 0.5
"""Kept of the time to stop, to write what is not yet on disk."""
COMPLAINT_INTERVAL_S = 60.0


class Watcher(Protocol):
    """Who wants to know how exporting goes. Called by senders' threads and by the producer; must not wait."""

    def acknowledged(self, exporter: str, request: Request) -> None: ...
    def down(self, exporter: str, sentence: str) -> None: ...
    def up(self, exporter: str) -> None: ...
    def lost(self, exporter: str, signal: str, reason: str, items: int, message: str) -> None: ...


class Complaints:
    """Lets a kind of message pass once a minute, so that a log line never becomes a flood."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}

    def passes(self, kind: str) -> bool:
        now = time.monotonic()
        if now < self._due.get(kind, 0.0):
            return False
        self._due[kind] = now + COMPLAINT_INTERVAL_S
        return True


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
        self.watchers: list[Watcher] = []
        self._queue = Queue(queue.max_bytes)
        self._keeper = Keeper(name, self._queue, spool, self._lose) if spool and spool.directory else None
        self._retry = retry
        self._backoffs: dict[str, Backoff] = {}
        self._complaints = Complaints()
        self._down: set[str] = set()
        self._told_down = False
        self._too_large: dict[str, int] = {}
        self._refuses_all: set[str] = set()
        self._lock = threading.Lock()
        self._deadline = float("inf")
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, name=f"export {name}", daemon=True) for _ in range(queue.num_consumers)
        ]

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
            self._lose(request.signal, SHUTDOWN if self._stopping.is_set() else QUEUE_FULL, dropped, "")

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
        with self._lock:
            former, self._route = self._route, Route(transport)
            self._told_down = False  # what keeps the new peer away is news
        former.leave()
        self.signals = frozenset(signals)
        self._retry = retry
        self._backoffs.clear()
        self._too_large.clear()
        self._refuses_all.clear()
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
        reserved_s = min(SPOOL_S, remaining_s / 4) if self._keeper else 0.0
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

    @property
    def is_up(self) -> bool:
        """Whether the peer took, or refused, what it was last sent of every signal."""
        return not self._down

    def _close(self, deadline: float = 0.0) -> None:
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._route.close()
        if self._keeper:
            self._keeper.finish(max(deadline, time.monotonic() + JOIN_S))
        for signal, items in self._queue.close(SHUTDOWN).items():
            self._lose(signal, SHUTDOWN, items, "")
        until = time.monotonic() + JOIN_S
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, until - time.monotonic()))

    def _run(self) -> None:
        while (entry := self._next()) is not None:
            if self._is_whole(entry):
                self._send(entry)

    def _next(self) -> Waiting | None:
        while not self._stopping.is_set():
            if (entry := self._queue.take(IDLE_S)) is not None:
                return entry
        return None

    def _is_whole(self, entry: Waiting) -> bool:
        """Whether *entry* can be sent as it is: it is in memory, and no larger than what was refused before."""
        if entry.row and not entry.request.body and entry.size and not (self._keeper and self._keeper.load(entry)):
            return False
        return entry.size < self._too_large.get(entry.request.signal, entry.size + 1) or not self._halve(entry)

    def _send(self, entry: Waiting) -> None:
        remaining_s = self._deadline - time.monotonic()
        route = self._route
        answer = route.send(entry.request, max(0.001, min(route.transport.timeout_s, remaining_s)))
        if isinstance(answer, Accepted):
            self._accepted(entry, answer)
        elif self._stopping.is_set():
            return  # a closed transport says nothing about the peer
        elif route is not self._route:
            self._retry_after(entry, 0.0)  # the former peer's answer says nothing about the present one
        elif answer.too_large:
            self._oversized(entry, answer)
        elif answer.retryable:
            self._failed(entry, answer)
        else:
            self._refused(entry, answer)

    def _accepted(self, entry: Waiting, answer: Accepted) -> None:
        request = entry.request
        if not self._queue.settle(entry, rejected=answer.rejected):
            return
        self._answered(request.signal)
        if entry.family is not None:
            entry.family.refused = 0
        if answer.rejected < request.items:
            self._refuses_all.discard(request.signal)
        for watcher in self.watchers:
            watcher.acknowledged(self.name, request)
        if answer.rejected:
            self._lose(request.signal, REJECTED, answer.rejected, answer.message)
        elif answer.message and self._complaints.passes("warning"):
            log.warning("exporter %s: the peer warns: %s", self.name, answer.message)

    def _oversized(self, entry: Waiting, failure: Failure) -> None:
        signal = entry.request.signal
        self._answered(signal)
        self._too_large[signal] = min(entry.size, self._too_large.get(signal, entry.size))
        if not self._halve(entry, entry.family):
            self._reject(entry, failure)

    def _refused(self, entry: Waiting, failure: Failure) -> None:
        self._answered(entry.request.signal)
        if not (failure.may_be_one_record and self._isolate(entry)):
            self._reject(entry, failure)

    def _isolate(self, entry: Waiting) -> bool:
        """Halves what was refused, to find the record at fault, unless the peer refuses whatever it is sent."""
        signal, items = entry.request.signal, entry.request.items
        # The way down to one bad record is that many refusals; after as many without a record taken, all are bad.
        family = entry.family or Family(patience=items.bit_length() + 1)
        family.refused += 1
        if family.refused > family.patience:
            self._refuses_all.add(signal)
        return signal not in self._refuses_all and self._halve(entry, family)

    def _halve(self, entry: Waiting, family: Family | None = None) -> bool:
        parts = cut.halves(entry.request)
        if parts is None:
            return False
        self._queue.split(entry, parts, family)
        return True

    def _reject(self, entry: Waiting, failure: Failure) -> None:
        signal, items = entry.request.signal, entry.request.items
        if failure.reason == REJECTED:
            self._queue.settle(entry, rejected=items)
        else:
            self._queue.settle(entry, dropped=failure.reason)
        self._lose(signal, failure.reason, items, failure.text, failure)

    def _failed(self, entry: Waiting, failure: Failure) -> None:
        signal = entry.request.signal
        self._becomes_down(signal, failure)
        if self._is_suspect(entry, failure):
            self._put_apart(entry, failure)
            return
        if self._queue.backs_off(signal):  # another request that was under way has failed before
            self._retry_after(entry, 0.0)
            return
        backoff = self._backoff(signal)
        wait_s = backoff.wait_s(failure.after_s)
        tried_for_s = time.monotonic() - (entry.first_try or 0.0)
        if self._deadline != float("inf"):
            # On disk it is safe, so it need not be tried until the last moment.
            wait_s = NEVER if entry.row else min(wait_s, FLUSH_RETRY_S)
        if not entry.row and not backoff.allows(wait_s, tried_for_s):
            self._queue.settle(entry, dropped=GIVEN_UP)
            self._lose(signal, GIVEN_UP, entry.request.items, failure.text)
        else:
            self._retry_after(entry, wait_s)

    def _retry_after(self, entry: Waiting, wait_s: float) -> None:
        if overflow := self._queue.again(entry, wait_s):
            self._lose(entry.request.signal, QUEUE_FULL, overflow, "")

    def _is_suspect(self, entry: Waiting, failure: Failure) -> bool:
        """Whether it is *entry* that the peer does not survive: it has failed often, and an empty request does not."""
        if entry.failures < SUSPECT_AFTER or not failure.without_answer or self._deadline != float("inf"):
            return False
        empty = Request(entry.request.signal, b"", 0, 0)
        return isinstance(self._route.send(empty, self._route.transport.timeout_s), Accepted)

    def _put_apart(self, entry: Waiting, failure: Failure) -> None:
        """Halves a request that the peer does not answer, down to the record at fault, which is rejected.

        A single record is believed to be it only when others were accepted meanwhile.
        """
        if self._halve(entry, entry.family):
            return
        if self._queue.others_pass(entry):
            self._reject(entry, failure)
        else:
            self._queue.steps_aside(entry, self._backoff(entry.request.signal).wait_s(None))

    def _backoff(self, signal: str) -> Backoff:
        return self._backoffs.setdefault(signal, Backoff(self._retry))

    def _answered(self, signal: str) -> None:
        self._backoff(signal).reset()
        self._becomes_up(signal)

    def _becomes_up(self, signal: str) -> None:
        with self._lock:
            was_down = signal in self._down
            self._down.discard(signal)
            is_up = was_down and not self._down
            self._told_down = self._told_down and not is_up
        if is_up:
            log.warning("exporter %s: the peer answers again", self.name)
            for watcher in self.watchers:
                watcher.up(self.name)

    def _becomes_down(self, signal: str, failure: Failure) -> None:
        with self._lock:
            is_told, self._told_down = self._told_down, True
            self._down.add(signal)
        if is_told:
            return
        sentence = diagnose(failure, self._route.transport.endpoint)
        log.warning("exporter %s: %s; trying again", self.name, sentence)
        for watcher in self.watchers:
            watcher.down(self.name, sentence)

    def _lose(self, signal: str, reason: str, items: int, message: str, failure: Failure | None = None) -> None:
        if reason != SHUTDOWN and self._complaints.passes(f"{signal} {reason}"):
            # The peer is looked at once for each complaint, not for each request that it refuses.
            why = diagnose(failure, self._route.transport.endpoint) if failure else message
            log.warning("exporter %s: %d %s lost (%s)%s", self.name, items, signal, reason, why and f": {why}")
        for watcher in self.watchers:
            watcher.lost(self.name, signal, reason, items, message)
