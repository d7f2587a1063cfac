"""One container floods: its ten neighbours lose nothing, and every counter of every container is right to the last one."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.agent import Agent, Summary, otelbpf
from tests.e2e.collector import Collector, latest
from tests.e2e.flood import LIMITS, NETWORK, Container, Key, Street, counted, street
from tests.e2e.polling import wait_for
from tests.e2e.reloading import reload

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.otlp_json import Point, Record

ROUNDS = 3
PROBES = {name: {"throttle": LIMITS} for name in ("tcp_connection", "dns_lookup", "process")}
PATIENCE_S = 30.0


@dataclass
class Flooded:
    """What was done, and what arrived of it."""

    street: Street
    records: list[Record]
    points: list[Point]
    replayed: list[Point]
    own: list[Point]
    summary: Summary

    def told(self, container_id: str) -> list[Record]:
        return [record for record in self.records if record.resource.get("container.id") == container_id]


def settings(collector: Collector, temporality: str) -> dict[str, Any]:
    return {
        "probes": PROBES,
        "filters": {"addresses": {"include": [NETWORK]}},
        "metrics": {"interval": "1s", "temporality": temporality},
        "telemetry": {"interval": "1s"},
        "logs": {"dns_server": "all"},
        "exporters": collector.exporters("grpc"),
    }


@contextmanager
def collector_in(directory: Path) -> Iterator[Collector]:
    directory.mkdir()
    with Collector(directory) as collector:
        yield collector


@pytest.fixture(scope="module", params=["cumulative", "delta"])
def flooded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Flooded:
    directory = tmp_path_factory.mktemp("flood")
    recording = directory / "recording"
    with street() as made, collector_in(directory / "live") as collector, collector_in(directory / "again") as second:
        with Agent(directory, settings(collector, request.param), "--record", str(recording)) as agent:
            for _ in range(ROUNDS):
                made.round()
                wait_for(lambda: exact(made, collector), "metrics of all that was done", PATIENCE_S)
            agent.stop()
        replay_into(second, directory, recording, request.param)
        collector.stop()
        second.stop()
        return Flooded(
            made,
            collector.records(),
            collector.points(),
            second.points(),
            collector.own_points(),
            agent.summary,
        )


def test_a_throttle_is_reloaded(tmp_path: Path) -> None:
    with street() as made, collector_in(tmp_path / "live") as collector:
        wanted = settings(collector, "cumulative")
        off = wanted | {"probes": {name: {"throttle": "off"} for name in PROBES}}
        with Agent(tmp_path, off) as agent:
            made.flooder.connect(300)
            told = reload(agent, tmp_path, wanted)
            made.flooder.connect(600)
            agent.stop()
        collector.stop()
        row = agent.summary.events["tcp_connection"]
        assert told.split(", ") == [f"probes.{name}.throttle" for name in PROBES]
        assert row.balanced
        assert 0 < row.terms["throttled"] <= 2 * 600
        assert of_what_was_counted(counted(collector.points()), made.flooder) == +made.flooder.caused


def exact(made: Street, collector: Collector) -> bool:
    found = counted(collector.points())
    return all(of_what_was_counted(found, one) == +one.caused for one in made.all)


def of_what_was_counted(found: dict[str, Counter[Key]], one: Container) -> Counter[Key]:
    """Not of the processes that made the traffic."""
    titles = {title for title, *_ in one.caused}
    return +Counter({key: count for key, count in found.get(one.id, Counter()).items() if key[0] in titles})


def replay_into(collector: Collector, directory: Path, recording: Path, temporality: str) -> None:
    import json  # noqa: PLC0415

    (directory / "replay.yaml").write_text(json.dumps(settings(collector, temporality)))
    done = otelbpf("replay", str(recording), "-c", str(directory / "replay.yaml"))
    assert done.returncode == 0, done.stderr


def test_every_counter_of_every_container_is_exact(flooded: Flooded) -> None:
    found = counted(flooded.points)
    for one in flooded.street.all:
        assert of_what_was_counted(found, one) == +one.caused


def test_the_flood_was_throttled_and_its_neighbours_were_not(flooded: Flooded) -> None:
    throttled = {
        point.resource.get("service.instance.id")
        for point in flooded.points
        if point.attributes.get("otelbpf.event.outcome") == "throttled"
    }
    ours = {one.id for one in flooded.street.all}  # others on this machine may flood, too
    assert throttled & ours == {flooded.street.flooder.id, flooded.street.forker.id}
    for point in flooded.points:
        marks = (point.attributes.get("otel.metric.overflow"), point.attributes.get("otelbpf.event.outcome"))
        assert marks in ((None, None), (True, "throttled"))


def port_of_client(record: Record) -> Any:
    is_client = record["network.tcp.handshake.role"] == "client"
    return record["network.local.port" if is_client else "network.peer.port"]


def test_neighbours_lose_no_record(flooded: Flooded) -> None:
    for one in flooded.street.neighbours:
        records = flooded.told(one.id)
        ends = Counter(
            (record["network.tcp.handshake.role"], port_of_client(record), record["otelbpf.tcp.io.transmit"])
            for record in records
            if record.event_name == "otelbpf.tcp.connection.closed"
        )
        assert ends == Counter(
            end
            for made in one.connections
            if made.kind != "refused"
            for end in (("client", made.local_port, made.sent), ("server", made.local_port, made.received))
        )
        refused = sum(record.event_name == "otelbpf.tcp.connection.failed" for record in records)
        assert refused == sum(made.kind == "refused" for made in one.connections)
        asked = Counter(
            (record["otelbpf.dns.role"], record["dns.question.name"])
            for record in records
            if record.event_name == "otelbpf.dns.lookup"
        )
        assert asked == Counter((role, made.name) for made in one.lookups for role in ("client", "server"))


def test_neighbours_lose_no_process(flooded: Flooded) -> None:
    for one in flooded.street.quiet:
        found = Counter(record.event_name for record in flooded.told(one.id))
        assert found == {
            "otelbpf.process.exec": one.caused["execs", ""],
            "otelbpf.process.exit": sum(count for (title, *_), count in one.caused.items() if title == "exits"),
        }


def test_the_ledger_balances_and_says_how_many(flooded: Flooded) -> None:
    for name in ("tcp_connection", "dns_lookup", "process"):
        row = flooded.summary.events[name]
        assert row.balanced
        assert row.terms["lost"] == 0
        assert row.terms["throttled"] > 0
        throttled = [
            point.value
            for point in latest(flooded.own)
            if point.metric == "otelbpf.agent.events"
            and point.attributes["otelbpf.probe.name"] == name
            and point.attributes["otelbpf.event.outcome"] == "throttled"
        ]
        assert throttled == [row.terms["throttled"]]
    assert all(row.balanced for row in flooded.summary.records.values())


def test_histograms_leave_them_out(flooded: Flooded) -> None:
    durations = Counter()
    for number, point in enumerate(flooded.points):
        if point.metric == "otelbpf.tcp.connection.duration":
            durations[(*point.series, 0 if point.cumulative else number)] = point.count
    told = sum(record.event_name == "otelbpf.tcp.connection.closed" for record in flooded.records)
    assert sum(durations.values()) == told
    assert told < flooded.summary.events["tcp_connection"].terms["seen"]


def test_a_replay_says_the_same(flooded: Flooded) -> None:
    assert counted(flooded.replayed) == counted(flooded.points)
