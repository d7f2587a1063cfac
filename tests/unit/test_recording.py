"""A recording gives back what was written, and a damaged one is refused or ends early, in one sentence."""

import json
from pathlib import Path

import numpy as np
import pytest

from otelbpf.recording import Frame, Recorder, Recording, RecordingError

STRUCT = np.dtype([("head", [("time_ns", "<u8"), ("comm", "S16")]), ("address", "V16"), ("port", "<u2")])
RECORD = np.dtype({"names": ["head", "port"], "formats": [STRUCT["head"], "<u2"], "offsets": [8, 48], "itemsize": 56})
LAYOUTS = {("events", "tcp_connection"): RECORD, ("snapshot", "tcp_connection"): STRUCT}
FRAMES = [
    Frame("events", 1_700_000_000_000_000_000, 5, "tcp_connection", b"x" * RECORD.itemsize),
    Frame("collect", 1_700_000_000_100_000_000),
    Frame("machine", 1_700_000_000_200_000_000, payload=json.dumps({"a": {"b": [1]}}).encode()),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "recording"
    with Recorder(path, LAYOUTS) as recorder:
        for frame in FRAMES:
            recorder.write(frame)
    return path


def test_what_was_written_is_read(path: Path) -> None:
    with Recording(path) as recording:
        assert recording.layouts == LAYOUTS
        assert list(recording.frames()) == FRAMES
        assert recording.machine() == {"a": {"b": [1]}}


def test_a_file_cut_anywhere_ends_with_the_last_whole_frame(path: Path) -> None:
    whole = path.read_bytes()
    header_bytes = whole.index(b"\n") + 1
    for cut in range(header_bytes, len(whole)):
        path.write_bytes(whole[:cut])
        with Recording(path) as recording:
            frames = list(recording.frames())
            assert frames == FRAMES[: len(frames)]
            assert len(frames) < len(FRAMES)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00\xff\x00\n", b"{}\n", b"[]\n", b'{"format": "other"}\n'],
    ids=["empty", "binary", "map", "list", "other"],
)
def test_a_file_that_is_no_recording_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match="not a recording"), Recording(path):
        pass


def test_a_missing_file_and_a_directory_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="No such file"), Recording(tmp_path / "none"):
        pass
    with pytest.raises(RecordingError, match="Is a directory"), Recorder(tmp_path, {}):
        pass


def test_a_disk_that_is_full_at_the_end_is_one_sentence() -> None:
    with pytest.raises(RecordingError, match="No space left"), Recorder(Path("/dev/full"), {}):
        pass


def test_damaged_answers_of_the_machine_are_one_sentence(tmp_path: Path) -> None:
    with Recorder(tmp_path / "recording", LAYOUTS) as recorder:
        recorder.write(Frame("machine", 1, payload=b"{"))
    with Recording(tmp_path / "recording") as recording, pytest.raises(RecordingError, match="damaged"):
        recording.machine()
