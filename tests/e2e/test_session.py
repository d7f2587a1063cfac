"""The scripted session, aspect by aspect: what a real collector received against what was caused."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.e2e import expect
from tests.e2e.session import play
from tests.e2e.stage import is_dns_connection

if TYPE_CHECKING:
    from tests.e2e.collector import Protocol
    from tests.e2e.stage import Session

CLOCK_ERROR_NS = 1_000_000

pytestmark = pytest.mark.parametrize("protocol", ["grpc", "http"])


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return play(tmp_path_factory.mktemp("session"))


def test_every_network_event_is_there_once_and_whole(session: Session, protocol: Protocol) -> None:
    found = expect.differences(session.expected, session.network_records(protocol))
    assert not found, "\n".join(found)


def test_every_process_event_is_there_once_and_whole(session: Session, protocol: Protocol) -> None:
    found = expect.differences(session.processes, session.process_records(protocol))
    assert not found, "\n".join(found)


def test_nothing_came_twice(session: Session, protocol: Protocol) -> None:
    assert expect.repeated(session.records[protocol]) == []


def test_both_ends_of_a_connection_share_an_id_and_a_trace(session: Session, protocol: Protocol) -> None:
    ends: dict[frozenset[object], list[tuple[str, object]]] = {}
    for record in session.network_records(protocol):
        if record.event_name == expect.CLOSED:
            pair = [(record[f"network.{end}.address"], record[f"network.{end}.port"]) for end in ("local", "peer")]
            ends.setdefault(frozenset(pair), []).append((record.trace_id, record["otelbpf.connection.id"]))
    assert ends
    for ids in ends.values():
        assert len(ids) == 2
        assert ids[0] == ids[1]
        assert ids[0][0] == ids[0][1]
    assert len({ids[0] for ids in ends.values()}) == len(ends)


def test_connections_that_carried_lookups_have_the_same_bytes_at_both_ends(
    session: Session, protocol: Protocol
) -> None:
    records = [r for r in session.records[protocol] if r["otelbpf.netns"] in session.netns and is_dns_connection(r)]
    clients = [r for r in records if r["network.tcp.handshake.role"] == "client"]
    servers = {r["network.peer.port"]: r for r in records if r["network.tcp.handshake.role"] == "server"}
    assert len(clients) == len(servers) == len(records) / 2 == 1
    for client in clients:
        server = servers[client["network.local.port"]]
        assert client["otelbpf.tcp.io.transmit"] == server["otelbpf.tcp.io.receive"]
        assert client["otelbpf.tcp.io.receive"] == server["otelbpf.tcp.io.transmit"]
        assert server["process.executable.name"] == "dnsmasq"


def test_nothing_tells_of_the_agent_itself(session: Session, protocol: Protocol) -> None:
    assert [record for record in session.records[protocol] if record["process.pid"] == session.agent_pid] == []


def test_a_living_connection_is_counted_while_it_lives(session: Session, protocol: Protocol) -> None:
    del protocol
    assert [found for _, found in session.rounds] == [caused for caused, _ in session.rounds]


def test_connections_are_counted_once(session: Session, protocol: Protocol) -> None:
    caused: Counter[tuple[object, ...]] = Counter()
    for one in session.expected:
        if one.event in (expect.CLOSED, expect.FAILED) and "otelbpf.connection.adopted" not in one.exact:
            caused[one.owner.executable.name, one.exact.get("error.type") if one.event == expect.FAILED else None] += 1
    counted = session.total(protocol, "otelbpf.tcp.connections", error__type=True)
    assert counted == caused


def test_bytes_are_counted_once(session: Session, protocol: Protocol) -> None:
    caused: Counter[tuple[object, ...]] = Counter()
    for one in session.expected:
        if one.event == expect.CLOSED and "otelbpf.connection.adopted" not in one.exact:
            caused[one.owner.executable.name, "transmit"] += one.exact["otelbpf.tcp.io.transmit"]
            caused[one.owner.executable.name, "receive"] += one.exact["otelbpf.tcp.io.receive"]
    for name, sent in (("e2e-front", 500), ("e2e-back", 300)):  # the older connection, from its adoption on
        caused[name, "transmit"] += sent
        caused[name, "receive"] += 800 - sent
    assert session.total(protocol, "otelbpf.tcp.io", network__io__direction=True) == caused


def test_ends_are_counted_by_their_reason(session: Session, protocol: Protocol) -> None:
    caused = Counter(
        (one.owner.executable.name, one.exact["otelbpf.tcp.close.reason"])
        for one in session.expected
        if one.event == expect.CLOSED
    )
    assert session.total(protocol, "otelbpf.tcp.closes", otelbpf__tcp__close__reason=True) == caused


def test_lookups_are_counted_by_answer(session: Session, protocol: Protocol) -> None:
    caused = Counter(
        (one.owner.executable.name, one.exact.get("otelbpf.dns.response.code"), one.exact.get("error.type"))
        for one in session.expected
        if one.event == expect.LOOKUP and one.owner.executable.name in session.services
    )
    counted = session.total(protocol, "otelbpf.dns.queries", otelbpf__dns__response__code=True, error__type=True)
    assert {key: count for key, count in counted.items() if key[0] != "e2e-names"} == caused


def test_lookup_durations_are_counted_by_name(session: Session, protocol: Protocol) -> None:
    caused = Counter(
        (one.owner.executable.name, one.exact["dns.question.name"])
        for one in session.expected
        if one.event == expect.LOOKUP and one.owner.executable.name in session.services
    )
    assert session.total(protocol, "dns.lookup.duration", dns__question__name=True) == caused


def test_processes_are_counted_by_their_end(session: Session, protocol: Protocol) -> None:
    ours = {one.owner.executable.name for one in session.processes}
    classes = session.total(protocol, "otelbpf.process.exits", otelbpf__process__exit__class=True)
    assert {key: count for key, count in classes.items() if key[0] in ours} == {
        ("e2e-true", "ok"): 1, ("e2e-false", "error"): 1, ("e2e-sleep", "signal"): 1,
    }  # fmt: skip
    execs = session.total(protocol, "otelbpf.process.execs")
    assert {key: count for key, count in execs.items() if key[0] in ours} == dict.fromkeys(
        [(name,) for name in ours], 1
    )


def test_the_ledger_balances(session: Session, protocol: Protocol) -> None:
    assert session.exit_code == 0
    assert session.summary is not None
    assert all(row.balanced for row in session.summary.events.values())
    assert {probe: row.terms["lost"] for probe, row in session.summary.events.items() if row.terms["lost"]} == {}
    for kind in ("logs", "metrics"):
        row = session.summary.records[f"otlp_{protocol}", kind]
        assert row.balanced
        assert row.terms["accepted"] == row.terms["made"] > 0


def test_records_bear_the_time_of_their_event(session: Session, protocol: Protocol) -> None:
    times = [record.time_ns for record in session.network_records(protocol)]
    assert session.began_ns - CLOCK_ERROR_NS < min(times) <= max(times) < session.ended_ns + CLOCK_ERROR_NS
