"""One exporter at work: a queue, a thread of its own, and a transport that it sends through.

The producer only ever puts into the queue. Whether the peer is there, slow or wrong is this thread's business alone.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Protocol, Self

from otelbpf.export.answer import GIVEN_UP, QUEUE_FULL, REJECTED, SHUTDOWN, Accepted, Answer, Failure
from otelbpf.export.backoff import Backoff
from otelbpf.export.diagnose import diagnose
from otelbpf.export.queue import Queue

if TYPE_CHECKING:
    from collections.abc import Collection

    from otelbpf.config import Retry
    from otelbpf.export.endpoint import Endpoint
    from otelbpf.export.queue import QueueSize, SignalLedger, Waiting
    from otelbpf.export.request import Request

log = logging.getLogger("otelbpf.export")

IDLE_S = 60.0
FLUSH_RETRY_S = 0.5
"""Longest wait for a retry while stopping: there is no time for more."""
JOIN_S = 0.2
COMPLAINT_INTERVAL_S = 60.0


class Transport(Protocol):
    """A way to a peer. A context manager: entered and used by the sender's thread alone."""

    component: str
    """otel.component.type."""
    timeout_s: float

    @property
    def endpoint(self) -> Endpoint | None:
        """The peer; None when it is none on the network."""

    def check(self) -> None:
        """Looks at what the settings name, without the network; raises ConfigError. Called before it is entered."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def close(self) -> None:
        """Ends it from another thread: a `send` under way ends as soon as it can. May be called more than once."""

    def send(self, request: Request, timeout_s: float) -> Answer:
        """One try, of at most *timeout_s*; whatever goes wrong is a Failure."""


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
    """Exports to one peer. A context manager; `export` never waits, `flush` ends it."""

    def __init__(self, name: str, transport: Transport, retry: Retry, max_bytes: int, signals: Collection[str]) -> None:
        self.name = name
        self.transport = transport
        self.component = transport.component
        self.signals = frozenset(signals)
        self.watchers: list[Watcher] = []
        self._queue = Queue(max_bytes)
        self._retry = retry
        self._backoffs: dict[str, Backoff] = {}
        self._complaints = Complaints()
        self._down: set[str] = set()
        self._deadline = float("inf")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"export {name}", daemon=True)

    def __enter__(self) -> Self:
        self.transport.check()
        self._thread.start()
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

    def begin_flush(self, deadline: float) -> None:
        """From now on retries are made at once, and until *deadline* (time.monotonic) at the latest."""
        self._deadline = deadline
        self._queue.hurry()

    def flush(self, deadline: float) -> bool:
        """Sends what is queued until *deadline* (time.monotonic), then ends; the rest is dropped as `shutdown`.

        Says whether everything had its answer in time.
        """
        self.begin_flush(deadline)
        in_time = self._queue.wait_until_empty(deadline)
        self._close()
        return in_time

    def ledger(self) -> dict[str, SignalLedger]:
        return self._queue.ledger()

    def sizes(self) -> dict[str, QueueSize]:
        return self._queue.sizes()

    @property
    def is_up(self) -> bool:
        """Whether the peer took, or refused, what it was last sent of every signal."""
        return not self._down

    def _close(self) -> None:
        if self._stopping.is_set():
            return
        self._stopping.set()
        for signal, items in self._queue.close(SHUTDOWN).items():
            self._lose(signal, SHUTDOWN, items, "")
        self.transport.close()
        if self._thread.is_alive():
            self._thread.join(JOIN_S)

    def _run(self) -> None:
        # Opened for the first request only: what it imports must not compete with probes being attached.
        entry = self._next()
        if entry is None:
            return
        with self.transport:
            while entry is not None:
                self._send(entry)
                entry = self._next()

    def _next(self) -> Waiting | None:
        while not self._stopping.is_set():
            if (entry := self._queue.take(IDLE_S)) is not None:
                return entry
        return None

    def _send(self, entry: Waiting) -> None:
        remaining_s = self._deadline - time.monotonic()
        answer = self.transport.send(entry.request, max(0.001, min(self.transport.timeout_s, remaining_s)))
        if self._stopping.is_set():
            return  # counted as dropped already, and a closed transport says nothing about the peer
        if isinstance(answer, Accepted):
            self._accepted(entry, answer)
        elif answer.retryable:
            self._failed(entry, answer)
        else:
            self._refused(entry, answer)

    def _accepted(self, entry: Waiting, answer: Accepted) -> None:
        request = entry.request
        self._queue.settle(entry, rejected=answer.rejected)
        self._backoff(request.signal).reset()
        self._becomes_up(request.signal)
        for watcher in self.watchers:
            watcher.acknowledged(self.name, request)
        if answer.rejected:
            self._lose(request.signal, REJECTED, answer.rejected, answer.message)
        elif answer.message and self._complaints.passes("warning"):
            log.warning("exporter %s: the peer warns: %s", self.name, answer.message)

    def _refused(self, entry: Waiting, failure: Failure) -> None:
        request = entry.request
        if failure.reason == REJECTED:
            self._queue.settle(entry, rejected=request.items)
        else:
            self._queue.settle(entry, dropped=failure.reason)
        self._backoff(request.signal).reset()
        self._becomes_up(request.signal)
        self._lose(request.signal, failure.reason, request.items, failure.text, failure)

    def _failed(self, entry: Waiting, failure: Failure) -> None:
        self._becomes_down(entry.request.signal, failure)
        backoff = self._backoff(entry.request.signal)
        wait_s = backoff.wait_s(failure.after_s)
        if self._deadline != float("inf"):
            wait_s = min(wait_s, FLUSH_RETRY_S)
        tried_for_s = time.monotonic() - (entry.first_try or 0.0)
        if not backoff.allows(wait_s, tried_for_s):
            self._queue.settle(entry, dropped=GIVEN_UP)
            self._lose(entry.request.signal, GIVEN_UP, entry.request.items, failure.text)
        elif overflow := self._queue.again(entry, wait_s):
            self._lose(entry.request.signal, QUEUE_FULL, overflow, "")

    def _backoff(self, signal: str) -> Backoff:
        return self._backoffs.setdefault(signal, Backoff(self._retry))

    def _becomes_up(self, signal: str) -> None:
        if signal not in self._down:
            return
        self._down.discard(signal)
        if not self._down:
            log.warning("exporter %s: the peer answers again", self.name)
            for watcher in self.watchers:
                watcher.up(self.name)

    def _becomes_down(self, signal: str, failure: Failure) -> None:
        was_up = self.is_up
        self._down.add(signal)
        if not was_up:
            return
        sentence = diagnose(failure, self.transport.endpoint)
        log.warning("exporter %s: %s; trying again", self.name, sentence)
        for watcher in self.watchers:
            watcher.down(self.name, sentence)

    def _lose(self, signal: str, reason: str, items: int, message: str, failure: Failure | None = None) -> None:
        if reason != SHUTDOWN and self._complaints.passes(f"{signal} {reason}"):
            # The peer is looked at once for each complaint, not for each request that it refuses.
            why = diagnose(failure, self.transport.endpoint) if failure else message
            log.warning("exporter %s: %d %s lost (%s)%s", self.name, items, signal, reason, why and f": {why}")
        for watcher in self.watchers:
            watcher.lost(self.name, signal, reason, items, message)
