"""The account of every item that was given to one exporter, signal by signal.

    made + recovered = accepted + rejected + dropped + queued + spooled

at any moment, where a request that is being sent is still queued, or spooled when it is on disk too.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otelbpf.export.waiting import Waiting


@dataclass(frozen=True, slots=True)
class SignalLedger:
    """The items of one signal at one exporter; each is in exactly one term."""

    made: int
    accepted: int
    rejected: int
    dropped: Mapping[str, int]
    """Reason → items."""
    queued: int
    """In memory only."""
    spooled: int = 0
    """On disk."""
    recovered: int = 0
    """Made by an earlier run, found on disk."""

    @property
    def balanced(self) -> bool:
        ended = self.accepted + self.rejected + sum(self.dropped.values())
        return self.made + self.recovered == ended + self.queued + self.spooled


@dataclass(slots=True)
class Account:
    """The ledger of one signal as it is kept, with the bytes that its requests take."""

    made: int = 0
    recovered: int = 0
    accepted: int = 0
    rejected: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    queued: int = 0
    spooled: int = 0
    size_bytes: int = 0
    """Of the bodies in memory, in flight or not, on disk too or not."""
    spooled_bytes: int = 0
    """Of the bodies on disk."""

    def add(self, entry: Waiting) -> None:
        """*entry* waits in memory."""
        self.queued += entry.request.items
        self.size_bytes += entry.size

    def leave(self, entry: Waiting) -> None:
        """*entry* does not wait any more, neither in memory nor on disk."""
        self.size_bytes -= len(entry.request.body)
        if entry.row:
            self.spooled -= entry.request.items
            self.spooled_bytes -= entry.size
        else:
            self.queued -= entry.request.items

    def end(self, entry: Waiting, *, accepted: int = 0, rejected: int = 0, dropped: str = "") -> None:
        """The items of *entry* move to where they ended; all of them if they were dropped."""
        entry.settled = True
        self.leave(entry)
        self.accepted += accepted
        self.rejected += rejected
        if dropped:
            self.dropped[dropped] += entry.request.items

    def stored(self, entry: Waiting) -> None:
        """*entry* is on disk now."""
        self.queued -= entry.request.items
        self.spooled += entry.request.items
        self.spooled_bytes += entry.size

    def unstored(self, entry: Waiting) -> None:
        """*entry*, whose body is in memory, is not on disk any more."""
        self.queued += entry.request.items
        self.spooled -= entry.request.items
        self.spooled_bytes -= entry.size

    def found(self, items: int, size_bytes: int) -> None:
        """An earlier run left so much on disk."""
        self.recovered += items
        self.spooled += items
        self.spooled_bytes += size_bytes

    def lose_disk(self, reason: str) -> int:
        """What is still counted on disk is gone; gives the number of items."""
        lost, self.spooled, self.spooled_bytes = self.spooled, 0, 0
        if lost:
            self.dropped[reason] += lost
        return lost

    def ledger(self) -> SignalLedger:
        return SignalLedger(
            self.made, self.accepted, self.rejected, dict(self.dropped), self.queued, self.spooled, self.recovered
        )
