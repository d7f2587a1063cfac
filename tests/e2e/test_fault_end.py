"""The end, in the middle of each fault: within the time given, each record sent, on disk, or counted as lost; and what
is on disk is sent by the next start."""

from __future__ import annotations

import signal
import socket
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.collector import Collector
from tests.e2e.polling import wait_for
from tests.peers.scripted import PEERS, Fail, GrpcPeer, Hang
from tests.peers.sending import Plan, Sending, arrived

if TYPE_CHECKING:
    from tests.peers.scripted import Peer

WITHIN_S = 2.0
REQUEST_S = 300.0
SLACK_S = 60.0
"""For a machine that does much else; without the limit an end takes as long as a request may, or for ever."""
FAULTS = ("hangs", "away", "asks to wait", "refuses connections")
pytestmark = pytest.mark.parametrize("kind", PEERS)


def begin(fault: str, peer: Peer) -> None:
    if fault == "hangs":
        peer.play(*[Hang()] * 10_000)
    elif fault == "asks to wait":
        code = "UNAVAILABLE" if isinstance(peer, GrpcPeer) else 503
        peer.play(*[Fail(code, "later", retry_after=3000)] * 10_000)
    else:
        peer.__exit__()


@pytest.mark.parametrize("spool", [False, True], ids=["memory", "spool"])
@pytest.mark.parametrize("fault", FAULTS)
def test_the_end_comes_in_time(kind, fault, spool, tmp_path):
    settings: dict[str, Any] = {"timeout": REQUEST_S}
    if spool:
        settings["spool"] = {"directory": str(tmp_path / "spool")}
    with PEERS[kind]() as peer:
        plan = Plan(kind, {"endpoint": peer.endpoint} | settings)
        with Sending(tmp_path, plan) as sending:
            sending.wait_for_accepted(100)
            begin(fault, peer)
            held = socket.create_server(("127.0.0.1", peer.port)) if fault == "refuses connections" else None
            made = sending.status().made
            sending.wait_for_made(made + 500)
            done = sending.finish(WITHIN_S)
        if held:
            held.close()
        assert done.took_s < WITHIN_S + SLACK_S
        left = {signal: one.spooled if spool else one.dropped["shutdown"] for signal, one in done.ledger.items()}
        for signal, one in done.ledger.items():
            assert (one.balanced, one.queued, one.made) == (True, 0, one.accepted + left[signal])
            assert left[signal] >= 400
        if spool:
            peer.script.clear()
            if fault in ("away", "refuses connections"):
                peer.__enter__()
            with Sending(tmp_path, Plan(kind, plan.settings, first=10**6)) as again:
                again.wait_for_accepted(max(left.values()))
                last = again.finish(30)
            for signal, one in last.ledger.items():
                assert (one.recovered, one.accepted) == (left[signal], one.made + left[signal])
                assert len(set(arrived(peer)[signal])) == done.made + last.made
        print(f"{fault}: ended in {done.took_s:.2f} s, {left} left")


def test_a_collector_that_is_stopped_does_not_hold_the_end(kind, tmp_path):
    with Collector(tmp_path) as collector:
        endpoint = collector.grpc_endpoint if kind == "otlp_grpc" else collector.http_endpoint
        spool = {"directory": str(tmp_path / "spool")}
        with Sending(tmp_path, Plan(kind, {"endpoint": endpoint, "timeout": REQUEST_S, "spool": spool})) as sending:
            sending.wait_for_accepted(100)
            collector.process.send_signal(signal.SIGSTOP)
            sending.wait_for_made(sending.status().made + 500)
            done = sending.finish(WITHIN_S)
        collector.process.send_signal(signal.SIGCONT)
        assert done.took_s < WITHIN_S + SLACK_S
        assert all(one.balanced and not one.dropped and not one.queued for one in done.ledger.values())
        with Sending(tmp_path, Plan(kind, {"endpoint": endpoint, "spool": spool}, first=10**6)) as again:
            wait_for(lambda: all(not one.spooled for one in again.status().ledger.values()), "what was on disk")
            last = again.finish(30)
        collector.stop()
        found = {
            "logs": {int(record.body.split()[1]) for record in collector.records(kind.removeprefix("otlp_"))},
            "metrics": {int(point.value) for point in collector.points(kind.removeprefix("otlp_"))},
        }
    for signal_, numbers in found.items():
        assert numbers == {*range(done.made), *range(10**6, 10**6 + last.made)}, signal_
    print(f"stopped: ended in {done.took_s:.2f} s, {done.ledger['logs'].spooled} left on disk and sent by the next")
