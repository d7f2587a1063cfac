"""Both senders against peers that follow a script: every status, partial success, hangs, resets, garbage, size limits.

After each script both ends' accounts must agree to the last record.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from otelbpf.config import OtlpGrpc, OtlpHttp, Retry, SendingQueue
from otelbpf.export import sender
from otelbpf.export.account import SignalLedger
from tests.e2e.polling import wait_for
from tests.peers.otlp import log_request, metric_request, numbers, points
from tests.peers.scripted import Accept, Fail, GrpcPeer, Hang, HttpPeer, Reset, Say, signals_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otelbpf.export.sender import Sender
    from tests.peers.scripted import Peer

SOON = Retry(initial_interval=0.01, max_interval=0.05, max_elapsed_time=30)
PEERS = {"grpc": GrpcPeer, "http": HttpPeer}
GRPC_CODES = (
    "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "UNAUTHENTICATED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
    "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
)  # fmt: skip
GRPC_RETRYABLE = {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"}

ONE_RECORD = {"UNKNOWN", "INVALID_ARGUMENT", "INTERNAL"}
"""Refusals after which the halves are tried."""


@pytest.fixture(params=["grpc", "http"])
def peer(request) -> Iterator[Peer]:
    with PEERS[request.param]() as running:
        yield running


def exporter(peer: Peer, retry: Retry = SOON, **settings) -> Sender:
    kind = OtlpGrpc if isinstance(peer, GrpcPeer) else OtlpHttp
    return sender("peer", kind(endpoint=peer.endpoint, retry_on_failure=retry, **settings))


def soon() -> float:
    return time.monotonic() + 30


def code(peer: Peer, grpc: str, http: int) -> str | int:
    return grpc if isinstance(peer, GrpcPeer) else http


def test_the_bytes_arrive_as_they_are(peer):
    logs, metrics = log_request(5), metric_request(3)
    with exporter(peer) as sending:
        sending.export(logs)
        sending.export(metrics)
        assert sending.flush(soon())
    assert peer.bodies("logs") == [logs.body]
    assert peer.bodies("metrics") == [metrics.body]
    assert sending.ledger() == {"logs": SignalLedger(5, 5, 0, {}, 0), "metrics": SignalLedger(3, 3, 0, {}, 0)}


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_compression_and_headers(peer, compression):
    if compression == "zstd" and isinstance(peer, GrpcPeer):
        return  # no setting of it: the settings allow what gRPC can
    request = log_request(100)
    peer.play(Fail(code(peer, "UNAVAILABLE", 503)))
    with exporter(peer, compression=compression, headers={"X-Tenant": "blue"}) as sending:
        sending.export(request)
        assert sending.flush(soon())
    assert peer.bodies("logs", accepted=False) == [request.body] * 2
    headers = peer.received[-1].headers
    assert headers["x-tenant"] == "blue"
    assert headers["user-agent"].startswith("otelbpf/")
    if isinstance(peer, HttpPeer):
        assert (headers[":path"], headers["content-type"]) == ("/v1/logs", "application/x-protobuf")
        assert headers.get("content-encoding") == (compression if compression != "none" else None)


def test_a_peer_that_hangs_over_every_record_is_not_believed(peer):
    """An empty request it answers, as a collector does whose pipeline is blocked: no record is at fault."""
    with exporter(peer, timeout=0.1) as sending:
        sending.export(log_request(5))
        wait_for(lambda: sending.ledger()["logs"].accepted == 5, "the first records")
        peer.hangs_over = b"record"
        for number in range(1, 4):
            sending.export(log_request(5, 5 * number))
        wait_for(lambda: len(peer.received) > 60, "many tries")
        assert sending.ledger()["logs"] == SignalLedger(20, 5, 0, {}, 15)
        peer.hangs_over = b""
        assert sending.flush(soon())
    assert sending.ledger()["logs"] == SignalLedger(20, 20, 0, {}, 0)
    assert sorted(numbers(peer.bodies())) == list(range(20))


def test_a_binary_header():
    with GrpcPeer() as peer, exporter(peer, headers={"X-Tenant-Bin": "blue"}) as sending:
        sending.export(log_request(5))
        assert sending.flush(soon())
    assert peer.received[-1].headers["x-tenant-bin"] == b"blue"
    assert sending.ledger()["logs"].accepted == 5


def test_connections_are_kept():
    with HttpPeer() as peer, exporter(peer) as sending:
        for number in range(20):
            sending.export(log_request(1, number))
            sending.export(metric_request(1))
        assert sending.flush(soon())
    assert (len(peer.received), peer.connections) == (40, 1)


def test_partial_success(peer):
    peer.play(Accept(2, "too old"), Accept(0, "slow down, please"), Accept(999, "nonsense"))
    with exporter(peer) as sending:
        for number in range(4):
            sending.export(log_request(5, 5 * number))
        assert sending.flush(soon())
    assert sending.ledger()["logs"] == SignalLedger(20, 13, 7, {}, 0)


@pytest.mark.parametrize("name", GRPC_CODES)
def test_every_grpc_code(name):
    request = log_request(5)
    with GrpcPeer() as peer, exporter(peer) as sending:
        peer.play(Fail(name, "because"))
        sending.export(request)
        assert sending.flush(soon())
    bodies = peer.bodies(accepted=False)
    assert bodies[0] == request.body
    if name in GRPC_RETRYABLE:
        assert bodies == [request.body] * 2
        assert sending.ledger()["logs"] == SignalLedger(5, 5, 0, {}, 0)
    elif name in ONE_RECORD:
        assert numbers(bodies[1:]) == list(range(5))
        assert sending.ledger()["logs"] == SignalLedger(5, 5, 0, {}, 0)
    else:
        assert len(bodies) == 1
        assert sending.ledger()["logs"] == SignalLedger(5, 0, 5, {}, 0)


def test_every_http_status():
    retried = {407, 429, 502, 503, 504}
    halved = {400, 413, 422, 500}
    statuses = [*range(300, 600)]
    with HttpPeer() as peer, exporter(peer) as sending:
        for status in statuses:
            peer.play(Fail(status, "because"))
            if status in retried:
                peer.play(Accept())
            if status in halved:
                peer.play(Accept(), Accept())
        for number, _ in enumerate(statuses):
            sending.export(log_request(2, 2 * number))
        assert sending.flush(soon())
    # A 413 was met: what is as large is halved from then on without being asked for.
    assert sending.ledger()["logs"].balanced
    assert sending.ledger()["logs"].accepted >= 2 * len(retried | halved)


def test_exhausted_with_retry_info_is_tried_again():
    with GrpcPeer() as peer, exporter(peer) as sending:
        peer.play(Fail("RESOURCE_EXHAUSTED", "later", retry_after=0.02))
        sending.export(log_request(5))
        assert sending.flush(soon())
    assert sending.ledger()["logs"].accepted == 5


@pytest.mark.parametrize("slow", [Retry(initial_interval=3000, max_interval=3000, max_elapsed_time=0)])
def test_the_peer_s_wait_is_kept_instead_of_ours(peer, slow):
    peer.play(Fail(code(peer, "UNAVAILABLE", 503), "later", retry_after=0))
    with exporter(peer, slow) as sending:
        sending.export(log_request(5))
        wait_for(lambda: sending.ledger()["logs"].accepted == 5, "the second try")


def test_a_wait_that_the_peer_asks_for_holds_only_its_signal(peer):
    peer.play(Fail(code(peer, "UNAVAILABLE", 503), "later", retry_after=3000))
    with exporter(peer, Retry(max_elapsed_time=0)) as sending:
        sending.export(log_request(5))
        wait_for(lambda: peer.received, "the first try")
        sending.export(metric_request(3))
        wait_for(lambda: sending.ledger()["metrics"].accepted == 3, "the metrics")
        assert sending.ledger()["logs"].queued == 5


def test_a_peer_that_hangs_is_left_after_the_timeout(peer):
    peer.play(Hang())
    with exporter(peer, timeout=0.2) as sending:
        sending.export(log_request(5))
        assert sending.flush(soon())
    assert len(peer.received) == 2
    assert sending.ledger()["logs"].accepted == 5


def test_a_peer_that_hangs_does_not_hold_the_end(peer):
    peer.play(*[Hang()] * 10)
    with exporter(peer, timeout=60) as sending:
        for number in range(3):
            sending.export(log_request(5, 5 * number))
        wait_for(lambda: peer.received, "the request")
        assert not sending.flush(time.monotonic() + 0.2)
    assert sending.ledger()["logs"] == SignalLedger(15, 0, 0, {"shutdown": 15}, 0)


def test_a_reset_in_the_middle_is_tried_again():
    with HttpPeer() as peer, exporter(peer) as sending:
        peer.play(Reset(), Reset())
        sending.export(log_request(5))
        assert sending.flush(soon())
    assert sending.ledger()["logs"].accepted == 5


@pytest.mark.parametrize("body", [b"\xff\xff\xff", b"<html>", b"\x0a\x7f"])
def test_an_answer_of_garbage_with_success_is_success(peer, body):
    peer.play(Say(body))
    with exporter(peer) as sending:
        sending.export(log_request(5))
        assert sending.flush(soon())
    assert sending.ledger()["logs"].accepted == 5


def test_a_web_page_is_not_taken_for_success():
    with HttpPeer() as peer, exporter(peer) as sending:
        peer.play(Say(b"<html>welcome</html>", "text/html"))
        sending.export(log_request(5))
        assert sending.flush(soon())
    assert sending.ledger()["logs"].rejected == 5


def test_an_endless_answer_is_not_read_to_its_end():
    with HttpPeer() as peer, exporter(peer) as sending:
        peer.play(Say(b"x" * 2**24, "text/plain"), Fail(403))
        sending.export(log_request(5))
        sending.export(log_request(3, 5))
        assert sending.flush(soon())
    assert sending.ledger()["logs"] == SignalLedger(8, 5, 3, {}, 0)


def test_a_peer_that_refuses_everything_is_not_asked_why_each_time():
    with HttpPeer() as peer, exporter(peer) as sending:
        peer.play(*[Fail(400, "no")] * 30)
        for number in range(30):
            sending.export(log_request(1, number))
        assert sending.flush(soon())
    assert peer.connections <= 4
    assert sending.ledger()["logs"].rejected == 30


def test_json_answers_are_read_too():
    with HttpPeer() as peer, exporter(peer) as sending:
        peer.play(Say(b'{"partialSuccess": {"rejectedLogRecords": "2"}}', "application/json"))
        sending.export(log_request(5))
        assert sending.flush(soon())
    assert sending.ledger()["logs"] == SignalLedger(5, 3, 2, {}, 0)


@pytest.mark.parametrize("peer", [GrpcPeer(max_bytes=10_000), HttpPeer(max_bytes=10_000)], ids=["grpc", "http"])
def test_a_request_that_is_too_large_is_sent_in_parts(peer):
    with peer, exporter(peer) as sending:
        for number in range(3):
            sending.export(log_request(100, 100 * number, padding=200))
        sending.export(metric_request(400))
        assert sending.flush(soon())
    assert numbers(peer.bodies()) == list(range(300))
    assert points(peer.bodies("metrics")) == 400
    assert sending.ledger()["logs"] == SignalLedger(300, 300, 0, {}, 0)
    assert sending.ledger()["metrics"] == SignalLedger(400, 400, 0, {}, 0)


@pytest.mark.parametrize("peer", [GrpcPeer(max_bytes=10_000), HttpPeer(max_bytes=10_000)], ids=["grpc", "http"])
def test_a_record_that_is_too_large_is_rejected_with_a_sentence(peer, caplog):
    with peer, exporter(peer) as sending:
        sending.export(log_request(1, padding=20_000))
        sending.export(log_request(3, 1))
        assert sending.flush(soon())
    assert sending.ledger()["logs"] == SignalLedger(4, 3, 1, {}, 0)
    assert "does not take requests of this size" in caplog.messages[0]
    assert "larger" in caplog.messages[0] or "too large" in caplog.messages[0]


@pytest.mark.parametrize("where", [0, 41, 99])
def test_one_bad_record_is_found_and_the_others_arrive(peer, where):
    peer.refuses = b"record %d " % where
    with exporter(peer) as sending:
        sending.export(log_request(100))
        sending.export(log_request(50, 100))
        assert sending.flush(soon())
    assert numbers(peer.bodies()) == [number for number in range(150) if number != where]
    assert sending.ledger()["logs"] == SignalLedger(150, 149, 1, {}, 0)
    assert len(peer.received) <= 2 * 8 + 2


@pytest.mark.parametrize("count", [1, 50])
def test_a_record_that_the_peer_hangs_over_does_not_block_the_others(peer, count):
    peer.hangs_over = b"record 0 "
    with exporter(peer, timeout=0.3) as sending:
        sending.export(log_request(count))
        sending.export(log_request(10, count))
        wait_for(lambda: not sending.ledger()["logs"].queued, "the queue to empty", 60)
    assert sorted(numbers(peer.bodies())) == list(range(1, count + 10))
    assert sending.ledger()["logs"] == SignalLedger(count + 10, count + 9, 1, {}, 0)


def test_a_peer_that_refuses_whatever_it_gets_is_soon_believed(peer):
    peer.refuses = b"record"
    with exporter(peer) as sending:
        for number in range(50):
            sending.export(log_request(100, 100 * number))
        assert sending.flush(soon())
    assert sending.ledger()["logs"] == SignalLedger(5000, 0, 5000, {}, 0)
    assert len(peer.received) < 80


def test_several_requests_are_under_way(peer):
    peer.play(*[Hang()] * 3)
    with exporter(peer, sending_queue=SendingQueue(num_consumers=4), timeout=60) as sending:
        for number in range(100):
            sending.export(log_request(2, 2 * number))
        wait_for(lambda: sending.ledger()["logs"].accepted == 194, "those that do not hang")
        assert sending.sizes()["logs"].in_flight == 6
        sending.flush(time.monotonic() + 0.2)
    assert sending.ledger()["logs"] == SignalLedger(200, 194, 0, {"shutdown": 6}, 0)


def test_a_peer_that_goes_and_comes_back(peer):
    """Down, up, down, up: every record is there once, in order, as none was under way when it went."""
    with exporter(peer, timeout=2) as sending:
        made = 0
        for _ in range(3):
            sending.export(log_request(5, made))
            made += 5
            wait_for(lambda: sending.ledger()["logs"].queued == 0, "the queue to empty")
            peer.__exit__()
            for _ in range(4):
                sending.export(log_request(5, made))
                made += 5
            wait_for(lambda: not sending.is_up, "the outage to be seen")
            peer.__enter__()
            wait_for(lambda: sending.ledger()["logs"].queued == 0, "the queue to empty")
            assert sending.is_up
        assert sending.flush(soon())
    assert numbers(peer.bodies()) == list(range(made))
    assert sending.ledger()["logs"] == SignalLedger(made, made, 0, {}, 0)


def test_an_outage_longer_than_the_queue(peer):
    """What does not fit is dropped from the old end and counted; the rest arrives in order."""
    size = len(log_request(10, 0, padding=90_000).body)
    with exporter(peer, sending_queue=SendingQueue(max_bytes=4 * 2**20)) as sending:
        peer.__exit__()
        for number in range(20):
            sending.export(log_request(10, 10 * number, padding=90_000))
        peer.__enter__()
        assert sending.flush(soon())
    ledger = sending.ledger()["logs"]
    assert ledger.balanced
    assert (ledger.made, ledger.queued, ledger.rejected) == (200, 0, 0)
    assert ledger.accepted >= 4 * 2**20 // size * 10 - 10
    arrived = numbers(peer.bodies())
    assert arrived == sorted(arrived)
    assert len(arrived) == ledger.accepted
    assert arrived[-1] == 199
    assert ledger.dropped == {"queue_full": 200 - ledger.accepted}


def test_everything_at_once_balances(peer):
    """A long script of all that can happen; both ends agree on every record."""
    retry, refuse = code(peer, "UNAVAILABLE", 503), code(peer, "PERMISSION_DENIED", 403)
    steps = [
        Accept(),
        Fail(retry),
        Accept(1, "x"),
        Fail(refuse, "y"),
        Accept(),
        Fail(retry, retry_after=0),
        Accept(3, "z"),
    ]
    peer.play(*steps * 10)
    with exporter(peer) as sending:
        for number in range(40):
            sending.export(log_request(4, 4 * number))
            sending.export(metric_request(6))
        assert sending.flush(soon())
    for signal, there in (("logs", len(numbers(peer.bodies()))), ("metrics", points(peer.bodies("metrics")))):
        ledger = sending.ledger()[signal]
        partly = sum(
            one.step.rejected for one in peer.received if one.signal == signal and isinstance(one.step, Accept)
        )
        refused = sum(1 for one in peer.received if one.signal == signal and one.step == Fail(refuse, "y"))
        each = {"logs": 4, "metrics": 6}[signal]
        assert ledger.balanced
        assert ledger.accepted == there - partly
        assert ledger.rejected == partly + refused * each
        assert ledger.queued == 0
    assert set(signals_of(peer.received[:4])) == {"logs", "metrics"}
