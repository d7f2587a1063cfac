"""The doctor's report: its exit code, its two forms, and how it finds another agent."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from otelbpf.doctor import OPEN_SOCKETS, running
from otelbpf.findings import ProbeReport, Report, Row, as_json, as_text
from otelbpf.only_one import OnlyOne

if TYPE_CHECKING:
    from otelbpf.findings import State


def probe(state: State, **changes: object) -> ProbeReport:
    made: dict[str, object] = {
        "name": "p",
        "state": state,
        "way": None if state == "failed" else "tp_btf",
        "ways": {"kprobe": "no such function"},
        "lost": [],
        "refused": {},
        "instead": "",
        "memory_bytes": 3 << 20,
        "ring_bytes": 1 << 20,
        "attach_ms": 2.5,
    }
    return ProbeReport(**{**made, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "probes", "code"),
    [
        ([Row("a", "ok", "")], [probe("ok")], 0),
        ([Row("a", "degraded", "")], [probe("ok")], 1),
        ([Row("a", "failed", "")], [probe("ok")], 1),
        ([Row("a", "ok", "")], [probe("ok"), probe("failed")], 1),
        ([Row("a", "ok", "")], [probe("degraded")], 1),
        ([Row("a", "ok", "")], [probe("failed"), probe("failed")], 2),
        ([Row("a", "failed", "", vital=True)], [], 2),
    ],
)
def test_the_exit_code_says_how_bad_it_is(rows: list[Row], probes: list[ProbeReport], code: int) -> None:
    assert Report(rows=rows, probes=probes).exit_code == code


def test_text_says_the_way_the_others_and_what_is_lost() -> None:
    degraded = probe("degraded", lost=["who reads first"], refused={"tcp_received": "EPERM"}, instead="another does")
    text = as_text(Report(rows=[Row("BTF", "failed", "none", "use another kernel", vital=True)], probes=[degraded]))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[2:] == [
        "FAILED BTF none",
        "to do: use another kernel",
        "degraded probe p by tp_btf in 2 ms; 3.0 MiB, 1.0 MiB of it ring",
        "way kprobe: no such function",
        "tcp_received: EPERM",
        "another does",
        "not seen: who reads first",
    ]


def test_json_has_all_of_it() -> None:
    made = json.loads(as_json(Report(rows=[Row("a", "degraded", "b", "c")], probes=[probe("failed")])))
    assert made["exit_code"] == 2
    assert made["rows"] == [{"subject": "a", "state": "degraded", "what": "b", "todo": "c", "vital": False}]
    assert made["probes"][0]["ways"] == {"kprobe": "no such function"}


def test_another_agent_is_seen_without_taking_its_place() -> None:
    name = f"\0otelbpf test {os.getpid()}"
    assert not running(name, OPEN_SOCKETS.read_text())
    with OnlyOne(name):
        assert running(name, OPEN_SOCKETS.read_text())
        assert not running(name[:-1], OPEN_SOCKETS.read_text())
    with OnlyOne(name):
        pass
