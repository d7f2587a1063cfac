"""Bytes that a real kernel sent, through the whole line without root: every record, whole, as when they were recorded."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import patch

from otelbpf import config, replay
from otelbpf.export import Exporters
from otelbpf.export.memory import Memory
from otelbpf.probes import PROBES

RECORDING = Path(__file__).parent / "session.recording"
GOLDEN = Path(__file__).parent / "session.json"


def told(recording: Path) -> dict[str, Any]:
    """What leaves when *recording* is replayed: log records in order, and the last value of each counter."""
    memory = Memory()
    with patch.object(replay, "exporters", lambda _config: Exporters([memory])):
        summary = list(replay.replay(recording, config.load(None, ["logs.dns_server=all"], {})))
    records = [
        {
            "time_ns": record.time_ns,
            "event": record.event_name,
            "severity": record.severity,
            "body": record.body,
            "trace_id": record.trace_id,
            "resource": record.resource,
            "attributes": record.attributes,
        }
        for record in memory.logs()
    ]
    totals: dict[str, float] = {}
    for point in memory.points():
        if not point.bounds:
            about = {"service.name": point.resource["service.name"], **point.attributes}
            totals[f"{point.metric} {json.dumps(about, sort_keys=True)}"] = point.value
    return {
        "records": records,
        "totals": dict(sorted(totals.items())),
        "balanced": not any("NOT" in line for line in summary),
    }


def test_what_leaves_is_what_left_when_it_was_recorded() -> None:
    golden = json.loads(GOLDEN.read_text())
    now = json.loads(json.dumps(told(RECORDING)))
    assert now["records"] == golden["records"]
    assert now == golden


def test_every_event_of_every_probe_is_in_it() -> None:
    recorded = Counter(record["event"] for record in json.loads(GOLDEN.read_text())["records"])
    assert set(recorded) == {event.name for probe in PROBES for event in probe.events}
