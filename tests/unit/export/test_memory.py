"""What tests see of what was exported."""

from __future__ import annotations

import time

from otelbpf.export import Exporters
from otelbpf.export.memory import Memory
from tests.peers.otlp import START_NS, log_request, metric_request


def test_records_and_points_are_read_back():
    memory = Memory()
    with Exporters([memory]) as exporters:
        exporters.export(log_request(2))
        exporters.export(metric_request(3))
        assert exporters.flush(time.monotonic() + 1)
    first, second = memory.logs()
    assert (first.resource, first.scope) == ({"service.name": "web"}, "otelbpf.tcp")
    assert (first.event_name, first.time_ns, first.severity) == ("otelbpf.tcp.connection.closed", START_NS, 9)
    assert second.body == "record 1 "
    assert [(point.metric, point.value, point.attributes) for point in memory.points("otelbpf.tcp.connections")] == [
        ("otelbpf.tcp.connections", number, {"server.port": number}) for number in range(3)
    ]
    assert memory.points("other") == []


def test_its_ledger_balances():
    memory = Memory()
    memory.export(log_request(2))
    memory.export(log_request(3))
    assert {signal: (one.made, one.accepted) for signal, one in memory.ledger().items()} == {"logs": (5, 5)}
