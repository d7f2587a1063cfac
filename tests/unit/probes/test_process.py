"""Rows of the probe `process` → columns and lines."""

from __future__ import annotations

import signal

import pytest

from otelbpf.batch import Batch
from otelbpf.probes.process import PROBE, SIGNAL_NAMES, Prepare, exec_lines, exit_lines, iso_time
from otelbpf.signals import names
from tests.unit.enrich.rows import PROCESS, SECOND, rows, values

EXEC, EXIT = 1, 2
OFFSET_NS = 1_700_000_000 * SECOND


def prepared(*each, offset_ns=OFFSET_NS, prepare=None):
    return (prepare or Prepare())(Batch("process", rows(PROCESS, *each), offset_ns))


@pytest.mark.parametrize(
    ("end", "exit_class", "code", "failed", "oom"),
    [
        ({}, "ok", 0, False, False),
        ({"exit_code": 3}, "error", 3, True, False),
        ({"exit_code": 255}, "error", 255, True, False),
        ({"exit_signal": 15}, "signal", -1, True, False),
        ({"exit_signal": 9, "oom": 1}, "oom", -1, True, True),
    ],
)
def test_how_a_process_ended(end, exit_class, code, failed, oom):
    batch = prepared({"kind": EXIT, **end})
    (choice,) = PROBE.metrics[1].by
    assert choice.values[int(batch.number("exit_class")[0])] == exit_class
    assert [batch.number(name)[0] for name in ("code", "failed", "oom_killed")] == [code, failed, oom]


def test_an_execution_never_failed():
    batch = prepared({"kind": EXEC})
    assert [batch.number(name)[0] for name in ("executed", "exited", "failed", "oom_killed")] == [
        True,
        False,
        False,
        False,
    ]


def test_what_is_known_of_an_execution():
    batch = prepared(
        {"kind": EXEC, "start_ns": 5 * SECOND + 1_999_999, "command": b"curl"},
        {"kind": EXIT, "start_ns": 5 * SECOND, "time_ns": 6 * SECOND},
    )
    assert values(batch, "image") == [{names.PROCESS_COMMAND: "curl"}, {}]
    assert [birth[names.PROCESS_CREATION_TIME] for birth in values(batch, "birth")] == [
        "2023-11-14T22:13:25.001Z",
        "2023-11-14T22:13:25.000Z",
    ]
    assert batch.number("duration_ns").tolist()[1] == SECOND


def test_both_records_of_a_process_say_the_same_time_of_creation():
    """The offset between the clocks is measured again and again, and wobbles; a step of the clock is taken over."""
    prepare, born = Prepare(), {"start_ns": 5 * SECOND}
    times = [
        values(prepared({"kind": EXIT, **born}, offset_ns=OFFSET_NS + wobble_ns, prepare=prepare), "birth")[0]
        for wobble_ns in (0, -150, 2_000_000, -3600 * SECOND, -3600 * SECOND + 5)
    ]
    assert [time[names.PROCESS_CREATION_TIME][11:19] for time in times] == ["22:13:25"] * 3 + ["21:13:25"] * 2
    assert len({time[names.PROCESS_CREATION_TIME] for time in times}) == 2


def test_lines_of_executions():
    batch = prepared(
        {
            "kind": EXEC,
            "pid": 4711,
            "comm": b"curl",
            "parent_pid": 12,
            "parent_comm": b"bash",
            "filename": b"/usr/bin/curl",
        }
    )
    assert list(exec_lines(batch)) == ["exec curl[4711] by bash[12]: /usr/bin/curl"]


@pytest.mark.parametrize(
    ("end", "duration_ns", "line"),
    [
        ({}, 12_000_000, "exit curl[4711] code 0 after 12.0 ms"),
        ({"exit_code": 22}, 1_234_567_890, "exit curl[4711] code 22 after 1.2 s"),
        ({"exit_signal": 9}, 999, "exit curl[4711] SIGKILL after 1 µs"),
        ({"exit_signal": 9, "oom": 1}, 123_456 * SECOND, "exit curl[4711] SIGKILL (out of memory) after 34 h"),
        ({"exit_signal": 36}, 5_500, "exit curl[4711] SIGRTMIN+2 after 6 µs"),
        ({"exit_signal": 99}, 999_999, "exit curl[4711] signal 99 after 1.0 ms"),
    ],
)
def test_lines_of_ends(end, duration_ns, line):
    batch = prepared({"kind": EXIT, "pid": 4711, "comm": b"curl", "start_ns": 5, "time_ns": 5 + duration_ns, **end})
    assert list(exit_lines(batch)) == [line]


def test_signals_have_their_names():
    assert SIGNAL_NAMES[signal.SIGKILL] == "SIGKILL"
    assert [SIGNAL_NAMES[number] for number in (34, 35, 64)] == ["SIGRTMIN", "SIGRTMIN+1", "SIGRTMAX"]
    assert 0 not in SIGNAL_NAMES


@pytest.mark.parametrize(
    ("unix_ms", "text"), [(0, "1970-01-01T00:00:00.000Z"), (1_700_000_000_999, "2023-11-14T22:13:20.999Z")]
)
def test_iso_times_have_milliseconds(unix_ms, text):
    assert iso_time(unix_ms) == text
