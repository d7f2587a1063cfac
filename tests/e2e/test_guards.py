"""The agent at its own limits: a real limit of memory, a budget of CPU time, real load, and every counter exact."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.agent import Agent
from tests.e2e.collector import Collector, latest
from tests.e2e.limits import memory_limit
from tests.e2e.netns import Namespaces
from tests.e2e.polling import wait_for
from tests.load import tcp
from tests.load.programs import Place

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.e2e.otlp_json import Record

CLIENT, SERVER = "10.214.0.2", "10.214.0.1"
OURS = {"addresses": {"include": ["10.214.0.0/24"]}}
OFF = {"enabled": False}
FLOOD = tcp.Plan(count=25_000, rate=5000, address=SERVER, records=False)
"""As many as there are ports for one server in a minute."""
WEIGHT = "otelbpf.sample.weight"


@pytest.fixture
def places() -> Iterator[tuple[Place, Place]]:
    """Where the client and the server of a load run."""
    with Namespaces("grd") as spaces:
        client, server = spaces.add("client"), spaces.add("server")
        spaces.link(client, [f"{CLIENT}/24"], server, [f"{SERVER}/24"])
        yield Place(client), Place(server)


def settings(collector: Collector, **more: Any) -> dict[str, Any]:
    """An agent that sees the connections of our namespaces only, and says soon what it counts. What it says of itself
    goes to its first exporter, apart from the mass of records."""
    exporters = {name: collector.exporters()[name] for name in ("otlp_http", "otlp_grpc")}
    exporters["otlp_http"] |= {"signals": ["metrics"], "retry_on_failure": {"initial_interval": "200ms"}}
    exporters["otlp_grpc"] |= {
        "retry_on_failure": {"initial_interval": "200ms", "max_interval": "1s"},
        "sending_queue": {"max_bytes": "256MiB"},
    }
    return {
        "probes": {"tcp_connection": {"ring_size": "8MiB"}, "dns_lookup": OFF, "process": OFF},
        "filters": OURS,
        "exporters": exporters,
        "metrics": {"interval": "2s"},
        "telemetry": {"interval": "2s"},
        **more,
    }


def connections(collector: Collector) -> Counter[tuple[str, str]]:
    """(role, error.type) → connections, by the newest points."""
    counted: Counter[tuple[str, str]] = Counter()
    for point in latest(collector.points()):
        if point.metric == "otelbpf.tcp.connections":
            attributes = point.attributes
            counted[str(attributes["network.tcp.handshake.role"]), str(attributes.get("error.type", ""))] += int(
                point.value
            )
    return counted


def steps(collector: Collector) -> list[tuple[str, str]]:
    """(guard, step) of the events that tell of steps, in their order."""
    told: list[Record] = [
        record for record in collector.own_records("http") if record.event_name.startswith("otelbpf.agent.detail_")
    ]
    told.sort(key=lambda record: record.time_ns)
    return [(str(record["otelbpf.guard.name"]), str(record["otelbpf.guard.step"])) for record in told]


def test_short_of_memory_it_sheds_records_and_lives(tmp_path: Path, places: tuple[Place, Place]) -> None:
    """A collector that is away, and more records than fit into the limit: it goes down step by step, is not killed,
    counts every connection, and tells of each step when the collector is back."""
    with Collector(tmp_path) as collector, memory_limit(f"otelbpf-{os.getpid()}", 120 << 20) as limit:
        collector.kill()
        with Agent(tmp_path, settings(collector), inside=limit.inside) as agent:
            established = sum(tcp.tcp_load(FLOOD, *places).established for _ in range(3))
            wait_for(lambda: "memory_limit" in agent.text, "the first step")
            collector.start()
            wait_for(lambda: ("memory_limit", "everything") in steps(collector), "all that was taken back", 90)
            agent.stop()
        collector.stop()
        kills, peak_bytes = limit.kills, limit.peak_bytes
    events = agent.summary.events["tcp_connection"]
    print(f"at most {peak_bytes >> 20} MiB of 120, files included; {steps(collector)}")
    assert kills == 0
    assert steps(collector)[0] == ("memory_limit", "queues")
    assert (events.terms["processed"], events.terms["lost"]) == (2 * established, 0)
    assert connections(collector) == {("client", ""): established, ("server", ""): established}
    for row in agent.summary.records.values():
        assert row.balanced
    logs = agent.summary.records["otlp_grpc", "logs"]
    shed = agent.summary.due["tcp_connection"].terms["shed"] if agent.summary.due else 0
    assert logs.terms["made"] + shed == 2 * established
    assert logs.reasons["memory_limit"] > 0


def test_with_a_spool_what_waits_is_no_memory(tmp_path: Path, places: tuple[Place, Place]) -> None:
    """The file's pages fill the cgroup to its limit, but the kernel takes those back: nothing is shed for them."""
    with Collector(tmp_path) as collector, memory_limit(f"otelbpf-{os.getpid()}", 120 << 20) as limit:
        collector.kill()
        given = settings(collector)
        given["exporters"]["otlp_grpc"]["spool"] = {"directory": str(tmp_path / "spool")}
        with Agent(tmp_path, given, inside=limit.inside) as agent:
            established = sum(tcp.tcp_load(FLOOD, *places).established for _ in range(2))
            agent.stop()
        kills = limit.kills
    logs = agent.summary.records["otlp_grpc", "logs"]
    assert kills == 0
    assert "memory_limit" not in agent.text
    assert logs.terms["made"] == logs.terms["spooled"] == 2 * established


def test_beyond_its_cpu_time_it_samples_and_comes_back(tmp_path: Path, places: tuple[Place, Place]) -> None:
    """A flood that is too dear for every record: what is made carries weights that sum up to the truth, what failed is
    all there, every counter is exact, and when the flood is over every record is made again."""
    cores = cost_of_everything(tmp_path, places)
    with Collector(tmp_path) as collector:
        with Agent(tmp_path, settings(collector, cpu_limit=round(0.7 * cores, 3))) as agent:
            flood = Counter({"established": 0, "failed": 0})
            for _ in range(6):
                truth = tcp.tcp_load(replace(FLOOD, mix={"normal": 19, "refused": 1}), *places)
                flood += Counter(established=truth.established, failed=truth.failed)
            wait_for(lambda: ("cpu_limit", "everything") in steps(collector), "every record again", 120)
            after = tcp.tcp_load(tcp.Plan(count=100, address=SERVER, records=False), *places)
            wait_for(lambda: connections(collector)["client", ""] == flood["established"] + 100, "the last points")
            agent.stop()
        collector.stop()
        records = collector.records()
    due = agent.summary.due["tcp_connection"]
    established = flood["established"] + after.established
    told = steps(collector)
    print(f"{told}: {due.terms}, {len(records)} records")
    assert told[:2] == [("cpu_limit", "batched"), ("cpu_limit", "sampled")]
    assert connections(collector) == {
        ("client", ""): established,
        ("server", ""): established,
        ("client", "connection_refused"): flood["failed"],
    }
    assert (
        due.terms["due"]
        == 2 * established + flood["failed"]
        == agent.summary.events["tcp_connection"].terms["processed"]
    )
    assert due.terms["made"] == len(records) == agent.summary.records["otlp_grpc", "logs"].terms["accepted"]
    assert due.reasons == {"cpu_limit": due.terms["shed"]}
    assert due.terms["shed"] > 0
    for event, role, truth_ in (
        ("otelbpf.tcp.connection.closed", "client", established),
        ("otelbpf.tcp.connection.closed", "server", established),
        ("otelbpf.tcp.connection.failed", None, flood["failed"]),
    ):
        estimate, sigma = estimated(record for record in records if of(record, event, role))
        print(f"{event} {role}: {estimate} of {truth_}, sigma {sigma:.0f}")
        assert estimate - truth_ <= 5 * sigma
        if ("cpu_limit", "totals") not in told:  # as it may be on a busy machine; then there is nothing to sum up
            assert truth_ - estimate <= 5 * sigma
    assert both_ends(records)


def cost_of_everything(directory: Path, places: tuple[Place, Place]) -> float:
    """The cores that an agent without a limit uses on the flood: it is this machine, as busy as it is, that is asked."""
    directory = directory / "before"
    directory.mkdir()
    with Collector(directory) as collector, Agent(directory, settings(collector, cpu_limit="off")) as agent:
        tcp.tcp_load(tcp.Plan(count=1000, address=SERVER, records=False), *places)  # what is done once is done
        before_s, begun_s = cpu_s(agent.pid), time.monotonic()
        tcp.tcp_load(FLOOD, *places)
        return (cpu_s(agent.pid) - before_s) / (time.monotonic() - begun_s)


def cpu_s(pid: int) -> float:
    """The CPU time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def of(record: Record, event: str, role: str | None) -> bool:
    """Whether *record* is of *event*, by the end that has *role*; a connect that failed has none."""
    return record.event_name == event and record["network.tcp.handshake.role"] == role


def estimated(records: Iterable[Record]) -> tuple[int, float]:
    """How many events *records* stand for, and the standard deviation of that: a record of weight w adds w (w - 1)."""
    weights = [int(record[WEIGHT] or 1) for record in records]  # type: ignore[arg-type]
    return sum(weights), math.sqrt(sum(weight * (weight - 1) for weight in weights))


def both_ends(records: list[Record]) -> bool:
    """Whether of each connection both ends were kept; but at a step one end may still fall on its other side."""
    ends = Counter(record["otelbpf.connection.id"] for record in records if record["otelbpf.connection.id"])
    alone = sum(count == 1 for count in ends.values())
    return alone <= len(ends) / 100


def test_with_too_little_cpu_time_only_totals_are_left(tmp_path: Path, places: tuple[Place, Place]) -> None:
    with Collector(tmp_path) as collector:
        with Agent(tmp_path, settings(collector, cpu_limit=0.01)) as agent:
            established = sum(tcp.tcp_load(FLOOD, *places).established for _ in range(5))
            wait_for(lambda: ("cpu_limit", "totals") in steps(collector), "the last step", 60)
            before = len(collector.records())
            established += tcp.tcp_load(
                tcp.Plan(count=1000, rate=500, address=SERVER, records=False), *places
            ).established
            wait_for(lambda: connections(collector)["server", ""] == established, "the last points")
            agent.stop()
        collector.stop()
        assert len(collector.records()) == before
    assert connections(collector) == {("client", ""): established, ("server", ""): established}
    due = agent.summary.due["tcp_connection"]
    assert due.terms["due"] == 2 * established
