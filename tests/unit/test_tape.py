"""A recording grows on disk and not in memory, and a disk that is full ends it alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from otelbpf.recording import Recorder, Recording
from otelbpf.tape import Tape

if TYPE_CHECKING:
    import pytest

LAYOUT = np.dtype([("number", "<u8")])
LAYOUTS = {("events", "sample"): LAYOUT, ("snapshot", "sample"): LAYOUT}


def rows(*numbers: int, snapshot: bool = False) -> Any:
    source = SimpleNamespace(probe=SimpleNamespace(name="sample"))
    return SimpleNamespace(
        source=source, rows=np.array([(number,) for number in numbers], LAYOUT), snapshot=snapshot, totals=False
    )


def test_answers_go_to_the_recording_as_they_come(tmp_path: Path) -> None:
    answers: dict[str, dict[str, Any]] = {"host_name": {"": "old"}}
    with Recorder(tmp_path / "recording", LAYOUTS) as recorder:
        tape = Tape(recorder, answers)
        tape.rows([rows(1, 2), rows(3, snapshot=True)], 5)
        tape.learnt()
        assert answers == {}
        tape.learnt()
        answers |= {"host_name": {"": "new"}, "executable_path": {"1 2": "/bin/sh"}}
        tape.learnt()
        tape.collected(7)
        assert answers == {}
    with Recording(tmp_path / "recording") as recording:
        frames = list(recording.frames())
        assert recording.machine() == {"host_name": {"": "new"}, "executable_path": {"1 2": "/bin/sh"}}
    assert [frame.kind for frame in frames] == ["events", "snapshot", "machine", "machine", "collect"]
    assert np.frombuffer(frames[0].payload, LAYOUT)["number"].tolist() == [1, 2]
    assert (frames[0].clock_offset_ns, frames[-1].time_ns) == (5, 7)


def test_a_full_disk_ends_the_recording_and_answers_do_not_pile_up(caplog: pytest.LogCaptureFixture) -> None:
    answers: dict[str, dict[str, Any]] = {}
    recorder = Recorder(Path("/dev/full"), LAYOUTS)
    recorder.__enter__()  # leaving it would say the same again
    tape = Tape(recorder, answers)
    for _ in range(10):
        tape.rows([rows(*range(1000))], 0)
        answers["host_name"] = {"": "node"}
        tape.learnt()
    assert answers == {}
    (said,) = caplog.messages
    assert "No space left on device; the recording ends here" in said
