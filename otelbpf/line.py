"""The line: carries rows through prepare, enrich and signals to export.

Everything that happens between the ring and OTLP happens in `Line.carry`, in order, on batches. It knows neither
where the rows come from (a ring, an iterator, a recording) nor where the requests go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from otelbpf.batch import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from otelbpf.config import Config
    from otelbpf.enrich import Enrichment
    from otelbpf.export.request import Request
    from otelbpf.filters import CgroupFilter
    from otelbpf.hold import Hold
    from otelbpf.signals.logs import Logs
    from otelbpf.signals.metrics import Metrics
    from otelbpf.source import Rows, Source

PIECE_ROWS = 16384
"""Rows that are taken the way together: what is done once a piece is shared by so many. After a stall a tick may bring
a hundred times as many."""


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
            for request in self.logs.encode(enriched):
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
