"""One kind of object, listed and then watched without a gap: a streaming list, or a list and a watch behind it.

A watch is opened when it is due and read when something is there; it never waits except for the head of an answer.
Whatever goes wrong closes it and makes it due again later. What a list did not bring is gone.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from msgspec import Raw
from urllib3.exceptions import HTTPError

from otelbpf.enrich.kubernetes import listing, objects
from otelbpf.enrich.kubernetes.pace import SOON, Pace
from otelbpf.enrich.kubernetes.refusals import FORBIDDEN, GONE, NO_ANSWER, UNAUTHORIZED, ApiError
from otelbpf.enrich.kubernetes.refusals import sentence as in_words
from otelbpf.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelbpf.enrich.kubernetes.api import Api
    from otelbpf.enrich.kubernetes.listing import Resource
    from otelbpf.enrich.kubernetes.stream import Stream
    from otelbpf.enrich.kubernetes.tables import Table

RENEWED_AFTER_S = (300, 600)
"""The server ends a watch after a time between these, so that all watches of a cluster do not end at once."""
SILENT_S = 100.0
"""A server sends a bookmark at least every 75 s: one that says nothing for longer is not there any more."""
SETTLED_S = 1.0
"""A server that does not take back within this time that a watch goes on has answered."""
TOO_MANY_REQUESTS, UNAVAILABLE = 429, 503
NO_STREAMING = (400, 422)
TRIES_OF_A_VERSION = 5
"""A server that was set back to an earlier state never reaches the version from which we want to go on."""
NOT_ABOUT_VERSION = (NO_ANSWER, UNAUTHORIZED, FORBIDDEN, TOO_MANY_REQUESTS, UNAVAILABLE)
GARBAGE_LINES = 100
"""In a row, until a stream is given up."""
TOLD, MARK, REFUSAL, ANY = map(objects.decoder, (objects.Told[Raw], objects.Mark, objects.Refusal, objects.AnyObject))


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
    beyond: int = 0
    """Objects that were not taken in, as the table has no room for more."""


@dataclass(slots=True, eq=False)
class Watch:
    """Keeps *table* as the server has it. All methods are called by one thread."""

    resource: Resource
    table: Table
    api: Api
    limit: int
    """Objects kept at most."""
    due_s: float = 0.0
    """When it wants to be opened, on time.monotonic's clock."""
    most: int = 0
    """Beyond so many objects it is `too_many` and stops; 0: no limit."""
    health: Health = field(default_factory=Health)
    stream: Stream | None = None
    too_many: bool = False
    tell: Callable[[Watch, str], None] | None = None
    """Told each time that it is not answered any more (with the reason) and is again (with an empty text)."""
    _told: Any = field(init=False)
    """Decodes a line about its kind of object."""
    _version: str = ""
    _listed: set[str] | None = None
    _can_stream: bool = True
    _heard_s: float = 0.0
    _pace: Pace = field(default_factory=Pace)
    _misses: int = 0
    """Refusals since something went well, of those that may mean the version."""
    _garbage: int = 0
    """Lines that could not be read since the last that could."""

    def __post_init__(self) -> None:
        self._told = objects.decoder(objects.Told[self.table.kind])  # type: ignore[name-defined]  # known at run time

    @property
    def tried(self) -> bool:
        """Whether it has listed all there is, or failed to."""
        return self.health.listed or self.health.failures > 0 or self.too_many

    @property
    def listing(self) -> bool:
        """Whether a list is coming in."""
        return self._listed is not None and self.stream is not None

    def open(self) -> None:
        """Asks the server; afterwards there is a stream to read, or another time at which it is due."""
        try:
            if self.most and not self.health.listed:
                self._look_at_size(listing.count(self.api, self.resource))
            if not self._version and not self._can_stream and not self.too_many:
                self._list()
            if self.too_many:
                return
            self.stream = self.api.stream(self.resource.path, self._query())
        except ApiError as error:
            self._refused(error)
        except objects.UNREADABLE:
            self._fail("the answer is not what an API server says")
        else:
            self._listed = None if self._version else set()
            self._pace.opened()
            self._heard_s = time.monotonic()
            if self.stream.ended:
                self._ended()

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
        except (OSError, HTTPError) as error:
            self._fail(f"the connection broke: {in_words(error)}")
        except ProtocolError as error:
            self._fail(str(error))

    @property
    def is_complete(self) -> bool:
        """Whether all that there is now is in the table."""
        health = self.health
        return health.listed and not (health.down_since_ns or health.beyond or health.undecodable)

    def check(self, now_s: float) -> None:
        """Gives up a stream that says nothing any more; one that goes on is answered."""
        if self.stream is None:
            return
        if now_s - self._heard_s > SILENT_S:
            self._can_stream = self._can_stream and self._listed is None  # a list that never ends is none
            self._fail(f"no word from the API server for {SILENT_S:.0f} s")
        elif self._listed is None and now_s - self._pace.opened_s > SETTLED_S:
            self.table.heard_ns = 0
            self._well()

    def close(self) -> None:
        """Ends the stream, if there is one."""
        if self.stream is not None:
            self.stream.close()
            self.stream = None
            silent_s = time.monotonic() - self._heard_s
            self.table.heard_ns = self.table.heard_ns or time.time_ns() - int(silent_s * 1e9)

    def _query(self) -> dict[str, str]:
        ends_after_s = random.randint(*RENEWED_AFTER_S)  # noqa: S311 - no secret
        query = {"watch": "1", "allowWatchBookmarks": "true", "timeoutSeconds": str(ends_after_s)}
        if self._version:
            return query | self.resource.query | {"resourceVersion": self._version}
        return query | self.resource.query | {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}

    def _list(self) -> None:
        """Lists without streaming."""
        seen: set[str] = set()
        version = ""
        decoder = objects.decoder(self.table.kind)
        for page in listing.pages(self.api, self.resource):
            for raw in page.items or ():
                try:
                    found = decoder.decode(raw)
                    self._put(found)
                except objects.UNREADABLE:
                    self.health.undecodable += 1
                    found = ANY.decode(raw)
                seen.add(found.metadata.uid)
            version = page.metadata.resource_version
            self._look_at_size(len(self.table.uids()))
            if self.too_many:
                return
        self._complete(seen, version)

    def _take(self, line: bytes) -> None:
        try:
            told = self._told.decode(line)
        except objects.UNREADABLE:
            self._take_other(line)
            return
        self._garbage = 0
        if told.type in ("ADDED", "MODIFIED"):
            self._put(told.object)
            if self.most:
                self._look_at_size(len(self.table.uids()))
        elif told.type == "DELETED":
            self._change(self.table.gone, told.object.metadata.uid)
        self._passed(told.object.metadata)

    def _take_other(self, line: bytes) -> None:
        """A line that is not about an object, or about one that cannot be read."""
        try:
            told = TOLD.decode(line)
            if told.type == "BOOKMARK":
                self._bookmark(MARK.decode(told.object).metadata)
            elif told.type == "ERROR":
                said = REFUSAL.decode(told.object)
                self._refused(ApiError(said.code, said.message or said.reason))
            else:
                self.health.undecodable += 1
                self._take_unreadable(told)
        except objects.UNREADABLE:
            self.health.undecodable += 1
            kind = self.stream.kind if self.stream is not None else ""
            self._fail(f"the answer ({kind or 'of no type'}) is not what an API server says")

    def _take_unreadable(self, told: objects.Told[Raw]) -> None:
        """What was known of the object is left as it is, unless it was deleted. Raises UNREADABLE if nobody knows it."""
        self._garbage += 1
        try:
            metadata = ANY.decode(told.object).metadata
        except objects.UNREADABLE:
            if told.type == "ADDED" and self._garbage < GARBAGE_LINES:
                return
            self._version = ""  # whatever it was about, a new list tells
            raise
        if told.type == "DELETED":
            self._change(self.table.gone, metadata.uid)
        self._passed(metadata)

    def _passed(self, metadata: objects.Identified) -> None:
        """Goes on from here, should the stream break; while listing there is no such place."""
        self.health.changes += 1
        if self._listed is not None:
            self._listed.add(metadata.uid)
        else:
            self._version = metadata.resource_version or self._version

    def _put(self, found: Any) -> None:
        known = self.table.uids()
        if len(known) >= self.limit and found.metadata.uid not in known:
            self.health.beyond += 1
        else:
            self._change(self.table.put, found)

    def _change(self, how: Callable[[Any, int], None], what: Any) -> None:
        """A mistake of ours about one object costs that object, and not the names of all others."""
        try:
            how(what, time.time_ns())
        except Exception:  # noqa: BLE001
            self.health.undecodable += 1

    def _bookmark(self, metadata: objects.ListMetadata) -> None:
        self._garbage = 0
        if self._listed is None:
            self._version = metadata.resource_version or self._version
        elif (metadata.annotations or {}).get(objects.INITIAL_EVENTS_END) == "true":
            self._complete(self._listed, metadata.resource_version)
            self._listed = None

    def _complete(self, seen: set[str], version: str) -> None:
        """A list is whole: what it did not bring is not there any more."""
        for uid in set(self.table.uids()) - seen:
            self._change(self.table.gone, uid)
        self.table.heard_ns = 0
        self._version = version
        self.health.listed = True
        self.health.lists += 1
        self._well()

    def _look_at_size(self, count: int) -> None:
        if self.most and count > self.most:
            self.too_many = True
            self.close()

    def _well(self) -> None:
        self._misses = 0
        if self.health.down_since_ns:
            self.health.down_since_ns, self.health.reason = 0, ""
            self._tell("")

    def _ended(self) -> None:
        """The server closes a watch after its time: it goes on from where it was."""
        self._heard_s = time.monotonic()
        lasted_s = self._heard_s - self._pace.opened_s
        self.close()
        if self._listed is not None:
            self._fail("the list ended in the middle")
        elif lasted_s < SETTLED_S:
            self._fail("the API server ends the watch at once")
        else:
            self.due_s = self._pace.again_s(share=SOON)

    def _refused(self, error: ApiError) -> None:
        self.close()
        if error.status == GONE and self._version:  # what is missing between then and now is found out by listing
            self._version = ""
            self.due_s = self._pace.again_s(share=SOON)
        elif error.status in NO_STREAMING and self._can_stream and not self._version:
            self._can_stream = False
            self.due_s = 0.0
        else:
            self._misses += error.status not in NOT_ABOUT_VERSION
            if self._misses == TRIES_OF_A_VERSION:
                self._version = ""
            self._fail(error.reason, error.wait_s)

    def _fail(self, reason: str, asked_s: float | None = None) -> None:
        self.close()
        self._listed = None
        health = self.health
        health.failures += 1
        self.due_s = self._pace.again_s(asked_s=asked_s)
        if not health.down_since_ns:
            health.down_since_ns, health.reason = time.time_ns(), reason
            self._tell(reason)
        health.reason = reason

    def _tell(self, reason: str) -> None:
        if self.tell is not None:
            self.tell(self, reason)
