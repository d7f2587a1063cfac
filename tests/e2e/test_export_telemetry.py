"""The agent's own signals as a real collector, and a scripted peer, receive them."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from otelbpf.config import Config, Console, OtlpGrpc, OtlpHttp, Retry, Spool, Tls
from otelbpf.config.settings import Telemetry as TelemetrySettings
from otelbpf.enrich.kubernetes.watcher import WatchState
from otelbpf.export import Exporters, exporters
from otelbpf.export.instruments import all_instruments
from otelbpf.export.numbers import AgentNumbers, MapFill, ProbeStatus, RunTime
from otelbpf.export.telemetry import Telemetry
from otelbpf.guards.guard import GuardState
from otelbpf.guards.watchdog import StageState
from otelbpf.ledger import EventLedger
from otelbpf.signals import names
from otelbpf.signals.sampling import DetailLedger
from tests.e2e.collector import Collector, latest, own
from tests.e2e.polling import wait_for
from tests.peers.certificates import Authority
from tests.peers.otlp import log_request
from tests.peers.scripted import Accept, Fail, GrpcPeer, Hang, HttpPeer

if TYPE_CHECKING:
    from pathlib import Path

AT_THE_END = TelemetrySettings(interval=3600)
"""So that what is sent when does not depend on how fast the machine is."""


@dataclass
class Agent:
    """Numbers that a test may change; the record ledger is that of real exporters."""

    outputs: Exporters
    events: dict[str, EventLedger] = field(default_factory=dict)

    def read(self) -> AgentNumbers:
        return AgentNumbers(
            events=self.events,
            records=self.outputs.ledger(),
            queues=self.outputs.sizes(),
            spools=self.outputs.spools(),
            statuses=[ProbeStatus("tcp_connection", "tp_btf", "attached"), ProbeStatus("dns_lookup", "", "failed")],
            run_times={"tcp_connection": RunTime(2_500_000_000, 7)},
            maps={"filter_ports": MapFill(3, 64)},
            overflows={"throttle_totals": 3},
            caches={"process": (10, 5, 1, 4)},
            series={"otelbpf.tcp.io": 42},
            series_overflows={"otelbpf.tcp.io": 1},
            stages=[StageState("line", "runs", 0.0)],
            watches=[WatchState("pods", False, time.time_ns() - 10**9, "refused", 3, 0)],
            held={"named": 2},
            details={"tcp_connection": DetailLedger(6, {"cpu_limit": 3})},
            guards=[GuardState("cpu_limit", "sampled", 1, 0.75, 2, 1)],
            nat=(1, 0),
        )


def settings(kind: str, endpoint: str, spool: Path | str = "") -> OtlpGrpc | OtlpHttp:
    retry = Retry(initial_interval=0.05, max_interval=0.2)
    on_disk = Spool(directory=str(spool))
    return (OtlpGrpc if kind == "grpc" else OtlpHttp)(
        endpoint=endpoint, retry_on_failure=retry, timeout=2, spool=on_disk
    )


def soon(seconds: float = 30) -> float:
    return time.monotonic() + seconds


@pytest.fixture(params=["grpc", "http"])
def kind(request) -> str:
    return request.param


def test_everything_arrives_under_its_name_and_balances(kind, tmp_path):
    with Collector(tmp_path) as collector:
        endpoint = collector.grpc_endpoint if kind == "grpc" else collector.http_endpoint
        config = Config(exporters={f"otlp_{kind}": settings(kind, endpoint, tmp_path / "spool")}, telemetry=AT_THE_END)
        with exporters(config) as outputs:
            agent = Agent(outputs)
            agent.events["tcp_connection"] = EventLedger(
                seen=20, processed=9, filtered=4, throttled=1, undecodable=1, pending=2, lost={"ring_full": 3}
            )
            with Telemetry(config, outputs, agent.read, host_name="node", host_id="0123") as telemetry:
                telemetry.started("ready")
                telemetry.probe_failed("dns_lookup", "no cgroup2")
                outputs.export(log_request(5))
                assert outputs.flush(soon())
                telemetry.stopped("stopped")
                assert telemetry.close(soon())
        collector.stop()
        points = latest(collector.own_points(kind))
        records = collector.own_records(kind)
    check_points(points, kind)
    check_records(records)


def check_points(points, kind) -> None:
    found = {(point.metric, *sorted(point.attributes.items())): point.value for point in points}
    made = {str(metric) for metric, _ in all_instruments()} | {"otelbpf.agent.event.lag"}
    absent = {"otel.sdk.exporter.metric_data_point.exported", "otel.sdk.exporter.metric_data_point.inflight"}
    absent |= {"otel.sdk.exporter.span.exported", "otel.sdk.exporter.span.inflight"}
    assert {point.metric for point in points} == made - absent
    assert all(names.METRICS[point.metric].unit == point.unit for point in points)
    assert all(name in names.ATTRIBUTES for point in points for name in point.attributes)
    probe = ("otelbpf.probe.name", "tcp_connection")
    seen = found["otelbpf.agent.kernel.events", probe]
    outcomes = sum(value for key, value in found.items() if key[0] == "otelbpf.agent.events")
    assert (seen, outcomes + found["otelbpf.agent.pending", probe]) == (20, 20)
    assert found[
        "otelbpf.agent.events", ("error.type", "ring_full"), ("otelbpf.event.outcome", "lost"), probe
    ] == 3  # fmt: skip
    component = ("otel.component.name", f"otlp_{kind}"), ("otel.component.type", f"otelbpf_otlp_{kind}")
    assert found["otel.sdk.exporter.log.exported", *component] == 5
    assert found["otel.sdk.exporter.log.inflight", *component] == 0
    assert found["otelbpf.agent.probe.run.time", probe] == 2.5
    assert found["otelbpf.agent.map.capacity", ("otelbpf.map.name", "filter_ports")] == 64
    assert found["otelbpf.agent.spool.capacity", ("otelbpf.queue.name", f"otlp_{kind}")] == 2**30
    assert found["otelbpf.agent.queue.capacity", ("otelbpf.queue.name", f"otlp_{kind}/logs")] == 32 * 2**20
    assert (
        found["otelbpf.agent.probe.status", ("otelbpf.probe.name", "dns_lookup"), ("otelbpf.probe.state", "failed")]
        == 1
    )
    shed = ("error.type", "cpu_limit"), probe, ("otelbpf.record.outcome", "shed")
    assert found["otelbpf.agent.log.records", *shed] == 3
    assert found["otelbpf.agent.guard.step", ("otelbpf.guard.name", "cpu_limit")] == 1
    lag = next(point for point in points if point.metric == "otelbpf.agent.event.lag")
    assert (lag.count, lag.bounds) == (1, names.LAG_BOUNDS)
    memory = next(point for point in points if point.metric == "process.memory.usage")
    assert memory.value > 10 * 2**20
    resource = memory.resource
    assert (resource["service.name"], resource["service.instance.id"], resource["host.name"]) == (
        "otelbpf",
        "0123",
        "node",
    )
    assert resource["telemetry.sdk.language"] == "python"


def check_records(records) -> None:
    assert all(own(record) and record["otel.event.name"] == record.event_name for record in records)
    assert [(record.event_name, record.severity, record.body) for record in records] == [
        ("otelbpf.agent.started", 9, "ready"),
        ("otelbpf.agent.probe_failed", 17, "dns_lookup: no cgroup2"),
        ("otelbpf.agent.stopped", 9, "stopped"),
        ("otelbpf.agent.data_lost", 13, "3 events of tcp_connection lost: ring_full"),
    ]
    assert all(record.event_name in names.EVENTS and record.time_ns for record in records)


def test_an_outage_is_told_when_it_is_over():
    """The events of an outage are the proof that it was seen; they are kept until the peer is back."""
    with GrpcPeer() as peer:
        config = Config(exporters={"otlp_grpc": settings("grpc", peer.endpoint)}, telemetry=AT_THE_END)
        with exporters(config) as outputs, Telemetry(config, outputs, Agent(outputs).read, host_id="0") as telemetry:
            peer.play(Fail("UNAVAILABLE"), Accept(2, "too old"))
            outputs.export(log_request(5))
            outputs.flush(soon())
            assert telemetry.close(soon())
    bodies = b"".join(peer.bodies())
    for name in (names.EVENT_AGENT_EXPORTER_DOWN, names.EVENT_AGENT_EXPORTER_UP, names.EVENT_AGENT_DATA_LOST):
        assert name.encode() in bodies
    assert b"2 logs lost at exporter otlp_grpc: rejected (too old)" in bodies


@pytest.mark.parametrize(
    ("peer_type", "not_now"), [(GrpcPeer, Fail("UNAVAILABLE")), (HttpPeer, Fail(503))], ids=["grpc", "http"]
)
def test_an_event_that_the_peer_does_not_take_waits_for_no_other(peer_type, not_now, monkeypatch):
    monkeypatch.setattr("otelbpf.export.keeping.AGAIN_S", 0.2)
    with peer_type() as peer:
        peer.play(*[not_now] * 7)
        one = OtlpGrpc if peer_type is GrpcPeer else OtlpHttp
        config = Config(exporters={"x": one(endpoint=peer.endpoint, timeout=0.5)}, telemetry=AT_THE_END)
        with exporters(config) as outputs, Telemetry(config, outputs, Agent(outputs).read) as telemetry:
            telemetry.started("ready")
            wait_for(peer.bodies, "the event")
            telemetry.probe_failed("dns_lookup", "no cgroup2")
            wait_for(lambda: len(peer.bodies()) > 1, "the next event")
    first, second = peer.bodies()[:2]
    assert [b"otelbpf.agent.started" in body for body in (first, second)] == [True, False]
    assert [b"otelbpf.agent.probe_failed" in body for body in (first, second)] == [False, True]
    assert len([one for one in peer.received if one.step == not_now]) == 7


@pytest.mark.parametrize("peer_type", [GrpcPeer, HttpPeer])
def test_a_peer_that_hangs_does_not_hold_the_end(peer_type, capfd):
    with peer_type() as peer:
        peer.play(*[Hang()] * 20)
        kind = "grpc" if peer_type is GrpcPeer else "http"
        config = Config(exporters={"x": settings(kind, peer.endpoint)}, telemetry=AT_THE_END)
        with exporters(config) as outputs, Telemetry(config, outputs, Agent(outputs).read) as telemetry:
            telemetry.started("ready")
            telemetry._starting.join(30)
            before = time.monotonic()
            assert not telemetry.close(soon(0.3))
            assert time.monotonic() - before < 10  # not the half minute that the SDK takes
    assert capfd.readouterr() == ("", "")


def test_what_is_asked_after_the_end_is_what_was_so_at_the_end(kind):
    """The SDK may ask from a thread that is late, when the probes and their maps are gone."""
    config = Config(exporters={"x": settings(kind, "http://127.0.0.1:9")}, telemetry=AT_THE_END)
    with exporters(config) as outputs:
        agent = Agent(outputs)
        asked = []
        with Telemetry(config, outputs, lambda: asked.append(agent.read()) or asked[-1]) as telemetry:
            telemetry.close(soon(0.3))
            at_the_end = list(asked)
            assert telemetry._new_reading().agent is at_the_end[-1]
        assert asked == at_the_end


def test_nobody_there_says_nothing_on_the_terminal(kind, capfd):
    config = Config(exporters={"x": settings(kind, "http://127.0.0.1:9")}, telemetry=AT_THE_END)
    with exporters(config) as outputs, Telemetry(config, outputs, Agent(outputs).read) as telemetry:
        telemetry.started("ready")
        telemetry.close(soon(3))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("peer_type", [GrpcPeer, HttpPeer])
def test_tls_with_another_name_and_our_certificate(peer_type, tmp_path):
    authority = Authority(tmp_path).create()
    server, client = authority.sign("server", "DNS:collector.test"), authority.sign("client", "DNS:client")
    tls = Tls(
        ca_file=str(authority.certificate),
        cert_file=str(client.certificate),
        key_file=str(client.key),
        server_name_override="collector.test",
    )
    with peer_type(certificate=server.certificate, key=server.key, authority=authority.certificate) as peer:
        kind = OtlpGrpc if peer_type is GrpcPeer else OtlpHttp
        exporter = kind(endpoint=f"https://localhost:{peer.port}", tls=tls, headers={"X-Tenant": "blue"})
        config = Config(exporters={"x": exporter}, telemetry=AT_THE_END)
        with exporters(config) as outputs, Telemetry(config, outputs, Agent(outputs).read) as telemetry:
            telemetry.started("ready")
            outputs.export(log_request(5))
            assert outputs.flush(soon())
            assert telemetry.close(soon())
    assert {one.signal for one in peer.received} == {"logs", "metrics"}
    assert all(one.headers["x-tenant"] == "blue" for one in peer.received)


@pytest.mark.parametrize(
    "config",
    [
        Config(exporters={"console": Console()}),
        Config(exporters={"x": OtlpGrpc(endpoint="a:1")}, telemetry=TelemetrySettings(enabled=False)),
    ],
    ids=["no peer", "not wanted"],
)
def test_without_a_peer_or_the_wish_nothing_is_started(config):
    with Exporters([]) as outputs, Telemetry(config, outputs, Agent(outputs).read) as telemetry:
        threads = threading.active_count()
        telemetry.started("ready")
        telemetry.stopped("done")
        assert telemetry.close(time.monotonic())
        assert threading.active_count() == threads
