"""Real lookups name real connections: three probes, a network namespace of their own, one tick."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
import pytest

from otelbpf.address_text import texts
from otelbpf.batch import Batch
from otelbpf.config import Config
from otelbpf.enrich import Enrichment
from otelbpf.kernel.attach import attach
from otelbpf.kernel.clock import boottime_offset_ns
from otelbpf.probes import dns_lookup, process, tcp_connection
from tests.kernel.feed import Feed
from tests.unit.enrich.rows import values

if TYPE_CHECKING:
    from collections.abc import Iterator

# A DNS server for two names of one address, a lookup of each, and a connection after each; all in its own netns.
SESSION = """
import socket, subprocess, sys, threading
import dns.flags, dns.message, dns.query, dns.rrset

subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
subprocess.run(["ip", "address", "add", "10.9.8.7/32", "dev", "lo"], check=True)
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))
listener = socket.create_server(("10.9.8.7", 8080))

def answer():
    while True:
        wire, peer = server.recvfrom(4096)
        reply = dns.message.make_response(dns.message.from_wire(wire))
        name = reply.question[0].name
        if name.to_text().startswith("alias"):
            reply.answer.append(dns.rrset.from_text(name, 30, "IN", "CNAME", "canonical.example.org."))
            name = "canonical.example.org."
        reply.answer.append(dns.rrset.from_text(name, 30, "IN", "A", "10.9.8.7"))
        server.sendto(reply.to_wire(), peer)

threading.Thread(target=answer, daemon=True).start()
for name in sys.argv[1:]:
    if name != "-":
        dns.query.udp(dns.message.make_query(name, "A"), "127.0.0.1", timeout=5)
    client = socket.create_connection(("10.9.8.7", 8080))
    listener.accept()[0].close()
    client.close()
"""


@pytest.fixture
def feeds() -> Iterator[dict[str, Feed]]:
    with ExitStack() as open_:
        probes = (process.PROBE, dns_lookup.PROBE, tcp_connection.PROBE)
        yield {probe.name: Feed(open_.enter_context(attach(probe, Config()))) for probe in probes}


def session(*names: str) -> int:
    child = subprocess.Popen(["unshare", "-n", sys.executable, "-c", SESSION, *names])
    assert child.wait() == 0
    return child.pid


def batches(feeds: dict[str, Feed], pid: int) -> list[Batch]:
    """What the process did, prepared; connections first, as if their ring had been read before the others."""
    result = []
    for probe in (tcp_connection.PROBE, dns_lookup.PROBE, process.PROBE):
        rows = feeds[probe.name].rows()
        rows = rows[rows["head"]["pid"] == pid]
        result.append(probe.prepare(Config())(Batch(probe.name, rows, boottime_offset_ns())))
    return result


def connections(feeds: dict[str, Feed], *names: str) -> list[tuple[str | None, list[str] | None]]:
    """The host name, and all names, of the server that each connection of a session went to."""
    pid = session(*names)
    ends = 2 * len(names)
    feeds["tcp_connection"].where(lambda rows: rows["head"]["pid"] == pid, ends)
    feeds["dns_lookup"].where(lambda rows: rows["head"]["pid"] == pid, len(names) - names.count("-"))
    with Enrichment(Config()) as enrichment:
        tick = batches(feeds, pid)
        enrichment.learn(tick)
        batch = enrichment.enrich(tick[0])
    order = np.argsort(batch.rows["start_ns"], kind="stable")
    clients = order[batch.rows["role"][order] == 1]
    remote = values(batch, "remote")
    assert set(texts(batch.rows["remote_address"][clients])) == {"10.9.8.7"}
    return [(remote[row].get("net.peer.name"), remote[row].get("otelbpf.peer.names")) for row in clients.tolist()]


def test_a_connection_has_the_name_that_was_asked_before_it(feeds):
    assert connections(feeds, "-", "db.example.org") == [(None, None), ("db.example.org", None)]


def test_the_name_asked_for_counts_not_where_its_alias_led(feeds):
    assert connections(feeds, "alias.example.org") == [("alias.example.org", None)]


def test_two_names_of_one_address_are_both_shown(feeds):
    found = connections(feeds, "one.example.org", "Two.Example.org", "-")
    two = ("two.example.org", ["two.example.org", "one.example.org"])
    assert found == [("one.example.org", None), two, two]
