"""The agent's own metrics: names, attributes, and the two ledgers that must balance in them."""

from __future__ import annotations

import os

import pytest

from otelbpf.config import Config, OtlpGrpc
from otelbpf.export import Exporters
from otelbpf.export.account import SignalLedger
from otelbpf.export.instruments import Reading, all_instruments
from otelbpf.export.keeper import SpoolSize
from otelbpf.export.memory import Memory
from otelbpf.export.numbers import AgentNumbers, MapFill, OwnProcess, ProbeStatus, RunTime, own_process
from otelbpf.export.own_resource import own_resource
from otelbpf.export.queue import QueueSize
from otelbpf.export.telemetry import Telemetry
from otelbpf.ledger import EventLedger
from otelbpf.signals import names

EVENTS = EventLedger(seen=29, processed=10, filtered=5, throttled=2, undecodable=1, pending=4, lost={"ring_full": 7})
NUMBERS = AgentNumbers(
    events={"tcp_connection": EVENTS},
    records={
        (exporter, signal): SignalLedger(100, 60, 5, {"queue_full": 20, "given_up": 5}, 6, spooled=4)
        for exporter in ("otlp_grpc", "console")
        for signal in ("logs", "metrics", "traces")
    },
    queues={("otlp_grpc", "logs"): QueueSize(123, 456, 2)},
    spools={"otlp_grpc": SpoolSize(123, 456, 10**18), "otlp_http": SpoolSize(0, 456, None)},
    statuses=[ProbeStatus("tcp_connection", "tp_btf", "degraded"), ProbeStatus("dns_lookup", "", "off")],
    run_times={"tcp_connection": RunTime(1_500_000_000, 3)},
    maps={"pending": MapFill(1, 2)},
    overflows={"throttle_totals": 3},
    caches={"process": (1, 2, 3, 4)},
    series={"otelbpf.tcp.io": 5},
)
READING = Reading(
    NUMBERS, OwnProcess(1.5, 0.5, 4096, 9), {"otlp_grpc": "otelbpf_otlp_grpc", "console": "otelbpf_console"}
)


def points() -> dict[str, list[tuple[float, dict[str, str]]]]:
    return {str(metric): list(observed(READING)) for metric, observed in all_instruments()}


def test_every_agent_metric_has_an_instrument_and_the_other_way_round():
    told = set(points()) | {"otelbpf.agent.event.lag"}
    named = {name for name in names.METRICS if name.startswith(("otelbpf.agent.", "otel.sdk.", "process."))}
    assert told == named


def test_every_attribute_stands_in_the_table():
    used = {name for rows in points().values() for _, attributes in rows for name in attributes}
    assert used <= set(names.ATTRIBUTES)


def test_points_of_one_metric_have_different_attributes():
    for rows in points().values():
        assert len({tuple(sorted(attributes.items())) for _, attributes in rows}) == len(rows)


def test_the_event_ledger_balances():
    found = points()
    (seen, _), *_ = found["otelbpf.agent.kernel.events"]
    outcomes = sum(value for value, _ in found["otelbpf.agent.events"])
    (pending, _), *_ = found["otelbpf.agent.pending"]
    assert seen == outcomes + pending == 29


@pytest.mark.parametrize("kind", ["log", "metric_data_point", "span"])
def test_the_record_ledger_balances(kind):
    found = points()
    exported = sum(value for value, _ in found[f"otel.sdk.exporter.{kind}.exported"])
    inflight = sum(value for value, _ in found[f"otel.sdk.exporter.{kind}.inflight"])
    assert exported + inflight == 200
    reasons = {attributes.get("error.type") for _, attributes in found[f"otel.sdk.exporter.{kind}.exported"]}
    assert reasons == {None, "rejected", "queue_full", "given_up"}


def test_a_probe_without_a_way_names_none():
    rows = {attributes["otelbpf.probe.name"]: attributes for _, attributes in points()["otelbpf.agent.probe.status"]}
    assert "otelbpf.probe.way" not in rows["dns_lookup"]
    assert rows["tcp_connection"]["otelbpf.probe.state"] == "degraded"


def test_what_this_process_uses():
    used = own_process()
    assert used.resident_bytes > 2**20
    assert used.user_s > 0
    before = used.descriptors
    opened = os.open(os.devnull, os.O_RDONLY)
    try:
        assert own_process().descriptors == before + 1
    finally:
        os.close(opened)


def test_who_the_agent_is():
    assert own_resource(Config(), "node", None)["service.instance.id"] == "node"
    resource = own_resource(Config(), None, "0123")
    assert resource["service.instance.id"] == "0123"
    assert "host.name" not in resource
    in_pod = own_resource(Config(), None, "0123", {"POD_UID": "u1", "POD_NAME": "otelbpf-x", "POD_NAMESPACE": "ns"})
    assert in_pod == resource | {
        "service.instance.id": "u1", "k8s.pod.uid": "u1", "k8s.pod.name": "otelbpf-x", "k8s.namespace.name": "ns",
    }  # fmt: skip


def test_growing_losses_become_one_event_each_and_standing_ones_none():
    config = Config(exporters={"x": OtlpGrpc(endpoint="http://127.0.0.1:9")})
    telemetry = Telemetry(config, Exporters([Memory()]), lambda: NUMBERS)
    telemetry.lost("otlp_grpc", "logs", "given_up", 5, "UNAVAILABLE: gone")
    telemetry._tell_losses(NUMBERS)
    bodies = [told.body for told in telemetry._told]
    assert bodies[0] == "7 events of tcp_connection lost: ring_full"
    assert "5 logs lost at exporter otlp_grpc: given_up (UNAVAILABLE: gone)" in bodies
    assert len(bodies) == 1 + 6 * 3
    telemetry._tell_losses(NUMBERS)
    assert len(telemetry._told) == len(bodies)
