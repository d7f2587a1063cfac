"""One kind of object, listed and then watched without a gap: a streaming list, or a list and a watch behind it.

A watch is opened when it is due and read when something is there; it never waits except for the head of an answer.
Whatever goes wrong closes it and makes it due again later. What a list did not bring is gone.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
from urllib3.exceptions import HTTPError

from otelbpf.config import Retry
from otelbpf.enrich.kubernetes import objects
from otelbpf.enrich.kubernetes.api import ApiError
from otelbpf.errors import ProtocolError
from otelbpf.export.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelbpf.enrich.kubernetes.api import Api
    from otelbpf.enrich.kubernetes.stream import Stream
    from otelbpf.enrich.kubernetes.tables import Table

PAGE_OBJECTS = 500
RENEWED_AFTER_S = (300, 600)
"""The server ends a watch after a time between these, so that all watches of a cluster do not end at once."""
SILENT_S = 150.0
"""A server sends a bookmark a minute: one that says nothing for longer is not there any more."""
GONE = 410
NO_STREAMING = (400, 422)
TRIES_OF_A_VERSION = 5
"""A server that was set back to an earlier state never reaches the version from which we want to go on."""
TOLD, MARK, REFUSAL, PAGE = map(objects.decoder, (objects.Told, objects.Mark, objects.Refusal, objects.Page))
BACKOFF = Retry(initial_interval=0.5, randomization_factor=0.5, multiplier=2.0, max_interval=30.0)


@dataclass(frozen=True, slots=True)
class Resource:
    """What to watch. *selector* narrows it to few objects, which may then be listed at once."""

    name: str
    path: str
    selector: str = ""


@dataclass(slots=True)
class Health:
    """How a watch fares."""

    listed: bool = False
    """Whether all that there is has been seen once."""
    down_since_ns: int = 0
    """Unix time; 0 while it is answered."""
    reason: str = ""
    failures: int = 0
    lists: int = 0
    changes: int = 0
    undecodable: int = 0


@dataclass(slots=True, eq=False)
class Watch:
    """Keeps *table* as the server has it. All methods are called by one thread."""

    resource: Resource
    table: Table
    api: Api
    due_s: float = 0.0
    """When it wants to be opened, on time.monotonic's clock."""
    most: int = 0
    """Beyond so many objects it is `too_many` and stops; 0: no limit."""
    health: Health = field(default_factory=Health)
    stream: Stream | None = None
    too_many: bool = False
    tell: Callable[[Watch, str], None] | None = None
    """Told each time that it is not answered any more (with the reason) and is again (with an empty text)."""
    _version: str = ""
    _listed: set[str] | None = None
    _can_stream: bool = True
    _heard_s: float = 0.0
    _backoff: Backoff = field(default_factory=lambda: Backoff(BACKOFF))
    _misses: int = 0
    """Failures since something went well."""

    @property
    def tried(self) -> bool:
        """Whether it has listed all there is, or failed to."""
        return self.health.listed or self.health.failures > 0

    def open(self) -> None:
        """Asks the server; afterwards there is a stream to read, or another time at which it is due."""
        try:
            if not self._version and not self._can_stream:
                self._list()
            if self.too_many:
                return
            self.stream = self.api.stream(self.resource.path, self._query())
            self._listed = None if self._version else set()
            self._heard_s = time.monotonic()
        except ApiError as error:
            self._refused(error)
        except (msgspec.MsgspecError, HTTPError, OSError) as error:
            self._fail(f"{self.resource.name}: an answer that is none: {error}")

    def read(self) -> None:
        """Takes in what is there."""
        stream = self.stream
        if stream is None:
            return
        try:
            for line in stream.lines():
                self._heard_s = time.monotonic()
                self._take(line)
                if self.stream is not stream:  # closed for what was in the line
                    return
            if stream.ended:
                self._ended()
        except (OSError, ProtocolError, HTTPError) as error:
            self._fail(f"the connection broke: {error}")

    def check(self, now_s: float) -> None:
        """Gives up a stream that says nothing any more."""
        if self.stream is not None and now_s - self._heard_s > SILENT_S:
            self._fail(f"no word from the API server for {SILENT_S:.0f} s")

    def close(self) -> None:
        """Ends the stream, if there is one."""
        if self.stream is not None:
            self.stream.close()
            self.stream = None

    def _query(self) -> dict[str, str]:
        query = {"watch": "1", "allowWatchBookmarks": "true", "timeoutSeconds": str(random.randint(*RENEWED_AFTER_S))}  # noqa: S311 - no secret
        if self.resource.selector:
            query["fieldSelector"] = self.resource.selector
        if self._version:
            return query | {"resourceVersion": self._version}
        return query | {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}

    def _list(self) -> None:
        """Lists without streaming: this node's objects from the server's cache, a cluster's in pages."""
        few = bool(self.resource.selector)
        query = (
            {"fieldSelector": self.resource.selector, "resourceVersion": "0"} if few else {"limit": str(PAGE_OBJECTS)}
        )
        seen: set[str] = set()
        while True:
            page = PAGE.decode(self.api.get(self.resource.path, query))
            for raw in page.items or ():
                seen.add(self._put(raw).uid)
            self._look_at_size(len(self.table.uids()))
            if self.too_many:
                return
            if not page.metadata.continue_:
                break
            query["continue"] = page.metadata.continue_
        self._complete(seen, page.metadata.resource_version)

    def _take(self, line: bytes) -> None:
        try:
            told = TOLD.decode(line)
        except msgspec.DecodeError:
            self.health.undecodable += 1
            self._fail("the answer is not JSON")
            return
        if told.type in ("ADDED", "MODIFIED"):
            self.health.changes += 1
            metadata = self._put(told.object)
            if self._listed is not None:
                self._listed.add(metadata.uid)
            else:
                self._version = metadata.resource_version
            self._look_at_size(len(self.table.uids()))
        elif told.type == "DELETED":
            self.health.changes += 1
            metadata = MARK.decode(told.object).metadata
            self.table.gone(metadata.uid, time.time_ns())
            self._version = metadata.resource_version if self._listed is None else ""
        elif told.type == "BOOKMARK":
            self._bookmark(MARK.decode(told.object).metadata)
        elif told.type == "ERROR":
            said = REFUSAL.decode(told.object)
            self._refused(ApiError(said.code, said.message or said.reason))

    def _put(self, raw: bytes | msgspec.Raw) -> objects.Metadata:
        """What the object says of itself; one that cannot be read leaves what was known of it as it is."""
        try:
            return self.table.put(raw, time.time_ns())
        except msgspec.DecodeError:
            self.health.undecodable += 1
            metadata: objects.Metadata = MARK.decode(raw).metadata
            return metadata

    def _bookmark(self, metadata: objects.Metadata) -> None:
        if self._listed is not None:
            if (metadata.annotations or {}).get(objects.INITIAL_EVENTS_END) == "true":
                self._complete(self._listed, metadata.resource_version)
                self._listed = None
            return
        self._version = metadata.resource_version

    def _complete(self, seen: set[str], version: str) -> None:
        """A list is whole: what it did not bring is not there any more."""
        now_ns = time.time_ns()
        for uid in set(self.table.uids()) - seen:
            self.table.gone(uid, now_ns)
        self._version = version
        self.health.listed = True
        self.health.lists += 1
        self._well()

    def _look_at_size(self, count: int) -> None:
        if self.most and count > self.most:
            self.too_many = True
            self.close()

    def _well(self) -> None:
        self._backoff.reset()
        self._misses = 0
        if self.health.down_since_ns:
            self.health.down_since_ns, self.health.reason = 0, ""
            self._tell("")

    def _ended(self) -> None:
        """The server closes a watch after its time: it goes on from where it was."""
        self.close()
        if self._listed is not None:
            self._fail("the list ended in the middle")
            return
        self.due_s = time.monotonic() + self._backoff.wait_s(None) / 5
        self._well()

    def _refused(self, error: ApiError) -> None:
        self.close()
        if error.status == GONE:  # what is missing between then and now is found out by listing
            self._version = ""
            self.due_s = time.monotonic() + self._backoff.wait_s(None) / 5
        elif error.status in NO_STREAMING and self._can_stream and not self._version:
            self._can_stream = False
            self.due_s = 0.0
        else:
            self._fail(error.reason)

    def _fail(self, reason: str) -> None:
        self.close()
        self._listed = None
        self._misses += 1
        if self._misses == TRIES_OF_A_VERSION:
            self._version = ""
        health = self.health
        health.failures += 1
        self.due_s = time.monotonic() + self._backoff.wait_s(None)
        if not health.down_since_ns:
            health.down_since_ns, health.reason = time.time_ns(), reason
            self._tell(reason)
        health.reason = reason

    def _tell(self, reason: str) -> None:
        if self.tell is not None:
            self.tell(self, reason)
