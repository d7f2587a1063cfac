"""A recording through the whole line, without root: what leaves is what was recorded, at the time of the recording."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from otelbpf import replay
from otelbpf.config import Config
from otelbpf.export import Exporters
from otelbpf.export.memory import Memory
from otelbpf.recording import Frame, Recorder, RecordingError
from tests.unit.enrich.rows import SECOND, rows
from tests.unit.probes.test_tcp_connection import CLIENT, FAILED, LAYOUT, SNAPSHOT
from tests.unit.probes.test_totals import TCP as TOTALS

if TYPE_CHECKING:
    from pathlib import Path

NAME = "tcp_connection"
LAYOUTS = {("events", NAME): LAYOUT, ("snapshot", NAME): LAYOUT}
THEN = 1_700_000_000 * SECOND
ANSWERS = {
    "host_name": {"": "node"},
    "host_id": {"": "0123"},
    "addresses": {"": []},
    "executable_path": {"77 4711": "/usr/bin/curl"},
}
USUAL = {
    "executable": 77, "pid": 4711, "comm": b"curl", "netns": 1, "cookie": 1, "role": CLIENT, "kind": 1,
    "start_ns": SECOND, "local_address": "10.0.0.1", "remote_address": "93.184.216.34", "remote_port": 443,
}  # fmt: skip


def of(*values, kind="events", at_s=0):
    made = rows(LAYOUT, *(USUAL | value for value in values))
    return Frame(kind, THEN + at_s * SECOND, THEN, NAME, made.tobytes())


FRAMES = [
    of({"kind": SNAPSHOT, "time_ns": 2 * SECOND, "tx_bytes": 5}, kind="snapshot", at_s=2),
    Frame("collect", THEN + 2 * SECOND),
    of(
        {"time_ns": 3 * SECOND, "tx_bytes": 7, "rx_bytes": 9, "close_reason": 1},
        {"time_ns": 3 * SECOND, "cookie": 2, "kind": FAILED, "error": 111},
        at_s=3,
    ),
    Frame("collect", THEN + 4 * SECOND),
    Frame("machine", THEN + 5 * SECOND, payload=json.dumps(ANSWERS).encode()),
]


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    with Recorder(tmp_path / "recording", LAYOUTS) as recorder:
        for frame in FRAMES:
            recorder.write(frame)
    return tmp_path / "recording"


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    memory = Memory()
    monkeypatch.setattr(replay, "exporters", lambda _config: Exporters([memory]))
    return memory


def test_every_event_arrives_with_what_the_machine_answered(recorded: Path, memory: Memory) -> None:
    summary = list(replay.replay(recorded, Config()))
    assert [(record.event_name, record.time_ns, record.body) for record in memory.logs()] == [
        (
            "otelbpf.tcp.connection.closed",
            THEN + 3 * SECOND,
            "client curl[4711] → 93.184.216.34:443 ↑7 B ↓9 B 2.0 s fin_local",
        ),
        (
            "otelbpf.tcp.connection.failed",
            THEN + 3 * SECOND,
            "client curl[4711] → 93.184.216.34:443 ? connection_refused",
        ),
    ]
    assert {record.resource["service.instance.id"] for record in memory.logs()} == {"0123/curl"}
    assert {record.resource["host.name"] for record in memory.logs()} == {"node"}
    assert summary[2].split() == [NAME, "2", "2", "0", "0", "0", "0", "0", "balanced"]


def test_what_lived_is_counted_once_and_points_lie_in_the_time_of_the_recording(recorded: Path, memory: Memory) -> None:
    list(replay.replay(recorded, Config()))
    sent = [
        (point.time_ns - THEN, point.value)
        for point in memory.points("otelbpf.tcp.io")
        if point.attributes["network.io.direction"] == "transmit"
    ]
    assert sent == [(2 * SECOND, 5), (4 * SECOND, 7)]
    assert all(THEN < point.start_ns <= point.time_ns <= THEN + 4 * SECOND for point in memory.points())


def test_a_frame_that_holds_no_whole_records_is_one_sentence(tmp_path: Path, memory: Memory) -> None:
    with Recorder(tmp_path / "recording", LAYOUTS) as recorder:
        recorder.write(Frame("events", THEN, 0, NAME, b"short"))
    with pytest.raises(RecordingError, match="damaged"):
        list(replay.replay(tmp_path / "recording", Config()))
    assert memory.requests == []


@pytest.mark.parametrize(
    "frame",
    [
        of({"time_ns": 3 * SECOND, "role": 200}),
        Frame("machine", THEN, payload=b"{"),
        Frame("machine", THEN, payload=b"[1]"),
    ],
)
@pytest.mark.usefixtures("memory")
def test_values_that_no_kernel_sends_are_one_sentence(tmp_path: Path, frame: Frame) -> None:
    with Recorder(tmp_path / "recording", LAYOUTS) as recorder:
        for written in (*FRAMES, frame):
            recorder.write(written)
    with pytest.raises(RecordingError, match="damaged"):
        list(replay.replay(tmp_path / "recording", Config()))


def test_sums_of_what_was_throttled_are_counted_as_they_were(tmp_path: Path, memory: Memory) -> None:
    sums = rows(TOTALS, {"executable": 77, "pid": 4711, "comm": b"curl", "kind": 1, "role": CLIENT, "events": 40})
    written = Frame("totals", THEN + SECOND, THEN, NAME, sums.tobytes())
    with Recorder(tmp_path / "recording", LAYOUTS | {("totals", NAME): TOTALS}) as recorder:
        for frame in (FRAMES[2], written, FRAMES[3], FRAMES[4]):
            recorder.write(frame)
    summary = list(replay.replay(tmp_path / "recording", Config()))
    assert summary[2].split() == [NAME, "42", "2", "0", "40", "0", "0", "0", "balanced"]
    counted = {
        point.attributes.get("otelbpf.event.outcome", "told"): point.value
        for point in memory.points("otelbpf.tcp.closes")
        if point.resource["service.instance.id"] == "0123/curl"
    }
    assert counted == {"told": 1, "throttled": 40}
