"""Other exporters in the place of those that run: what waits is kept, what is the same is not touched, accounts go on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from otelbpf.config import Console, OtlpGrpc, OtlpHttp, Retry, SendingQueue, Spool, Tls
from otelbpf.errors import ConfigError
from otelbpf.export import Exporters, sender
from otelbpf.export.account import SignalLedger
from otelbpf.export.exchange import Exchange
from tests.e2e.collector import free_ports
from tests.e2e.polling import wait_for
from tests.peers.otlp import log_request, numbers
from tests.peers.scripted import Accept, Fail, GrpcPeer, Hang, HttpPeer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.peers.scripted import Peer

NEVER = Retry(initial_interval=3600, max_interval=3600, max_elapsed_time=0)
"""So that only a reload makes it try again."""
KINDS = {GrpcPeer: OtlpGrpc, HttpPeer: OtlpHttp}
Settings = dict[str, OtlpGrpc | OtlpHttp | Console]


@pytest.fixture(params=[GrpcPeer, HttpPeer])
def peer(request) -> Iterator[Peer]:
    with request.param() as running:
        yield running


def to(peer: Peer, retry: Retry = NEVER, **settings) -> OtlpGrpc | OtlpHttp:
    return KINDS[type(peer)](endpoint=peer.endpoint, retry_on_failure=retry, **settings)


def nowhere(peer: Peer, **settings) -> OtlpGrpc | OtlpHttp:
    """The same with an endpoint where nobody listens."""
    endpoint = f"http://127.0.0.1:{free_ports(1)[0]}"
    return KINDS[type(peer)](endpoint=endpoint, retry_on_failure=NEVER, **settings)


def soon() -> float:
    return time.monotonic() + 30


def opened(settings: Settings) -> Exporters:
    return Exporters(sender(name, chosen) for name, chosen in settings.items())


def exchanged(outputs: Exporters, former: Settings, wanted: Settings, seconds: float = 30) -> None:
    with Exchange(outputs, former, wanted) as exchange:
        exchange.take_place(time.monotonic() + seconds)


def account(outputs: Exporters, name: str = "peer") -> SignalLedger:
    return outputs.ledger()[name, "logs"]


def is_down(outputs: Exporters) -> bool:
    (member,) = outputs.members
    return not member.is_up


def test_what_waits_goes_to_the_new_endpoint_at_once(peer):
    former: Settings = {"peer": nowhere(peer)}
    with opened(former) as outputs:
        for number in range(3):
            outputs.export(log_request(5, 5 * number))
        wait_for(lambda: is_down(outputs), "the outage")
        exchanged(outputs, former, {"peer": to(peer)})
        outputs.export(log_request(5, 15))
        assert outputs.flush(soon())
        assert account(outputs) == SignalLedger(20, 20, 0, {}, 0)
    assert numbers(peer.bodies()) == list(range(20))


def test_what_waits_goes_with_the_new_header(peer):
    refusal = Fail("UNAVAILABLE" if isinstance(peer, GrpcPeer) else 503)
    peer.play(refusal)
    former: Settings = {"peer": to(peer, headers={"X-Key": "old"})}
    with opened(former) as outputs:
        outputs.export(log_request(5))
        wait_for(lambda: is_down(outputs), "the refusal")
        exchanged(outputs, former, {"peer": to(peer, headers={"X-Key": "new"})})
        assert outputs.flush(soon())
        assert account(outputs) == SignalLedger(5, 5, 0, {}, 0)
    assert [one.headers["x-key"] for one in peer.received] == ["old", "new"]


def test_a_request_under_way_ends_where_it_is_and_is_not_lost(peer):
    peer.play(Hang())
    with type(peer)() as other:
        former: Settings = {"peer": to(peer, timeout=1)}
        with opened(former) as outputs:
            outputs.export(log_request(5))
            wait_for(lambda: peer.received, "the request")
            exchanged(outputs, former, {"peer": to(other, timeout=1)})
            outputs.export(log_request(5, 5))
            assert outputs.flush(soon())
            assert account(outputs) == SignalLedger(10, 10, 0, {}, 0)
        assert numbers(other.bodies()) == list(range(10))


def test_what_is_on_disk_goes_the_new_way(peer, tmp_path):
    spool = Spool(directory=str(tmp_path), max_age=1e9)
    former: Settings = {"peer": nowhere(peer, spool=spool)}
    with opened(former) as outputs:
        for number in range(10):
            outputs.export(log_request(5, 5 * number))
        wait_for(lambda: account(outputs).spooled == 50, "the disk")
        exchanged(outputs, former, {"peer": to(peer, spool=spool)})
        wait_for(lambda: account(outputs).accepted == 50, "the backlog")
        assert account(outputs) == SignalLedger(50, 50, 0, {}, 0)
    assert sorted(numbers(peer.bodies())) == list(range(50))


def test_a_new_one_gets_what_comes_and_the_same_one_is_not_touched(peer):
    former: Settings = {"peer": to(peer)}
    with opened(former) as outputs, HttpPeer() as other:
        (member,) = outputs.members
        route = member._route
        outputs.export(log_request(5))
        exchanged(outputs, former, {"other": to(other), "peer": to(peer)})
        outputs.export(log_request(5, 5))
        assert outputs.flush(soon())
        assert outputs.members[1] is member
        assert member._route is route
        assert account(outputs) == SignalLedger(10, 10, 0, {}, 0)
        assert account(outputs, "other") == SignalLedger(5, 5, 0, {}, 0)
        assert list(outputs.components()) == ["other", "peer"]
    assert numbers(other.bodies()) == list(range(5, 10))


def test_one_that_is_taken_out_sends_what_it_has_and_stays_in_the_account(peer):
    former: Settings = {"peer": to(peer)}
    with opened(former) as outputs:
        outputs.export(log_request(5))
        exchanged(outputs, former, {"console": Console(signals=("metrics",))})
        outputs.export(log_request(5, 5))
        assert outputs.former.wait(soon())
        assert account(outputs) == SignalLedger(5, 5, 0, {}, 0)
        assert outputs.sizes() == {}
    assert numbers(peer.bodies()) == list(range(5))


def test_what_one_that_is_taken_out_cannot_send_is_dropped_and_counted(peer):
    former: Settings = {"peer": nowhere(peer)}
    with opened(former) as outputs:
        outputs.export(log_request(5))
        exchanged(outputs, former, {}, seconds=0.1)
        assert outputs.former.wait(soon())
        assert account(outputs) == SignalLedger(5, 0, 0, {"shutdown": 5}, 0)


def test_one_that_comes_back_finds_its_spool_and_its_account(peer, tmp_path):
    spool = Spool(directory=str(tmp_path), max_age=1e9)
    away, there = {"peer": nowhere(peer, spool=spool)}, {"peer": to(peer, spool=spool)}
    with opened(away) as outputs:
        for made in (10, 20):
            outputs.export(log_request(5, made - 10))
            outputs.export(log_request(5, made - 5))
            exchanged(outputs, away, {}, seconds=1)
            assert outputs.former.wait(soon())
            assert account(outputs) == SignalLedger(made, 0, 0, {}, 0, spooled=made)
            exchanged(outputs, {}, away)
            wait_for(outputs.members[0].ledger, "what is on disk to be found")
            assert account(outputs) == SignalLedger(made, 0, 0, {}, 0, spooled=made)
        exchanged(outputs, away, there)
        outputs.export(log_request(5, 20))
        wait_for(lambda: account(outputs).accepted == 25, "what was on disk")
        assert account(outputs) == SignalLedger(25, 25, 0, {}, 0)
    assert sorted(numbers(peer.bodies())) == list(range(25))


def test_other_bounds_hold_at_once(peer):
    former: Settings = {"peer": nowhere(peer, sending_queue=SendingQueue(max_bytes=8 * 2**20))}
    wanted: Settings = {"peer": nowhere(peer, sending_queue=SendingQueue(max_bytes=4 * 2**20))}
    with opened(former) as outputs:
        exchanged(outputs, former, wanted)
        for number in range(6):
            outputs.export(log_request(10, 10 * number, padding=90_000))
        assert outputs.sizes()["peer", "logs"].capacity_bytes == 4 * 2**20
        ledger = account(outputs)
        assert ledger.balanced
        assert ledger.dropped["queue_full"] > 0


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ({"peer": OtlpGrpc(endpoint="https://a:1", tls=Tls(ca_file="/nowhere"))}, "/nowhere"),
        ({"new": OtlpHttp(endpoint="http://a:1", header_files={"a": "/nowhere"})}, "/nowhere"),
    ],
)
def test_what_cannot_be_used_changes_nothing(peer, wanted, sentence):
    former: Settings = {"peer": to(peer)}
    with opened(former) as outputs:
        members = outputs.members
        with pytest.raises(ConfigError, match=sentence), Exchange(outputs, former, wanted):
            pass
        assert outputs.members == members
        outputs.export(log_request(5))
        assert outputs.flush(soon())
    assert numbers(peer.bodies()) == list(range(5))


def test_a_hundred_changes_under_load_lose_nothing_and_bring_nothing_twice(peer):
    with type(peer)() as other:
        settings: Settings = {"peer": to(peer)}
        with opened(settings) as outputs:
            for number in range(1000):
                outputs.export(log_request(1, number))
                if number % 10 == 0:
                    wanted: Settings = {"peer": to(other if number % 20 else peer, headers={"a": str(number)})}
                    exchanged(outputs, settings, wanted)
                    settings = wanted
            assert outputs.flush(soon())
            assert account(outputs) == SignalLedger(1000, 1000, 0, {}, 0)
        arrived = sorted(numbers(peer.bodies()) + numbers(other.bodies()))
    assert arrived == list(range(1000))
    assert all(isinstance(one.step, Accept) for one in peer.received)


def test_a_new_one_has_no_more_room_than_the_memory_limit_leaves(peer):
    former: Settings = {}
    with opened(former) as outputs:
        outputs.keep_within(0.125, ["logs"])
        exchanged(outputs, former, {"peer": nowhere(peer, sending_queue=SendingQueue(max_bytes=16 * 2**20))})
        for number in range(6):
            outputs.export(log_request(10, 10 * number, padding=90_000))
        ledger = account(outputs)
        assert ledger.balanced
        assert set(ledger.dropped) == {"memory_limit"}
        outputs.keep_within(1.0, ["logs"])
        outputs.export(log_request(10, 60, padding=90_000))
        assert account(outputs).dropped == ledger.dropped
