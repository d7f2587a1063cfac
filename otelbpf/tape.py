"""What a live line is given, written down as it comes, with what it learnt of the machine meanwhile."""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING, Any

from otelbpf.recording import COLLECT, EVENTS, MACHINE, SNAPSHOT, TOTALS, Frame, RecordingError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otelbpf.kernel.attach import AttachedProbe
    from otelbpf.recording import Layouts, Recorder
    from otelbpf.source import Rows

log = logging.getLogger("otelbpf.recording")


def layouts(probes: Iterable[AttachedProbe]) -> Layouts:
    """What a recording of *probes* may hold."""
    found: Layouts = {}
    for probe in probes:
        if probe.record is not None and probe.struct is not None:
            found[EVENTS, probe.probe.name] = probe.record
            found[SNAPSHOT, probe.probe.name] = probe.struct
        if probe.throttle is not None:
            found[TOTALS, probe.probe.name] = probe.throttle.row
    return found


class Tape:
    """Puts a line's input on *recorder*. A disk that is full ends the recording, not the agent.

    *answers* is where those who ask the machine for enrichment keep what it said: it is emptied on to the tape every
    time, as an agent that records for a week is asked of many processes.
    """

    def __init__(self, recorder: Recorder, answers: dict[str, dict[str, Any]]) -> None:
        self._recorder: Recorder | None = recorder
        self._answers = answers

    def rows(self, arrived: Iterable[Rows], clock_offset_ns: int) -> None:
        """What one tick carries."""
        now_ns = time.time_ns()
        for part in arrived:
            kind = SNAPSHOT if part.snapshot else TOTALS if part.totals else EVENTS
            self._put(Frame(kind, now_ns, clock_offset_ns, part.source.probe.name, part.rows.tobytes()))

    def collected(self, now_ns: int) -> None:
        """Metrics were sent as they stood at *now_ns* (Unix time)."""
        self._put(Frame(COLLECT, now_ns))

    def learnt(self) -> None:
        """What the machine has answered since the last time."""
        if self._answers:
            self._put(Frame(MACHINE, time.time_ns(), payload=json.dumps(self._answers).encode()))
            self._answers.clear()

    def _put(self, frame: Frame) -> None:
        if self._recorder is None:
            return
        try:
            self._recorder.write(frame)
        except RecordingError as error:
            self._recorder = None
            log.error("%s; the recording ends here, the agent goes on", error)  # noqa: TRY400 - a sentence
