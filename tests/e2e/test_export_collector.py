"""Both senders against a real collector that is stopped, killed and started again: the ledger and its files agree."""

from __future__ import annotations

import time

import pytest

from otelbpf.config import OtlpGrpc, OtlpHttp, Retry
from otelbpf.export import probe, sender
from otelbpf.export.account import SignalLedger
from tests.e2e.collector import Collector
from tests.e2e.polling import wait_for
from tests.peers.otlp import log_request, metric_request

SOON = Retry(initial_interval=0.05, max_interval=0.2)


@pytest.fixture
def collector(tmp_path):
    with Collector(tmp_path) as running:
        yield running


@pytest.fixture(params=["grpc", "http"])
def protocol(request):
    return request.param


def settings(collector: Collector, protocol: str, **more) -> OtlpGrpc | OtlpHttp:
    if protocol == "grpc":
        return OtlpGrpc(endpoint=collector.grpc_endpoint, retry_on_failure=SOON, **more)
    return OtlpHttp(endpoint=collector.http_endpoint, retry_on_failure=SOON, **more)


def arrived(collector: Collector, protocol: str) -> list[int]:
    return [int(record.body.split()[1]) for record in collector.records(protocol)]


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_logs_and_metrics(collector, protocol, compression):
    with sender("peer", settings(collector, protocol, compression=compression)) as sending:
        for number in range(10):
            sending.export(log_request(100, 100 * number))
            sending.export(metric_request(50))
        assert sending.flush(time.monotonic() + 30)
    assert sending.ledger() == {
        "logs": SignalLedger(1000, 1000, 0, {}, 0),
        "metrics": SignalLedger(500, 500, 0, {}, 0),
    }
    collector.stop()
    assert arrived(collector, protocol) == list(range(1000))
    assert len(collector.points(protocol)) == 500


def test_it_is_well(collector, protocol):
    assert probe("peer", settings(collector, protocol))[0]


def test_the_ports_exchanged(collector):
    ok, sentence = probe("peer", OtlpGrpc(endpoint=collector.http_endpoint))
    assert not ok
    assert "http/protobuf" in sentence
    ok, sentence = probe("peer", OtlpHttp(endpoint=collector.grpc_endpoint))
    assert not ok
    assert "otlp_grpc" in sentence


def test_a_request_above_the_collector_s_limit(collector):
    with sender("peer", settings(collector, "grpc")) as sending:
        sending.export(log_request(50, padding=100_000))
        sending.export(log_request(10, 50))
        assert sending.flush(time.monotonic() + 30)
    assert sending.ledger()["logs"] == SignalLedger(60, 60, 0, {}, 0)


def test_it_stops_and_comes_back(collector, protocol):
    with sender("peer", settings(collector, protocol)) as sending:
        sending.export(log_request(100))
        wait_for(lambda: sending.ledger()["logs"].queued == 0, "the first records")
        collector.stop()
        for number in range(1, 10):
            sending.export(log_request(100, 100 * number))
        wait_for(lambda: not sending.is_up, "the outage to be seen")
        assert sending.ledger()["logs"].balanced
        collector.start()
        assert sending.flush(time.monotonic() + 30)
    assert sending.ledger()["logs"] == SignalLedger(1000, 1000, 0, {}, 0)
    collector.stop()
    assert arrived(collector, protocol) == list(range(1000))


def forget_half_lines(collector: Collector) -> None:
    """What the collector was writing when it was killed would run into what it writes next."""
    for path in collector.directory.glob("*.jsonl"):
        written = path.read_bytes()
        path.write_bytes(written[: written.rfind(b"\n") + 1])


def test_it_is_killed_under_load(collector, protocol):
    """What was acknowledged and not yet written dies with the collector; nothing else is missing, or twice unless
    its acknowledgement was lost."""
    with sender("peer", settings(collector, protocol)) as sending:
        for number in range(200):
            if number == 100:
                collector.kill()
            if number == 150:
                forget_half_lines(collector)
                collector.start()
            sending.export(log_request(10, 10 * number))
            assert sending.ledger()["logs"].balanced
        assert sending.flush(time.monotonic() + 30)
    assert sending.ledger()["logs"] == SignalLedger(2000, 2000, 0, {}, 0)
    collector.stop()
    found = arrived(collector, protocol)
    assert set(found) <= set(range(2000))
    assert set(range(1500, 2000)) <= set(found)
