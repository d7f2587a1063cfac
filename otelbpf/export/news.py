"""How exporting goes, told to those who watch and, so seldom that it is no flood, to the log."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Protocol

from otelbpf.export.answer import SHUTDOWN
from otelbpf.export.diagnose import diagnose

if TYPE_CHECKING:
    from otelbpf.export.answer import Failure
    from otelbpf.export.endpoint import Endpoint
    from otelbpf.export.request import Request

log = logging.getLogger("otelbpf.export")

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


class News:
    """What is told of the exporter *name*, whose peer is at *endpoint*. For any thread."""

    def __init__(self, name: str, endpoint: Endpoint | None) -> None:
        self.name = name
        self.watchers: list[Watcher] = []
        self._endpoint = endpoint
        self._complaints = Complaints()
        self._down: set[str] = set()
        self._told_down = False
        self._lock = threading.Lock()

    @property
    def is_up(self) -> bool:
        """Whether the peer took, or refused, what it was last sent of every signal."""
        return not self._down

    def follow(self, endpoint: Endpoint | None) -> None:
        """The peer is another from now on: what keeps it away is news."""
        with self._lock:
            self._endpoint = endpoint
            self._told_down = False

    def acknowledged(self, request: Request) -> None:
        for watcher in self.watchers:
            watcher.acknowledged(self.name, request)

    def warned(self, message: str) -> None:
        """The peer took everything and has something to say."""
        if self._complaints.passes("warning"):
            log.warning("exporter %s: the peer warns: %s", self.name, message)

    def up(self, signal: str) -> None:
        """The peer answered a request of *signal*."""
        with self._lock:
            was_down = signal in self._down
            self._down.discard(signal)
            is_up = was_down and not self._down
            self._told_down = self._told_down and not is_up
        if is_up:
            log.warning("exporter %s: the peer answers again", self.name)
            for watcher in self.watchers:
                watcher.up(self.name)

    def down(self, signal: str, failure: Failure) -> None:
        """The peer did not answer a request of *signal*, or wants it later."""
        with self._lock:
            is_told, self._told_down = self._told_down, True
            self._down.add(signal)
        if is_told:
            return
        sentence = diagnose(failure, self._endpoint)
        log.warning("exporter %s: %s; trying again", self.name, sentence)
        for watcher in self.watchers:
            watcher.down(self.name, sentence)

    def lost(self, signal: str, reason: str, items: int, message: str = "", failure: Failure | None = None) -> None:
        """*items* ended otherwise than with the peer; *failure* is its answer, if that is why."""
        if reason != SHUTDOWN and self._complaints.passes(f"{signal} {reason}"):
            # The peer is looked at once for each complaint, not for each request that it refuses.
            why = diagnose(failure, self._endpoint) if failure else message
            log.warning("exporter %s: %d %s lost (%s)%s", self.name, items, signal, reason, why and f": {why}")
        for watcher in self.watchers:
            watcher.lost(self.name, signal, reason, items, message or (failure.text if failure else ""))
