"""A scripted session: every kind of event is caused on purpose, and what it should look like is written down."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.e2e import expect
from tests.e2e.agent import Agent, Summary
from tests.e2e.collector import PROTOCOLS, Collector, Protocol, latest
from tests.e2e.netns import Namespaces, inode
from tests.e2e.polling import wait_for
from tests.e2e.processes import Owner, Talker, copy_program, dnsmasq
from tests.load import dns, tcp
from tests.load.programs import Place, in_namespace, program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.otlp_json import Point, Record

CLIENT, SERVER, RESOLVER, SILENT = "10.211.0.2", "10.211.0.1", "10.211.0.3", "10.211.0.4"
CLIENT6, SERVER6 = "fd11::2", "fd11::1"
TTL_S = 30
SOME_KINDS = dict.fromkeys((*expect.CLIENT_REASON, "refused"), 1)
ALL_KINDS = {**SOME_KINDS, "abandoned": 1}
DNS_CLASSES = {"a": 6, "c": 2, "n": 2, "s": 1, "r": 1, "t": 1, "d": 1}
SILENT_PORT = 81
LARGE_BYTES = 100 * 2**20
DNSMASQ = (
    f"listen-address={SERVER}", "bind-interfaces", f"local-ttl={TTL_S}", "local=/shop.test/", "auth-ttl=30",
    f"host-record=front.shop.test,{SERVER},{SERVER6},{TTL_S}", f"cname=www.shop.test,front.shop.test,{TTL_S}",
)  # fmt: skip
SETTINGS = {
    "metrics": {"interval": "1s"},
    "telemetry": {"interval": "1s"},
    "probes": {"dns_lookup": {"timeout": "1s"}},
}


@dataclass
class Session:
    """What was caused (*expected*, *totals*) and what arrived."""

    agent_pid: int = 0
    expected: list[expect.Expected] = field(default_factory=list)
    processes: list[expect.Expected] = field(default_factory=list)
    rounds: list[tuple[float, float]] = field(default_factory=list)
    """Bytes of a living connection at some moments: caused, and as the metrics had them."""
    records: dict[Protocol, list[Record]] = field(default_factory=dict)
    points: dict[Protocol, list[Point]] = field(default_factory=dict)
    netns: frozenset[int] = frozenset()
    services: frozenset[str] = frozenset()
    summary: Summary | None = None
    exit_code: int | None = None
    began_ns: int = 0
    ended_ns: int = 0

    def network_records(self, protocol: Protocol) -> list[Record]:
        """The network records of our namespaces, but for the TCP connections that carried DNS."""
        return [
            record
            for record in self.records[protocol]
            if record["otelbpf.netns"] in self.netns and not is_dns_connection(record)
        ]

    def process_records(self, protocol: Protocol) -> list[Record]:
        """The records of the processes that were started for their own sake."""
        pids = {one.owner.pid for one in self.processes}
        return [
            record for record in self.records[protocol] if record["process.pid"] in pids and "process" in record.scope
        ]

    def total(self, protocol: Protocol, metric: str, **attributes: Any) -> Counter[tuple[Any, ...]]:
        """The sums of *metric* at the end, by service and the attributes named (double underscore for a dot)."""
        names = [name.replace("__", ".") for name, wanted in attributes.items() if wanted]
        sums: Counter[tuple[Any, ...]] = Counter()
        for point in latest(self.points[protocol]):
            if point.metric == metric and point.resource.get("service.name") in self.services:
                key = (point.resource["service.name"], *(point.attributes.get(name) for name in names))
                sums[key] += point.count if point.kind == "histogram" else int(point.value)
        return sums


def is_dns_connection(record: Record) -> bool:
    """Whether this is a TCP connection made for a lookup: its bytes are checked against its other end instead."""
    return "tcp" in record.scope and 53 in (record["network.peer.port"], record["network.local.port"])


@dataclass
class Stage:
    """Where the session happens: two namespaces and a link, the processes, the collector, the notes."""

    directory: Path
    client: str
    server: str
    session: Session

    @property
    def netns(self) -> tuple[int, int]:
        return inode(self.client), inode(self.server)

    def place(self, namespace: str, name: str, role: str) -> Place:
        """Program *name* under the name of its *role*."""
        path = self.directory / role
        return Place(namespace, path if path.exists() else copy_program(program(name), self.directory, role))


@contextmanager
def stage(directory: Path) -> Iterator[Stage]:
    """Two namespaces, IPv4 and IPv6, a silent port, addresses for three resolvers."""
    with Namespaces("e2e") as spaces:
        client, server = spaces.add("client"), spaces.add("server")
        addresses = [f"{SERVER}/24", f"{RESOLVER}/24", f"{SILENT}/24", f"{SERVER6}/64"]
        spaces.link(client, [f"{CLIENT}/24", f"{CLIENT6}/64"], server, addresses)
        spaces.resolver(client, SERVER)
        for words in ("add table inet silence", "add chain inet silence in { type filter hook input priority 0; }"):
            spaces.run(server, "nft", *words.split())
        spaces.run(server, "nft", *f"add rule inet silence in tcp dport {SILENT_PORT} drop".split())
        session = Session(netns=frozenset({inode(client), inode(server)}))
        yield Stage(directory, client, server, session)


def play(directory: Path) -> Session:
    """Runs the whole session with an agent that sends over gRPC and HTTP to one collector; returns all that is known."""
    with ExitStack() as open_:
        place = open_.enter_context(stage(directory))
        collector = open_.enter_context(Collector(directory))
        front = open_.enter_context(Talker(directory, "e2e-front", place.client))
        back = open_.enter_context(Talker(directory, "e2e-back", place.server))
        older = Conversation(place, front, back)
        older.exchange(1000, 2000)
        settings = {**SETTINGS, "exporters": collector.exporters()}
        with Agent(directory, settings) as agent:
            place.session.agent_pid = agent.pid
            place.session.began_ns = time.time_ns()
            end_older(place, older)
            tcp_kinds(place)
            tcp_families(place)
            large_transfer(place)
            long_lived(place, collector, front, back)
            lookups_by_dnsmasq(place, front, back)
            lookups_of_every_class(place)
            short_processes(place)
            wait_for_timeouts(place, collector)
            place.session.ended_ns = time.time_ns()
            place.session.exit_code = agent.stop()
        place.session.summary = agent.summary
        collector.stop()
        keep(place.session, collector)
    return place.session


def keep(session: Session, collector: Collector) -> None:
    """What arrived."""
    names = {one.owner.executable.name for one in session.expected + session.processes}
    session.services = frozenset(names - {"dig", "dnsmasq"})
    for protocol in PROTOCOLS:
        session.records[protocol] = collector.records(protocol)
        session.points[protocol] = collector.points(protocol)


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


ROLE = ("network.tcp.handshake.role", "server.address", "server.port", "client.address", "client.port")
UNSEEN = ("otelbpf.tcp.handshake.duration", "otelbpf.tcp.connection.duration")


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


def lookups_by_dnsmasq(place: Stage, front: Talker, back: Talker) -> None:
    """Debian's resolver asked by dig and by getaddrinfo, over UDP and TCP; then a connection to the name."""
    with dnsmasq(place.server, place.directory, *DNSMASQ):
        both = [SERVER, SERVER6]
        for name, kind, code, addresses, cnames, transport in (
            ("front.shop.test", "A", "NOERROR", [SERVER], None, "udp"),
            ("front.shop.test", "AAAA", "NOERROR", [SERVER6], None, "udp"),
            ("FRONT.shop.test", "A", "NOERROR", [SERVER], None, "tcp"),
            ("www.shop.test", "A", "NOERROR", [SERVER], ["front.shop.test"], "udp"),
            ("nothing.shop.test", "A", "NXDOMAIN", None, None, "udp"),
            ("elsewhere.test", "A", "REFUSED", None, None, "udp"),
        ):
            owner, status = dig(place, name, kind, transport)
            assert status == code
            answers = len(addresses or ()) + len(cnames or ())
            note_lookup(place, owner, name, kind, code, transport, addresses, cnames, answers)
        assert front.tell("resolve", name="www.shop.test")["addresses"] == sorted(both)
        for kind, address in (("A", SERVER), ("AAAA", SERVER6)):
            note_lookup(place, front.owner, "www.shop.test", kind, "NOERROR", "udp", [address], ["front.shop.test"], 2)
        connect_to_name(place, front, back)


def connect_to_name(place: Stage, front: Talker, back: Talker) -> None:
    """After a lookup the client's record says the name that was asked for."""
    talk = Conversation(place, front, back)
    talk.exchange(10, 20)
    client, server = talk.close()
    names = {"server.address": "www.shop.test", "net.peer.name": "www.shop.test"}
    named = client.but(
        optional=("otelbpf.peer.names",), **{name.replace(".", "__"): value for name, value in names.items()}
    )
    place.session.expected += [named, server]


def note_lookup(
    place: Stage,
    owner: Owner,
    name: str,
    kind: str,
    code: str,
    transport: str,
    addresses: list[str] | None,
    cnames: list[str] | None,
    answers: int,
) -> None:
    """One lookup at dnsmasq."""
    place.session.expected.append(
        expect.lookup(
            owner,
            place.netns[0],
            transport,
            (CLIENT, 0),
            (SERVER, 53),
            name,
            kind,
            code,
            addresses=addresses,
            cnames=cnames,
            ttl=TTL_S if answers else None,
            answers=answers,
        )
    )


def dig(place: Stage, name: str, kind: str, transport: str) -> tuple[Owner, str]:
    """Asks dnsmasq with dig; returns who asked and the status it printed."""
    executable = Path(shutil.which("dig") or "dig")
    words = [f"@{SERVER}", "+tries=1", "+time=2", "+tcp" if transport == "tcp" else "+notcp", name, kind]
    process = subprocess.Popen(
        [*in_namespace(place.client), str(executable), *words], stdout=subprocess.PIPE, text=True
    )
    answer, _ = process.communicate()
    status = next((line.split("status: ")[1].split(",")[0] for line in answer.splitlines() if "status: " in line), "")
    return Owner(process.pid, executable), status


def lookups_of_every_class(place: Stage) -> None:
    """Each way to ask, each kind of answer, none at all included."""
    asker = place.place(place.client, "dns_client", "e2e-asker")
    server = place.place(place.server, "dns_server", "e2e-names")
    assert asker.executable is not None
    for way in ("socket", "window", "mmsg"):
        plan = dns.Plan(count=60, mix=DNS_CLASSES, way=way, address=RESOLVER, port=53, wait_ms=50, both_types=True)
        truth = dns.dns_load(plan, asker, server)
        owner = Owner(truth.client_pid, asker.executable)
        place.session.expected += [expected_lookup(place, owner, one) for one in truth.lookups]


def expected_lookup(place: Stage, owner: Owner, one: dns.Lookup) -> expect.Expected:
    """The record of one lookup at the generator's server."""
    letter = one.name[0]
    code = None if one.rcode is None else dns.RCODE_NAMES[one.rcode]
    answers = {"a": 1, "c": 2}.get(letter, 0)
    expected = expect.lookup(
        owner,
        place.netns[0],
        "udp",
        (CLIENT, one.local_port),
        (RESOLVER, 53),
        one.name,
        one.question_type,
        code,
        addresses=[dns.address_of(one.name, one.question_type)] if answers else None,
        cnames=["real.load.test"] if letter == "c" else None,
        ttl=60 if answers else None,
        answers=answers,
    )
    return expected.but(otelbpf__dns__truncated=True) if letter == "t" else expected


def wait_for_timeouts(place: Stage, collector: Collector) -> None:
    """A lookup without an answer is told after its time; what never comes is told by the tests."""
    unanswered = sum(one.exact.get("error.type") == "timeout" for one in place.session.expected)
    asker = place.directory / "e2e-asker"

    def is_timeout(record: Record) -> bool:
        return record["error.type"] == "timeout" and record["process.executable.name"] == asker.name

    with suppress(TimeoutError):
        collector.wait_for_records(is_timeout, unanswered)


def short_processes(place: Stage) -> None:
    """A process that lives a millisecond, one that fails, one that is killed."""
    me = Owner(os.getpid(), Path(sys.executable).resolve())
    for name, code in (("true", 0), ("false", 1)):
        executable = copy_program(Path(shutil.which(name) or name), place.directory, f"e2e-{name}")
        process = subprocess.Popen([str(executable), "argument"])
        process.wait()
        owner = Owner(process.pid, executable)
        place.session.processes += [expect.executed(owner, me, str(executable)), expect.exited(owner, me, code)]
    executable = copy_program(Path(shutil.which("sleep") or "sleep"), place.directory, "e2e-sleep")
    process = subprocess.Popen([str(executable), "60"])
    process.send_signal(signal.SIGKILL)
    process.wait()
    owner = Owner(process.pid, executable)
    place.session.processes += [expect.executed(owner, me, str(executable)), expect.exited(owner, me, None, "SIGKILL")]
