"""Sums of throttled events: their points, beside those of the events that were told, of the same resource."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from otelbpf.batch import Batch, Categorical, Facts
from otelbpf.config import Config
from otelbpf.export.memory import decode_metrics
from otelbpf.probes import dns_lookup, process, tcp_connection
from otelbpf.signals.metrics import Metrics
from tests.unit.enrich.rows import HEAD, rows

if TYPE_CHECKING:
    from otelbpf.probes.probe import Probe

NOW_NS = 1_800_000_000 * 10**9
BY = [(name, "u2") for name in ("error", "question_type")] + [
    (name, "u1") for name in ("kind", "role", "how", "transport")
]
SUMS = ("events", "tx_bytes", "rx_bytes", "retransmits", "tx_resets", "rx_resets")
TCP = np.dtype([("head", HEAD), *BY, *((name, "u8") for name in SUMS)])
OTHERS = np.dtype([("head", HEAD), *BY, ("events", "u8")])
MARK = (("otel.metric.overflow", True), ("otelbpf.event.outcome", "throttled"))
RESOURCE = Facts({"service.name": "shop", "service.instance.id": "one"})
CLOSED, FAILED = 1, 2


def engine(probe: Probe, max_series: int = 100) -> Metrics:
    config = msgspec.convert({"metrics": {"max_series": max_series}}, Config)
    return Metrics(config, [probe], lambda: NOW_NS)


def take(metrics: Metrics, probe: Probe, *values: dict[str, Any]) -> None:
    layout = TCP if probe is tcp_connection.PROBE else OTHERS
    made = rows(layout, *values)
    batch = Batch(probe.name, made, 0, totals=True)
    batch.columns["resource"] = Categorical(np.zeros(len(made), np.intp), [RESOURCE])
    assert probe.totals is not None
    metrics.update(probe.totals.prepare(batch))


def told(metrics: Metrics) -> Counter[tuple[Any, ...]]:
    """(metric, attributes but for the mark) → value; every point has the mark."""
    found: Counter[tuple[Any, ...]] = Counter()
    for request in metrics.collect(NOW_NS):
        for point in decode_metrics(request.body):
            attributes = dict(point.attributes)
            assert {name: attributes.pop(name, None) for name, _ in MARK} == dict(MARK)
            assert point.resource["service.instance.id"] == "one"
            key = (point.metric, *sorted(attributes.items()))
            assert key not in found
            found[key] = int(point.value)
    return found


ROLE, REASON, WAY = "network.tcp.handshake.role", "otelbpf.tcp.close.reason", "network.io.direction"


def test_ends_of_connections():
    probe = tcp_connection.PROBE
    metrics = engine(probe)
    end = {"kind": CLOSED, "role": 1, "how": 3, "events": 5, "tx_bytes": 100, "retransmits": 2, "tx_resets": 5}
    take(metrics, probe, end, end, {"kind": FAILED, "role": 1, "error": 111, "events": 3, "retransmits": 1})
    assert told(metrics) == {
        ("otelbpf.tcp.connections", (ROLE, "client")): 10,
        ("otelbpf.tcp.connections", ("error.type", "connection_refused"), (ROLE, "client")): 3,
        ("otelbpf.tcp.closes", (ROLE, "client"), (REASON, "reset_local")): 10,
        ("otelbpf.tcp.io", (WAY, "transmit"), (ROLE, "client")): 200,
        ("otelbpf.tcp.retransmits", (ROLE, "client")): 5,
        ("otelbpf.tcp.resets", (WAY, "transmit"), (ROLE, "client")): 10,
    }


def test_connections_of_which_little_is_known():
    probe = tcp_connection.PROBE
    metrics = engine(probe)
    take(metrics, probe, {"kind": CLOSED, "events": 5, "rx_bytes": 7}, {"kind": FAILED, "events": 2})
    assert told(metrics) == {
        ("otelbpf.tcp.connections", (ROLE, "unknown")): 5,
        ("otelbpf.tcp.connections", ("error.type", "_OTHER"), (ROLE, "unknown")): 2,
        ("otelbpf.tcp.closes", (ROLE, "unknown"), (REASON, "unknown")): 5,
        ("otelbpf.tcp.io", (WAY, "receive"), (ROLE, "unknown")): 7,
    }


def test_lookups():
    probe = dns_lookup.PROBE
    metrics = engine(probe)
    usual = {"kind": 1, "role": 1, "transport": 17, "question_type": 1, "events": 2}
    take(metrics, probe, usual | {"error": 1}, usual | {"error": 4}, usual | {"kind": 2}, {"kind": 1, "events": 9})
    asked = (("network.transport", "udp"), ("otelbpf.dns.question.type", "A"))
    role = ("otelbpf.dns.role", "client")
    name = "otelbpf.dns.queries"
    assert told(metrics) == {
        (name, *sorted([*asked, ("otelbpf.dns.response.code", "NOERROR"), role])): 2,
        (name, *sorted([*asked, ("otelbpf.dns.response.code", "NXDOMAIN"), ("error.type", "host_not_found"), role])): 2,
        (name, *sorted([*asked, ("error.type", "timeout"), role])): 2,
        (name,): 9,
    }


def test_processes():
    probe = process.PROBE
    metrics = engine(probe)
    ends = [{"kind": 2, "how": how, "events": 10 + how} for how in range(5)]
    take(metrics, probe, {"kind": 1, "events": 4}, *ends)
    exits = {
        ("otelbpf.process.exits", ("otelbpf.process.exit.class", name)) for name in ("ok", "error", "signal", "oom")
    }
    found = told(metrics)
    assert set(found) == exits | {("otelbpf.process.execs",), ("otelbpf.process.exits",)}
    assert found["otelbpf.process.execs",] == 4
    assert found["otelbpf.process.exits",] == 10
    assert found["otelbpf.process.exits", ("otelbpf.process.exit.class", "oom")] == 14


@pytest.mark.parametrize("max_series", [1, 2])
def test_beyond_the_series_of_a_metric_they_are_one_point_and_still_right(max_series):
    probe = tcp_connection.PROBE
    metrics = engine(probe, max_series)
    ends = [{"kind": CLOSED, "role": role, "how": how, "events": 1} for role in (1, 2) for how in range(1, 6)]
    take(metrics, probe, *ends)
    found = told(metrics)
    assert sum(count for (metric, *_), count in found.items() if metric == "otelbpf.tcp.closes") == len(ends)
    assert len([key for key in found if key[0] == "otelbpf.tcp.closes"]) == max_series + 1
