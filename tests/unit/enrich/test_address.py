"""Both ends of a connection, as text and as a kind of place."""

from __future__ import annotations

import numpy as np
import pytest

from otelbpf.address_text import texts
from otelbpf.enrich.address import Addresses
from otelbpf.enrich.machine import RecordedMachine
from tests.unit.enrich.rows import packed, tcp, values

OWN = ["10.0.0.1", "fe80::1"]


def columns(batch, *known_as, machine=None):
    addresses = Addresses(machine or RecordedMachine({"addresses": {"": [packed(own).hex() for own in OWN]}}))
    named = [(), *known_as]
    codes = np.array([min(row, len(known_as)) for row in range(1, len(batch) + 1)], dtype=np.intp)
    batch.columns = addresses.of_connections(batch, codes, named)
    return batch


def said(batch):
    """Server and client of each row."""
    return list(zip(texts(batch.number("server_address")), texts(batch.number("client_address")), strict=True))


@pytest.mark.parametrize(
    ("text", "kind", "place"),
    [
        ("127.0.0.1", "ipv4", "loopback"),
        ("127.1.2.3", "ipv4", "loopback"),
        ("::1", "ipv6", "loopback"),
        ("10.0.0.1", "ipv4", "host"),
        ("fe80::1", "ipv6", "host"),
        ("10.0.0.2", "ipv4", "external"),
        ("128.0.0.1", "ipv4", "external"),
        ("255.255.255.255", "ipv4", "external"),
        ("2001:db8::1", "ipv6", "external"),
        ("::ffff:0:102:304", "ipv6", "external"),
        ("2001:db8::7f00:1", "ipv6", "external"),
    ],
)
def test_what_a_peer_is(text, kind, place):
    batch = columns(tcp({"remote_address": text}))
    assert values(batch, "remote") == [{"network.type": kind, "otelbpf.peer.type": place}]
    assert values(batch, "edge") == [{"otelbpf.peer.type": place}]
    assert said(batch) == [(text, "")]


def test_the_name_of_a_server():
    batch = columns(tcp({}), ("db.example.org",))
    assert values(batch, "remote") == [
        {
            "network.type": "ipv4",
            "otelbpf.peer.type": "external",
            "server.address": "db.example.org",
            "net.peer.name": "db.example.org",
        }
    ]
    assert values(batch, "edge") == [{"otelbpf.peer.type": "external", "server.address": "db.example.org"}]
    assert said(batch) == [("", "")]


def test_several_names_of_a_server():
    (remote,) = values(columns(tcp({}), ("b.example.org", "a.example.org")), "remote")
    assert remote["server.address"] == remote["net.peer.name"] == "b.example.org"
    assert remote["otelbpf.peer.names"] == ["b.example.org", "a.example.org"]


def test_a_server_sees_clients():
    assert said(columns(tcp({"role": 2}))) == [("10.0.0.1", "10.0.0.2")]


def test_an_unknown_role_names_neither_server_nor_client():
    assert said(columns(tcp({"role": 0}))) == [("", "")]


def test_an_address_that_is_not_known_is_left_out():
    batch = columns(tcp({"local_address": "0.0.0.0", "remote_address": "::", "role": 2}))
    assert said(batch) == [("", "")]
    assert values(batch, "remote") == [{"network.type": "ipv6", "otelbpf.peer.type": "external"}]


def test_the_ends_of_lookups_hold_their_addresses():
    batch = tcp({"role": 1}, {"role": 2}, {"role": 0}, {"local_address": "0.0.0.0", "remote_address": "::"})
    batch.columns = Addresses(RecordedMachine({})).of_lookups(batch)
    place = {"network.type": "ipv4", "otelbpf.peer.type": "external"}
    near, far = {"network.local.address": "10.0.0.1"}, place | {"network.peer.address": "10.0.0.2"}
    assert values(batch, "local") == [near, near | {"server.address": "10.0.0.1"}, near, {}]
    assert values(batch, "remote") == [
        far | {"server.address": "10.0.0.2"},
        far | {"client.address": "10.0.0.2"},
        far,
        place | {"network.type": "ipv6"},
    ]
    assert values(batch, "edge") == [{"otelbpf.peer.type": "external"}] * 4


def test_a_node_that_gets_another_address():
    answers = {"addresses": {"": []}}
    addresses = Addresses(RecordedMachine(answers))
    places = []
    for own in ([], [packed("10.0.0.2").hex()]):
        answers["addresses"][""] = own
        batch = tcp({})
        batch.columns = addresses.of_connections(batch, np.zeros(1, dtype=np.intp), [()])
        places.append(values(batch, "remote")[0]["otelbpf.peer.type"])
    assert places == ["external", "host"]


def test_a_hundred_thousand_peers_are_one_thing():
    addresses = Addresses(RecordedMachine({}))
    batch = tcp(*[{}] * 1000)
    for first in range(0, 100_000, 1000):
        batch.rows["remote_address"] = np.frombuffer(
            b"".join(bytes(12) + (first + number + 2).to_bytes(4) for number in range(1000)), "V16"
        )
        found = addresses.of_connections(batch, np.zeros(1000, dtype=np.intp), [()])
        assert len(found["remote"].values) == len(found["edge"].values) == 1
    assert addresses.counters().size == 1
