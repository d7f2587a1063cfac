"""The part of the session that is DNS: a real resolver, and answers of every kind."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.e2e import expect
from tests.e2e.processes import Owner, dnsmasq
from tests.e2e.stage import CLIENT, RESOLVER, SERVER, SERVER6
from tests.e2e.tcp_steps import Conversation
from tests.load import dns
from tests.load.programs import in_namespace

if TYPE_CHECKING:
    from tests.e2e.collector import Collector
    from tests.e2e.otlp_json import Record
    from tests.e2e.processes import Talker
    from tests.e2e.stage import Stage


TTL_S = 30
DNS_CLASSES = {"a": 6, "c": 2, "n": 2, "s": 1, "r": 1, "t": 1, "d": 1}
DNSMASQ = (
    f"listen-address={SERVER}", "bind-interfaces", f"local-ttl={TTL_S}", "local=/shop.test/", "auth-ttl=30",
    f"host-record=front.shop.test,{SERVER},{SERVER6},{TTL_S}", f"cname=www.shop.test,front.shop.test,{TTL_S}",
)  # fmt: skip


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
