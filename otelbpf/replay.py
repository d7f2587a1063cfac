"""Takes a recording through the whole line, without root and without a kernel that knows BPF."""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from otelbpf import ledger, stages
from otelbpf.enrich import Enrichment
from otelbpf.enrich.kubernetes.cluster import Recorded
from otelbpf.enrich.machine import RecordedMachine
from otelbpf.export import exporters
from otelbpf.ledger import EventLedger
from otelbpf.recording import COLLECT, EVENTS, SNAPSHOT, TOTALS, Frame, Recording, RecordingError
from otelbpf.source import Rows, event_ledger

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from otelbpf.config import Config
    from otelbpf.line import Line


def replay(path: Path, config: Config) -> Iterator[str]:
    """Sends what *path* holds to the configured exporters, as fast as it goes; gives the lines of the summary.

    Raises RecordingError for a file that is no recording.
    """
    started = time.monotonic()
    with ExitStack() as open_:
        recording = open_.enter_context(Recording(path))
        outputs = open_.enter_context(exporters(config))
        open_.enter_context(_sound(path))
        answers = recording.machine()
        machine = RecordedMachine(answers)
        cluster = Recorded(answers) if "cluster" in answers else None
        enrichment = open_.enter_context(Enrichment(config, machine, cluster))
        probes = [probe for probe in stages.enabled(config) if (EVENTS, probe.name) in recording.layouts]
        moment = _Moment()
        line = stages.line(config, probes, machine, enrichment, outputs.export_all, moment.now_ns)
        seen = _carry_all(line, recording, path, moment)
        outputs.flush(time.monotonic() + config.shutdown_timeout)
        yield from ledger.summary(time.monotonic() - started, _ledgers(line, seen), outputs.ledger())


class _Moment:
    """The time in the recording: a series that began after the point it is sent with would be refused."""

    def __init__(self) -> None:
        self._ns = 0

    def now_ns(self) -> int:
        return self._ns

    def is_now(self, ns: int) -> None:
        self._ns = ns


@contextmanager
def _sound(path: Path) -> Iterator[None]:
    """A file may say anything, and nothing on the way doubts what a kernel says: what breaks is the file's fault."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise RecordingError(f"{path}: damaged, or of another version: {error}") from error


def _carry_all(line: Line, recording: Recording, path: Path, moment: _Moment) -> dict[str, EventLedger]:
    """Carries every tick as it was; gives what the kernel counted of each probe, as far as it was recorded."""
    seen = {source.probe.name: EventLedger() for source in line.sources}
    for (kind, time_ns), frames in groupby(recording.frames(), key=lambda frame: (frame.kind, frame.time_ns)):
        moment.is_now(time_ns)
        if kind == COLLECT:
            line.collect(time_ns)
        elif kind in (EVENTS, SNAPSHOT, TOTALS):
            tick = list(frames)
            arrived = list(_arrived(line, recording, tick, path))
            for part in arrived:
                _count(part, seen[part.source.probe.name])
            line.carry(arrived, tick[0].clock_offset_ns)
    return seen


def _count(part: Rows, ledger: EventLedger) -> None:
    if part.totals:
        ledger.throttled += int(part.rows["events"].sum())
        ledger.seen += int(part.rows["events"].sum())
    elif part.events:
        ledger.seen += len(part.rows)


def _arrived(line: Line, recording: Recording, tick: Iterable[Frame], path: Path) -> Iterator[Rows]:
    sources = {source.probe.name: source for source in line.sources}
    for frame in tick:
        if frame.probe not in sources:
            continue
        layout = recording.layouts[frame.kind, frame.probe]
        if len(frame.payload) % layout.itemsize:
            raise RecordingError(f"{path}: damaged: a frame of {frame.probe} does not hold whole records")
        rows = np.frombuffer(frame.payload, layout)
        yield Rows(sources[frame.probe], rows, snapshot=frame.kind == SNAPSHOT, totals=frame.kind == TOTALS)


def _ledgers(line: Line, seen: dict[str, EventLedger]) -> dict[str, EventLedger]:
    return {
        source.probe.name: event_ledger(source, seen[source.probe.name], waiting=0)
        for source in line.sources
        if source.probe.events
    }
