"""Known numbers of events, rings made too small, a collector that is away: both ledgers balance and tell the truth.

The agent is stopped (SIGSTOP) while it must lose, so that it loses for certain; everything but the traffic of our own
namespaces is filtered, so that the numbers are exact on a machine where others work.
"""

from __future__ import annotations

import signal
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.agent import Agent, Row
from tests.e2e.collector import Collector
from tests.e2e.netns import Namespaces
from tests.e2e.polling import wait_for
from tests.load import dns, tcp
from tests.load.programs import Place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CLIENT, SERVER = "10.213.0.2", "10.213.0.1"
OURS = {"addresses": {"include": ["10.213.0.0/24"]}}
OFF = {"enabled": False}


@pytest.fixture
def places() -> Iterator[tuple[Place, Place]]:
    """Where the client and the server of a load run."""
    with Namespaces("led") as spaces:
        client, server = spaces.add("client"), spaces.add("server")
        spaces.link(client, [f"{CLIENT}/24"], server, [f"{SERVER}/24"])
        yield Place(client), Place(server)


@contextmanager
def stopped(agent: Agent) -> Iterator[None]:
    """The agent does not run while the block does; its rings fill."""
    agent.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        agent.process.send_signal(signal.SIGCONT)


@contextmanager
def delivering(directory: Path, **probes: dict[str, Any]) -> Iterator[Agent]:
    """An agent with *probes* only, and a collector that takes all."""
    with Collector(directory) as collector, Agent(directory, settings(collector, **probes)) as agent:
        yield agent


def settings(collector: Collector, **probes: dict[str, Any]) -> dict[str, Any]:
    """An agent with *probes* only, that sees our namespaces only."""
    others = {name: OFF for name in ("tcp_connection", "dns_lookup", "process") if name not in probes}
    return {"probes": {**probes, **others}, "filters": OURS, "exporters": collector.exporters("grpc")}


def kept_and_lost(row: Row) -> int:
    """The events that were meant for us: those that arrived, and those that are known to be lost."""
    return row.terms["processed"] + row.terms["lost"] + row.terms["pending"]


def test_connections_beyond_a_small_ring_are_counted(tmp_path: Path, places: tuple[Place, Place]) -> None:
    mix = {"normal": 5, "refused": 1, "server_resets": 1, "client_resets": 1, "server_closes": 1}
    with Collector(tmp_path) as collector:
        with Agent(tmp_path, settings(collector, tcp_connection={"ring_size": "4KiB"})) as agent:
            with stopped(agent):
                truth = tcp.tcp_load(tcp.Plan(count=500, mix=mix, address=SERVER, records=False), *places)
            agent.stop()
        collector.stop()
        arrived = len(collector.records())
    events = agent.summary.events["tcp_connection"]
    logs = agent.summary.records["otlp_grpc", "logs"]
    assert kept_and_lost(events) == 2 * truth.established + truth.failed
    assert events.reasons == {"ring_full": events.terms["lost"]}
    assert events.terms["lost"] > 0
    assert events.balanced
    assert logs.balanced
    assert logs.terms["made"] == logs.terms["accepted"] == events.terms["processed"] == arrived > 0


def test_lookups_beyond_a_small_ring_are_counted(tmp_path: Path, places: tuple[Place, Place]) -> None:
    plan = dns.Plan(count=600, mix={"a": 5, "n": 1, "s": 1}, way="mmsg", address=SERVER, port=53, records=False)
    with delivering(tmp_path, dns_lookup={"ring_size": "4KiB"}) as agent, stopped(agent):
        truth = dns.dns_load(plan, *places)
    events = agent.summary.events["dns_lookup"]
    assert truth.unanswered == 0
    assert kept_and_lost(events) == 2 * 600  # the asker's and the server's
    assert events.reasons == {"ring_full": events.terms["lost"]}
    assert events.terms["lost"] > 0
    assert events.balanced


def test_lookups_beyond_the_pending_ones_are_counted(tmp_path: Path, places: tuple[Place, Place]) -> None:
    plan = dns.Plan(count=300, mix={"d": 1}, way="mmsg", address=SERVER, port=53, records=False, wait_ms=1)
    with delivering(tmp_path, dns_lookup={"max_pending": 64, "timeout": "1s"}) as agent:
        dns.dns_load(plan, *places)
    events = agent.summary.events["dns_lookup"]
    assert kept_and_lost(events) == 2 * 300
    assert events.reasons["pending_full"] == events.terms["lost"] > 0
    assert events.balanced


def test_processes_beyond_a_small_ring_are_counted(tmp_path: Path) -> None:
    with delivering(tmp_path, process={"ring_size": "4KiB"}) as agent, stopped(agent):
        for _ in range(100):
            subprocess.run(["true"], check=True)
    events = agent.summary.events["process"]
    assert kept_and_lost(events) >= 200
    assert events.terms["lost"] > 0
    assert events.balanced


def test_what_others_do_is_filtered_and_counted(tmp_path: Path, places: tuple[Place, Place]) -> None:
    with delivering(tmp_path, tcp_connection={}) as agent:
        tcp.tcp_load(tcp.Plan(count=50, address="127.9.9.9", records=False))
        truth = tcp.tcp_load(tcp.Plan(count=50, address=SERVER, records=False), *places)
    events = agent.summary.events["tcp_connection"]
    assert events.terms["filtered"] >= 100
    assert events.terms["processed"] == 2 * truth.established
    assert events.balanced


def test_records_for_a_collector_that_is_away_are_counted(tmp_path: Path, places: tuple[Place, Place]) -> None:
    with Collector(tmp_path) as collector:
        given = settings(collector, tcp_connection={"ring_size": "32MiB"}) | {"shutdown_timeout": "1s"}
        given["exporters"]["otlp_grpc"]["sending_queue"] = {"max_bytes": "4MiB"}
        with Agent(tmp_path, given) as agent:
            tcp.tcp_load(tcp.Plan(count=100, address=SERVER, records=False), *places)
            wait_for(lambda: len(collector.records()) >= 200, "200 records")
            collector.stop()
            tcp.tcp_load(tcp.Plan(count=15_000, address=SERVER, records=False), *places)
            agent.stop()
        arrived = len(collector.records())
    events = agent.summary.events["tcp_connection"]
    logs = agent.summary.records["otlp_grpc", "logs"]
    assert (events.terms["processed"], events.terms["lost"]) == (2 * 15_100, 0)
    assert events.balanced
    assert logs.balanced
    assert logs.terms["made"] == 2 * 15_100
    assert logs.terms["accepted"] == arrived == 200
    assert logs.terms["dropped"] + logs.terms["queued"] == 2 * 15_000
    assert logs.reasons.get("queue_full", 0) > 0


def test_a_collector_that_comes_back_gets_what_waited(tmp_path: Path, places: tuple[Place, Place]) -> None:
    with Collector(tmp_path) as collector:
        given = settings(collector, tcp_connection={})
        given["exporters"]["otlp_grpc"]["retry_on_failure"] = {"initial_interval": "100ms", "max_interval": "500ms"}
        with Agent(tmp_path, given) as agent:
            collector.stop()
            tcp.tcp_load(tcp.Plan(count=500, address=SERVER, records=False), *places)
            collector.start()
            wait_for(lambda: len(collector.records()) >= 1000, "what had waited", 60)
            agent.stop()
        collector.stop()
        arrived = len(collector.records())
    logs = agent.summary.records["otlp_grpc", "logs"]
    assert logs.balanced
    assert (logs.terms["made"], logs.terms["accepted"], arrived) == (1000, 1000, 1000)
