"""Which name a connection's peer has, by what was asked before it started."""

from __future__ import annotations

import pytest

from otelbpf.enrich import hostname
from otelbpf.enrich.hostname import HostNames
from tests.unit.enrich.rows import NETNS, SECOND, lookups, tcp


def named(names: HostNames, *connections, snapshot=False):
    codes, values = names.of(tcp(*connections, snapshot=snapshot))
    return [values[code] for code in codes.tolist()]


def started(at, **others):
    return {"start_ns": at * SECOND, **others}


@pytest.fixture
def names():
    return HostNames()


@pytest.mark.parametrize(("at", "holds"), [(99, False), (100, True), (160, True), (190, True), (191, False)], ids=str)
def test_a_name_holds_from_the_answer_until_its_ttl_and_a_margin(names, at, holds):
    names.learn(lookups((100, "db.example.org", ["10.0.0.2"], 60)))
    assert named(names, started(at)) == [("db.example.org",) if holds else ()]


def test_a_connection_older_than_the_agent_has_no_name(names):
    names.learn(lookups((100, "db.example.org", ["10.0.0.2"], 60)))
    assert named(names, {"start_ns": 0}) == [()]


def test_a_server_does_not_name_its_clients(names):
    names.learn(lookups((100, "db.example.org", ["10.0.0.2"], 60)))
    assert named(names, started(110, role=2), started(110, role=0)) == [(), ()]


def test_names_belong_to_a_network_namespace(names):
    names.learn(lookups((100, "db.example.org", ["10.0.0.2"], 60), netns=7))
    assert named(names, started(110), started(110, netns=7)) == [(), ("db.example.org",)]


def test_every_address_of_an_answer_in_both_families(names):
    names.learn(lookups((100, "Db.Example.ORG", ["10.0.0.2", "2001:db8::1"], 60)))
    assert named(names, started(110), started(110, remote_address="2001:db8::1")) == [("db.example.org",)] * 2


def test_answers_without_addresses_and_of_servers_teach_nothing(names):
    names.learn(lookups((100, "mx.example.org", [], 60)))
    names.learn(lookups((100, "db.example.org", ["10.0.0.2"], 60), role=2))
    assert named(names, started(110)) == [()]


def test_asked_again_before_it_ends_is_one_span(names):
    names.learn(lookups((100, "db.example.org", ["10.0.0.2"], 10), (130, "db.example.org", ["10.0.0.2"], 10)))
    assert named(names, *[started(at) for at in (105, 135, 165, 171)]) == [("db.example.org",)] * 3 + [()]


def test_asked_again_after_a_gap_is_two_spans(names):
    names.learn(lookups((100, "db.example.org", ["10.0.0.2"], 10), (200, "db.example.org", ["10.0.0.2"], 10)))
    assert named(names, *[started(at) for at in (105, 150, 205)]) == [("db.example.org",), (), ("db.example.org",)]


def test_an_address_that_goes_to_another_name(names):
    names.learn(lookups((100, "old.example.org", ["10.0.0.2"], 10), (200, "new.example.org", ["10.0.0.2"], 10)))
    assert named(names, *[started(at) for at in (105, 205)]) == [("old.example.org",), ("new.example.org",)]


def test_of_several_names_the_latest_before_the_start_comes_first(names):
    names.learn(lookups((100, "a.example.org", ["10.0.0.2"], 60), (105, "b.example.org", ["10.0.0.2"], 60)))
    both = {"a.example.org", "b.example.org"}
    first, then = named(names, started(103, pid=9), started(110, pid=9))
    assert first == ("a.example.org",)
    assert (then[0], set(then)) == ("b.example.org", both)


def test_of_several_names_the_one_this_process_asked_for_comes_first(names):
    names.learn(lookups((100, "a.example.org", ["10.0.0.2"], 60), pid=1))
    names.learn(lookups((105, "b.example.org", ["10.0.0.2"], 60), pid=2))
    by_pid = {pid: named(names, started(110, pid=pid))[0][0] for pid in (1, 2, 3)}
    assert by_pid == {1: "a.example.org", 2: "b.example.org", 3: "b.example.org"}


def test_a_living_connection_keeps_its_first_name(names):
    names.learn(lookups((100, "a.example.org", ["10.0.0.2"], 60)))
    assert named(names, started(110, cookie=5), snapshot=True) == [("a.example.org",)]
    names.learn(lookups((105, "b.example.org", ["10.0.0.2"], 60)))
    assert named(names, started(110, cookie=5), started(110, cookie=6), snapshot=True)[0] == ("a.example.org",)
    assert named(names, started(110, cookie=5)) == [("a.example.org",)]
    assert len(named(names, started(110, cookie=5))[0]) == 2, "it was closed: the cookie is forgotten"


def test_a_name_outlives_the_cache_while_its_connection_lives(names, monkeypatch):
    names.learn(lookups((100, "a.example.org", ["10.0.0.2"], 60)))
    named(names, started(110, cookie=5), snapshot=True)
    others = [f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}" for i in range(1000, 1000 + hostname.ADDRESSES)]
    names.learn(lookups((120, "many.example.org", others, 60)))
    assert named(names, started(110, cookie=6)) == [()]
    assert named(names, started(110, cookie=5)) == [("a.example.org",)]
    assert names.counters().size == hostname.ADDRESSES
    assert names.counters().evictions == 1


def test_names_and_askers_of_one_address_are_bounded(names):
    many = hostname.NAMES_OF_ADDRESS + 10
    for number in range(many):
        names.learn(lookups((100 + number, f"n{number}.example.org", ["10.0.0.2"], 600), pid=number))
    for pid in range(1000):
        names.learn(lookups((200, f"n{many - 1}.example.org", ["10.0.0.2"], 600), pid=pid))
    (found,) = named(names, started(300, pid=9))
    assert len(found) == hostname.NAMES_OF_ADDRESS
    assert found[0] == f"n{many - 1}.example.org"
    address = names._known[NETNS, bytes(10) + b"\xff\xff\x0a\x00\x00\x02"]
    assert len(address._askers) == hostname.ASKERS_OF_ADDRESS


def test_many_rows_and_few_names(names):
    names.learn(lookups((100, "a.example.org", ["10.0.0.2"], 60), (100, "b.example.org", ["10.0.0.3"], 60)))
    rows = [started(110, remote_address=f"10.0.0.{2 + number % 4}") for number in range(400)]
    assert named(names, *rows) == [("a.example.org",), ("b.example.org",), (), ()] * 100
