"""Finds the record that a peer refuses, or does not survive, by halving the request that it is in.

Nothing here is lost or counted: a request either goes on as its halves, or is said to be at fault as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelbpf.export import cut
from otelbpf.export.answer import Accepted
from otelbpf.export.request import Request
from otelbpf.export.waiting import Family

if TYPE_CHECKING:
    from otelbpf.export.answer import Failure
    from otelbpf.export.queue import Queue
    from otelbpf.export.route import Route
    from otelbpf.export.waiting import Waiting

SUSPECT_AFTER = 4
"""Failures of one request without an answer, after which the peer is asked whether it is well otherwise."""


class Isolation:
    """Halves what is in *queue* by what the peer of *route* says to it. For the threads of one sender."""

    def __init__(self, queue: Queue, route: Route) -> None:
        self._queue = queue
        self._route = route
        self._too_large: dict[str, int] = {}
        """Signal → the smallest request that was."""
        self._refuses_all: set[str] = set()

    def accepted(self, entry: Waiting, rejected: int) -> None:
        """The peer took *entry* but for *rejected* items."""
        if entry.family is not None:
            entry.family.refused = 0
        if rejected < entry.request.items:
            self._refuses_all.discard(entry.request.signal)

    def halves_in_advance(self, entry: Waiting) -> bool:
        """Whether *entry* was halved because one no larger was too large before."""
        limit = self._too_large.get(entry.request.signal)
        return limit is not None and entry.size >= limit and self.halve(entry)

    def halves_too_large(self, entry: Waiting) -> bool:
        """Whether *entry*, which the peer says is too large, was halved."""
        signal = entry.request.signal
        self._too_large[signal] = min(entry.size, self._too_large.get(signal, entry.size))
        return self.halve(entry, entry.family)

    def halves_refused(self, entry: Waiting) -> bool:
        """Whether *entry*, which was refused, was halved; not so when the peer refuses whatever it is sent."""
        signal, items = entry.request.signal, entry.request.items
        # The way down to one bad record is that many refusals; after as many without a record taken, all are bad.
        family = entry.family or Family(patience=items.bit_length() + 1)
        family.refused += 1
        if family.refused > family.patience:
            self._refuses_all.add(signal)
        return signal not in self._refuses_all and self.halve(entry, family)

    def suspects(self, entry: Waiting, failure: Failure) -> bool:
        """Whether it is *entry* that the peer does not survive: it has failed often, and an empty request does not."""
        if entry.failures < SUSPECT_AFTER or not failure.without_answer:
            return False
        empty = Request(entry.request.signal, b"", 0, 0)
        return isinstance(self._route.send(empty, self._route.transport.timeout_s), Accepted)

    def halve(self, entry: Waiting, family: Family | None = None) -> bool:
        """Whether *entry* goes on as two; a single record does not."""
        parts = cut.halves(entry.request)
        if parts is None:
            return False
        self._queue.split(entry, parts, family)
        return True
