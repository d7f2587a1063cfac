"""The process thread: takes what the drain brought, and carries it through prepare, enrich and signals to export.

Everything that happens between the ring and OTLP happens in `Line.carry`, in order, on batches. It knows neither
where the rows come from (a ring, an iterator, a recording) nor where the requests go.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from otelbpf.batch import Batch
from otelbpf.errors import OtelbpfError
from otelbpf.ledger import EventLedger
from otelbpf.pulse import Pulse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from otelbpf.config import Config
    from otelbpf.enrich import Enrichment
    from otelbpf.export.request import Request
    from otelbpf.filters import CgroupFilter
    from otelbpf.hold import Hold
    from otelbpf.probes.probe import Prepare, Probe
    from otelbpf.signals.logs import Logs
    from otelbpf.signals.metrics import Metrics

PIECE_ROWS = 2048
"""Rows that are enriched and counted at a time: what is done once a piece is shared by so many."""
RECORD_ROWS = 1024
"""Rows that become records at a time: after a stall a tick may bring a hundred times as many, and each takes some 4 kB
on the way."""
TICK_S = 0.1
LEFT_BEHIND_S = 1.0
"""A thread that hangs does not hold the end of an agent that ends because of it."""
PAUSED_WITHIN_S = 10.0


@dataclass(slots=True)
class Source:
    """One probe as the line sees it: its declaration, its own preparation, and what it has carried so far."""

    probe: Probe
    prepare: Prepare
    processed: int = 0
    filtered: int = 0
    carrying: int = 0
    """Rows that were taken and are not yet in another term of the ledger."""
    held: int = 0
    """Rows that wait for their pod to be known."""


@dataclass(slots=True)
class Rows:
    """Raw rows of one source, as they came."""

    source: Source
    rows: NDArray[np.void]
    snapshot: bool = False
    totals: bool = False

    @property
    def events(self) -> bool:
        """Whether they are events, which are in the ledger."""
        return not (self.snapshot or self.totals)


@dataclass(slots=True)
class Line:
    """prepare → (hold) → enrich → signals → export, for all rows of one tick."""

    enrichment: Enrichment
    wanted: CgroupFilter
    logs: Logs
    metrics: Metrics
    export: Callable[[Request], None]
    sources: Sequence[Source]
    hold: Hold

    def carry(self, arrived: Iterable[Rows], clock_offset_ns: int) -> None:
        """Takes the rows of one tick the whole way.

        What teaches (DNS answers, executions, cgroups) is learnt from all batches before any is enriched: probes
        have rings of their own, so a connection may be read before the lookup that named its peer.
        """
        parts = [part for part in arrived if part.snapshot or len(part.rows)]
        for part in parts:
            part.source.carrying = len(part.rows) if part.events else 0
        prepared = [(part, self._prepared(part, clock_offset_ns)) for part in parts]
        batches = [batch for _part, batch in prepared if not batch.totals]
        self.wanted.learn(batches)
        self.enrichment.learn(batches)
        self.release()
        for part, batch in prepared:
            self._finish(self._kept(part, batch))

    def follow(self, config: Config) -> None:
        """Lets each stage take the settings that may change while it runs; between two ticks."""
        for source in self.sources:
            source.prepare.follow(config)
        self.wanted.follow(config)
        self.enrichment.follow(config)
        self.logs.follow(config)
        self.metrics.follow(config)

    def release(self, *, everything: bool = False) -> None:
        """Takes the rest of the way what has waited long enough, or need not wait any more."""
        for batch in self.hold.released(everything=everything):
            self._finish(batch)

    def collect(self, now_ns: int) -> None:
        """Sends the metrics as they stand at *now_ns* (Unix time)."""
        for request in self.metrics.collect(now_ns):
            self.export(request)

    def _finish(self, batch: Batch) -> None:
        for piece in _pieces(batch, PIECE_ROWS):
            enriched = self.enrichment.enrich(piece)
            self.metrics.update(enriched)
            for rows in _pieces(enriched, RECORD_ROWS):
                for request in self.logs.encode(rows):
                    self.export(request)

    def _prepared(self, part: Rows, clock_offset_ns: int) -> Batch:
        source = part.source
        batch = Batch(source.probe.name, part.rows, clock_offset_ns, snapshot=part.snapshot, totals=part.totals)
        if part.totals and source.probe.totals is not None:
            return source.probe.totals.prepare(batch)
        return source.prepare(batch)

    def _kept(self, part: Rows, batch: Batch) -> Batch:
        """The rows that go on now: those that are wanted and need not wait."""
        wanted = self.wanted.keep(batch)
        kept = self.hold.sifted(part.source, wanted)
        if part.events:
            part.source.processed += len(kept)
            part.source.filtered += len(batch) - len(wanted)
            part.source.carrying = 0
        return kept


def _pieces(batch: Batch, most: int) -> Iterator[Batch]:
    """The batch in parts of at most *most* rows. A snapshot stays whole: it says what there is, and what is not."""
    if batch.snapshot or len(batch) <= most:
        yield batch
        return
    for first in range(0, len(batch), most):
        yield batch.select(slice(first, first + most))


@dataclass(slots=True)
class Timer:
    """Something that is due again and again; a late tick is not made up for."""

    interval_s: float
    action: Callable[[], None]
    due: float = field(default=0.0)

    def every(self, interval_s: float) -> None:
        """Another interval from now on, in which it may be due sooner."""
        self.due += min(0.0, interval_s - self.interval_s)
        self.interval_s = interval_s

    def run_if_due(self, now: float) -> None:
        if now >= self.due:
            self.due = now + self.interval_s
            self.action()


class Conveyor:
    """Runs the line in a thread of its own: a tick every *tick_s* while something has *arrived*, sooner when that is
    *plenty*; timers when they are due.

    A context manager. An error in the thread is kept in `failure`, and raised to whoever asks `check`: the agent must
    not go on as if it were working.
    """

    def __init__(
        self,
        tick: Callable[[], None],
        timers: Sequence[Timer],
        arrived: threading.Event,
        plenty: threading.Event,
        tick_s: float = TICK_S,
    ) -> None:
        self._tick = tick
        self._timers = timers
        self._arrived = arrived
        self._plenty = plenty
        self._tick_s = tick_s
        self._turn = threading.Lock()
        self._stopping = threading.Event()
        self.failure: BaseException | None = None
        self.pulse = Pulse("line")
        self._thread = threading.Thread(target=self._run, name="line", daemon=True)

    def __enter__(self) -> Self:
        now = time.monotonic()
        for timer in self._timers:
            timer.due = now + timer.interval_s
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.stop(None if kind is None else time.monotonic() + LEFT_BEHIND_S)

    def stop(self, deadline: float | None = None) -> bool:
        """Ends the thread after the tick it is in; what has not been taken is left to the caller. May be called twice.

        Waits for that until *deadline* (time.monotonic), if there is one; says whether it has ended.
        """
        self._stopping.set()
        self._arrived.set()
        self._plenty.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return not self._thread.is_alive()

    def pace(self, tick_s: float) -> None:
        """From now on ticks are *tick_s* apart: longer ones cost less CPU time, and delay. From any thread."""
        self._tick_s = tick_s

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While the block runs the line stands between two ticks, and what it has may be changed. To be short.

        Raises OtelbpfError when the tick under way does not end.
        """
        if not self._turn.acquire(timeout=PAUSED_WITHIN_S):
            raise OtelbpfError(f"the line has been busy for {PAUSED_WITHIN_S:.0f} s; try again later")
        try:
            yield
        finally:
            self._turn.release()

    def check(self) -> None:
        """Raises what ended the thread, if it did not end by `stop`."""
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self.pulse.rest()
                self._arrived.wait(self._until_due())
                if self._arrived.is_set():
                    self._plenty.wait(self._tick_s)  # one batch of many rows costs far less than many of few
                self._arrived.clear()
                with self._turn:
                    self.pulse.beat()
                    self._take_turn()
            self.pulse.end()
        except BaseException as error:  # noqa: BLE001 - kept for the main thread, which ends the agent with it
            self.failure = error

    def _take_turn(self) -> None:
        self._tick()
        now = time.monotonic()
        for timer in self._timers:
            timer.run_if_due(now)

    def _until_due(self) -> float:
        now = time.monotonic()
        return max(0.0, min((timer.due - now for timer in self._timers), default=1.0))


def event_ledger(source: Source, kernel: EventLedger, waiting: int) -> EventLedger:
    """The ledger of one probe: the kernel's terms, and what the line did with the rest.

    *kernel* holds what the kernel side counted (with *pending* = asked but not answered), *waiting* the records that
    are in the ring or before the line.
    """
    return EventLedger(
        seen=kernel.seen,
        processed=source.processed,
        filtered=kernel.filtered + source.filtered,
        throttled=kernel.throttled,
        undecodable=source.prepare.undecodable,
        pending=kernel.pending + waiting + source.carrying + source.held,
        lost=dict(kernel.lost),
    )
