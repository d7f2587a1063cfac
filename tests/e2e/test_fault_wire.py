"""Connections that break at each moment of a request, for both transports, with records made all the time.

Everything arrived, in order; what is there a second time was taken and not answered, or not in time.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.e2e import exactly
from tests.e2e.polling import wait_for
from tests.peers.otlp import numbers
from tests.peers.sending import Plan, Sending
from tests.peers.wire import RESET_WITH, Http1Peer, Http2Peer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.peers.wire import WirePeer

TIMES = 5
BROKEN = (
    "reset in the request",
    "half-close in the request",
    "reset after the request",
    "half-close after the request",
    "hang before the headers",
    "hang after the headers",
    "cut the answer",
    "garbage",
)
HTTP1 = ("hang within the headers", "drip the headers", "drip the answer")
HTTP2 = ("hang in the request", "reset the stream", "go away")
PADDING = 5000
"""Makes a request larger than HTTP/2's first window, so that it cannot arrive at once."""


def survives(peer: WirePeer, kind: str, acts: Sequence[str], tmp_path: Path) -> dict[str, int]:
    """Plays one of *acts* to every third request; gives how many records came a second time, by code."""
    settings = {"endpoint": peer.endpoint, "timeout": 0.4, "signals": ["logs"]}
    with Sending(tmp_path, Plan(kind, settings, 50, 20, PADDING)) as sending:
        for act in acts:
            before = len(peer.played)
            peer.acts.extend(["answer", "answer", act])
            wait_for(lambda before=before: len(peer.played) >= before + 3, f"the act {act!r}")
        done = sending.finish(30)
    ledger = done.ledger["logs"]
    assert (ledger.accepted, ledger.rejected, ledger.dropped) == (done.made, 0, {}), (ledger, sending.said)
    # On a slow machine an answer may come too late: what was in that attempt is there twice as well.
    exactly.complete(done, {"logs": numbers(one.body for one in peer.taken)})
    assert set(numbers(peer.bodies(answered=True))) == set(range(done.made))
    unanswered = numbers(peer.bodies(answered=False))
    assert [act for act in peer.played if act != "answer"] == list(acts)
    assert done.largest_bytes["logs"] < 32 * 2**20
    return {"made": done.made, "twice": len(unanswered)} | done.codes


@pytest.mark.parametrize("act", [*BROKEN, *HTTP1])
def test_http(act, tmp_path):
    with Http1Peer() as peer:
        print(f"{act}:", survives(peer, "otlp_http", [act] * TIMES, tmp_path))


@pytest.mark.parametrize("act", [*BROKEN, *HTTP2])
def test_grpc(act, tmp_path):
    with Http2Peer() as peer:
        print(f"{act}:", survives(peer, "otlp_grpc", [act] * TIMES, tmp_path))


def test_grpc_whatever_code_a_stream_is_reset_with(tmp_path):
    """gRPC makes INTERNAL, RESOURCE_EXHAUSTED or PERMISSION_DENIED of them, which nobody has said."""
    with Http2Peer() as peer:
        print(survives(peer, "otlp_grpc", [f"{RESET_WITH}{code}" for code in range(14)], tmp_path))


def test_http_keep_alive_ended_between_requests(tmp_path):
    """The usual way for servers: nothing fails, nothing comes twice, and no attempt is wasted."""
    with Http1Peer() as peer:
        found = survives(peer, "otlp_http", ["close after the answer"] * TIMES, tmp_path)
    assert found["twice"] == 0
    print("close after the answer:", found)


def test_grpc_goes_away_between_requests(tmp_path):
    with Http2Peer() as peer:
        found = survives(peer, "otlp_grpc", ["go away after the answer"] * TIMES, tmp_path)
    assert found["twice"] == 0
    assert peer.connections > TIMES
    print("go away after the answer:", found)


def test_headers_that_are_none_are_no_traceback(tmp_path):
    with ExitStack() as open_:
        peer = open_.enter_context(Http1Peer())
        settings = {"endpoint": peer.endpoint, "signals": ["logs"]}
        sending = open_.enter_context(Sending(tmp_path, Plan("otlp_http", settings)))
        peer.acts.extend(["headers that are none"] * TIMES)
        wait_for(lambda: len(peer.played) > TIMES, "the acts")
        done = sending.finish(30)
    assert (done.ledger["logs"].accepted, sending.said) == (done.made, [])
    assert numbers(peer.bodies(answered=True)) == list(range(done.made))
