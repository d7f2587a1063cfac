"""The part of the session that is TCP: every end, every family, many bytes, a long life."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.e2e import expect
from tests.e2e.collector import latest
from tests.e2e.polling import wait_for
from tests.e2e.processes import Owner
from tests.e2e.stage import CLIENT, CLIENT6, REFUSED_BY_ROUTE, SERVER, SERVER6, SILENT_PORT
from tests.load import tcp

if TYPE_CHECKING:
    from tests.e2e.collector import Collector
    from tests.e2e.otlp_json import Point
    from tests.e2e.processes import Talker
    from tests.e2e.stage import Stage


SOME_KINDS = dict.fromkeys((*expect.CLIENT_REASON, "refused"), 1)
ALL_KINDS = {**SOME_KINDS, "abandoned": 1}
LARGE_BYTES = 100 * 2**20
NO_ROUTE = "10.97.0.1"
ROLE = ("network.tcp.handshake.role", "server.address", "server.port", "client.address", "client.port")
UNSEEN = ("otelbpf.tcp.handshake.duration", "otelbpf.tcp.connection.duration")


class Conversation:
    """One connection between two talkers, and the bytes that it has carried."""

    def __init__(self, place: Stage, client: Talker, server: Talker, address: str = SERVER, port: int = 0) -> None:
        self.client, self.server, self.place = client, server, place
        listener = server.tell("listen", address=SERVER, port=port)
        peer = tuple(listener["local"])
        connected = client.tell("connect", address=address, port=peer[1])
        accepted = server.tell("accept", number=listener["number"])
        server.tell("close", number=listener["number"])
        self.numbers = connected["number"], accepted["number"]
        self.ends = tuple(connected["local"]), (peer[0], peer[1])
        self.sent = self.received = 0

    def exchange(self, sent: int, received: int) -> None:
        """Carries bytes both ways."""
        for source, target, count in ((0, 1, sent), (1, 0, received)):
            pair = (self.client, self.server)
            pair[source].tell("send", number=self.numbers[source], count=count)
            pair[target].tell("receive", number=self.numbers[target], count=count)
        self.sent += sent
        self.received += received

    def close(self) -> list[expect.Expected]:
        """The client closes, then the server; returns the two records that this must give."""
        self.client.tell("close", number=self.numbers[0])
        self.server.tell("receive_end", number=self.numbers[1])
        self.server.tell("close", number=self.numbers[1])
        owners, counts = (self.client.owner, self.server.owner), (self.sent, self.received)
        return expect.both_ends(*owners, self.place.netns, self.ends, *counts, "fin_local")


def end_older(place: Stage, older: Conversation) -> None:
    """The connection that is older than the agent goes on and ends."""
    older.exchange(500, 300)
    for one in older.close():
        place.session.expected.append(one.but(optional=ROLE, without=UNSEEN, otelbpf__connection__adopted=True))


def tcp_kinds(place: Stage) -> None:
    """Every way a connection ends, at a server whose workers accept."""
    plan = tcp.Plan(
        count=80, mix=ALL_KINDS, address=SERVER, workers=2, spread=5000, seed=3, silent_port=SILENT_PORT, wait_ms=50
    )
    expect_load(place, plan, CLIENT)


def tcp_families(place: Stage) -> None:
    """IPv6, and IPv4 through IPv6 sockets."""
    expect_load(place, tcp.Plan(count=20, mix=SOME_KINDS, address=SERVER6, family="6"), CLIENT6)
    expect_load(place, tcp.Plan(count=20, mix=SOME_KINDS, address=SERVER, family="mapped"), CLIENT)


def expect_load(place: Stage, plan: tcp.Plan, own_address: str) -> None:
    """Runs *plan* between the namespaces and notes the records of both ends of every connection."""
    client = place.place(place.client, "tcp_client", "e2e-shop")
    server = place.place(place.server, "tcp_server", "e2e-cart")
    truth = tcp.tcp_load(plan, client, server)
    assert client.executable is not None
    assert server.executable is not None
    owner = Owner(truth.client_pid, client.executable)
    for one in truth.connections:
        local, peer = (own_address, one.local_port), (plan.address, one.peer_port)
        if one.server_pid is None:
            expected = expect.failed(owner, place.netns[0], local, peer, expect.CONNECT_ERROR[one.kind])
            place.session.expected.append(expected)
        else:
            owners = (owner, Owner(one.server_pid, server.executable))
            reason = expect.CLIENT_REASON[one.kind]
            ends, counts = (local, peer), (one.sent, one.received)
            place.session.expected += expect.both_ends(*owners, place.netns, ends, *counts, reason)


def timed_out(place: Stage) -> None:
    """The kernel gives up: one SYN, one repeat."""
    expect_load(place, tcp.Plan(count=1, mix={"timed_out": 1}, address=SERVER, silent_port=SILENT_PORT), CLIENT)


def unroutable(place: Stage, front: Talker) -> None:
    """Connects that fail before there is a packet, or an own address."""
    errors = {"unreachable": "host_unreachable", "prohibit": "access_denied"}
    wanted = {address: errors[kind] for address, kind in REFUSED_BY_ROUTE.items()} | {NO_ROUTE: "network_unreachable"}
    for address, error in wanted.items():
        with suppress(OSError):
            front.tell("connect", address=address, port=80)
        expected = expect.failed(front.owner, place.netns[0], ("", 0), (address, 80), error)
        unknown = ("network.local.address", "network.local.port", "otelbpf.tcp.handshake.duration")
        place.session.expected.append(replace(expected.but(optional=unknown), key_names=("network.peer.address",)))


def large_transfer(place: Stage) -> None:
    """100 MB one way."""
    expect_load(place, tcp.Plan(count=1, address=SERVER, request_bytes=LARGE_BYTES), CLIENT)


def long_lived(place: Stage, collector: Collector, front: Talker, back: Talker) -> None:
    """A connection over several intervals: its bytes must be right in the metrics while it lives."""
    talk = Conversation(place, front, back, port=8080)

    def counted() -> float:
        chosen = {"server.port": 8080, "network.tcp.handshake.role": "client", "network.io.direction": "transmit"}
        points = [p for p in latest(collector.points()) if p.metric == "otelbpf.tcp.io"]
        return sum(p.value for p in points if chosen.items() <= p.attributes.items() and is_of(p, front))

    for count in (1000, 20_000, 300_000):
        talk.exchange(count, 10)
        with suppress(TimeoutError):  # the difference is kept, and told by the test
            wait_for(lambda: counted() >= talk.sent, "the bytes of a living connection", 10)
        place.session.rounds.append((talk.sent, counted()))
    place.session.expected += talk.close()


def is_of(point: Point, talker: Talker) -> bool:
    return point.resource.get("service.name") == talker.owner.executable.name
