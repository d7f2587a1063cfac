"""How exporting goes: for those who watch it and, seldom enough not to flood it, for the log."""

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

    def forget(self, kind: str) -> None:
        """The next of *kind* passes."""
        self._due.pop(kind, None)


class News:
    """What is told of the exporter *name*, whose peer is at *endpoint*. For any thread."""

    def __init__(self, name: str, endpoint: Endpoint | None) -> None:
        self.name = name
        self.watchers: list[Watcher] = []
        self._endpoint = endpoint
        self._complaints = Complaints()
        self._down: set[str] = set()
        self._told = False
        """Whether those who watch know that it is down."""
        self._said = False
        """Whether it is in the log."""
        self._lock = threading.Lock()

    @property
    def is_up(self) -> bool:
        """Whether the peer took, or refused, what it was last sent of every signal."""
        return not self._down

    def follow(self, endpoint: Endpoint | None) -> None:
        """The peer is another from now on: what keeps it away is news."""
        with self._lock:
            self._endpoint = endpoint
            self._told = self._said = False
            self._complaints.forget("down")

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
            is_back = was_down and not self._down
            say = is_back and self._said
            if is_back:
                self._told = self._said = False
        if say:
            log.warning("exporter %s: the peer answers again", self.name)
        if is_back:
            for watcher in self.watchers:
                watcher.up(self.name)

    def down(self, signal: str, failure: Failure) -> None:
        """The peer did not answer a request of *signal*, or wants it later. Called at each such try.

        A peer that comes and goes is in the log once a minute, and is asked what is wrong no more often: that takes
        seconds in which nothing is sent.
        """
        with self._lock:
            self._down.add(signal)
            tell, self._told = not self._told, True
            say = not self._said and self._complaints.passes("down")
            self._said |= say
        if not (tell or say):
            return
        sentence = diagnose(failure, self._endpoint, ask=say)
        if say:
            log.warning("exporter %s: %s; trying again", self.name, sentence)
        if tell:
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
