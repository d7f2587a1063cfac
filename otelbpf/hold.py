"""Rows that wait a moment for the name of their pod: the API server tells of a pod after its first events.

Bounded in time and in bytes. What has waited long enough goes on with what is known; what there is no room for goes
on at once. Rows of a snapshot that wait are counted as events of their connections, not as part of what is alive.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from otelbpf.batch import Batch, Categorical

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from otelbpf.enrich.kubernetes.waiting import Waiting
    from otelbpf.source import Source

LIMIT_BYTES = 8 << 20
NAMED, NAMELESS, DISPLACED = "named", "nameless", "displaced"


@dataclass(slots=True)
class _Held:
    until_s: float
    source: Source
    batch: Batch
    counted: bool
    """Whether the rows are events, which are in the ledger."""

    @property
    def size_bytes(self) -> int:
        columns = self.batch.columns.values()
        beside = sum(one.codes.nbytes if isinstance(one, Categorical) else one.nbytes for one in columns)
        return self.batch.rows.nbytes + beside


@dataclass(slots=True)
class Hold:
    """Keeps the rows for which *waiting* says so, up to *seconds*."""

    waiting: Waiting
    seconds: float
    limit_bytes: int = LIMIT_BYTES
    clock: Callable[[], float] = time.monotonic
    rows: dict[str, int] = field(default_factory=lambda: dict.fromkeys((NAMED, NAMELESS, DISPLACED), 0))
    """Rows that have waited, by what came of it."""
    _held: deque[_Held] = field(default_factory=deque)
    _held_bytes: int = 0

    @property
    def is_used(self) -> bool:
        """Whether any row may wait."""
        return self.seconds > 0 and self.waiting.is_possible

    def sifted(self, source: Source, batch: Batch) -> Batch:
        """The rows of *batch* that need not wait; the others are kept."""
        waits = self.waiting.mask(batch) if self.seconds else None
        if waits is None:
            return batch
        kept = batch.select(waits)
        held = _Held(self.clock() + self.seconds, source, kept, counted=not (batch.snapshot or batch.totals))
        if self._held_bytes + held.size_bytes > self.limit_bytes:
            self.rows[DISPLACED] += len(kept)
            return batch
        self._keep(held)
        return batch.select(~waits)

    def released(self, *, everything: bool = False) -> Iterator[Batch]:
        """The rows whose pod is known by now, and those that have waited long enough; in the order they came."""
        now_s = self.clock()
        for _ in range(len(self._held)):
            held = self._held.popleft()
            self._held_bytes -= held.size_bytes
            if held.counted:
                held.source.held -= len(held.batch)
            waits = self.waiting.mask(held.batch)
            if waits is None:
                yield self._gone(held, held.batch, NAMED)
            elif everything or now_s >= held.until_s:
                if not everything:
                    self.waiting.give_up(held.batch.select(waits))
                yield self._gone(held, held.batch.select(waits), NAMELESS)
                if not waits.all():
                    yield self._gone(held, held.batch.select(~waits), NAMED)
            else:
                if not waits.all():
                    yield self._gone(held, held.batch.select(~waits), NAMED)
                    held.batch = held.batch.select(waits)
                self._keep(held)

    def _keep(self, held: _Held) -> None:
        held.batch.snapshot = False
        self._held.append(held)
        self._held_bytes += held.size_bytes
        if held.counted:
            held.source.held += len(held.batch)

    def _gone(self, held: _Held, batch: Batch, outcome: str) -> Batch:
        self.rows[outcome] += len(batch)
        if held.counted:
            held.source.processed += len(batch)
        return batch
