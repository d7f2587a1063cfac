"""Every event of the agent about itself, each really caused, as a real collector receives them."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.e2e.agent import Agent
from tests.e2e.collector import Collector, latest
from tests.e2e.polling import wait_for

if TYPE_CHECKING:
    from tests.e2e.otlp_json import Point, Record

OFF = {"enabled": False}
WITHOUT_CGROUP2 = (
    "unshare",
    "--mount",
    "sh",
    "-c",
    'for mount in $(findmnt -n -l -o TARGET -t cgroup2); do umount -l "$mount"; done; exec "$@"',
    "sh",
)
"""Runs the words behind them where no cgroup2 is mounted, to which DNS programs could be attached."""


def settings(collector: Collector, **more: Any) -> dict[str, Any]:
    exporter = collector.exporters("grpc")["otlp_grpc"]
    exporter |= {"retry_on_failure": {"initial_interval": "200ms", "max_interval": "500ms"}, "timeout": "1s"}
    return {"exporters": {"otlp_grpc": exporter}, "telemetry": {"interval": "1s"}, **more}


def told(collector: Collector) -> list[Record]:
    return sorted(collector.own_records(), key=lambda record: record.time_ns)


def of(collector: Collector, name: str) -> list[Record]:
    return [record for record in told(collector) if record.event_name == f"otelbpf.agent.{name}"]


def run_programs(count: int) -> None:
    for _ in range(count):
        subprocess.run(["/bin/true"], check=True)


def test_what_happened_during_an_outage_is_told_after_it(tmp_path: Path) -> None:
    """Much longer than OpenTelemetry's SDK would remember it; in the order in which it happened, each once."""
    small = {"process": {"ring_size": "4KiB"}, "tcp_connection": OFF, "dns_lookup": OFF}
    with Collector(tmp_path) as collector:
        with Agent(tmp_path, settings(collector, probes=small)) as agent:
            wait_for(lambda: of(collector, "started"), "the start")
            collector.stop()
            run_programs(5)
            wait_for(lambda: "; trying again" in agent.text, "the outage")
            agent.process.send_signal(signal.SIGSTOP)
            run_programs(100)
            agent.process.send_signal(signal.SIGCONT)
            for _ in range(15):  # of the SDK's time-out
                run_programs(1)
                signal.sigtimedwait([], 1)
            collector.start()
            wait_for(lambda: of(collector, "exporter_up"), "the end of the outage")
            wait_for(lambda: of(collector, "data_lost"), "what was lost")
            agent.stop()
        collector.stop()
        names = [record.event_name.removeprefix("otelbpf.agent.") for record in told(collector)]
        (down,), (up,) = of(collector, "exporter_down"), of(collector, "exporter_up")
        lost = of(collector, "data_lost")
        points = latest(collector.own_points())
    assert names[0] == "started"
    assert names.count("stopped") == 1
    assert names.index("exporter_down") < names.index("data_lost") < names.index("exporter_up")
    assert len(set(names)) == 5
    assert down["otel.component.name"] == up["otel.component.name"] == "otlp_grpc"
    assert (down.severity, up.severity) == (13, 9)
    assert "nothing listens" in down.body
    events = agent.summary.events["process"]
    assert {record["error.type"] for record in lost} == {"ring_full"}
    assert sum(int(record.body.split()[0]) for record in lost) == events.terms["lost"] > 0
    outcomes = {
        point.attributes.get("error.type"): point.value
        for point in points
        if point.metric == "otelbpf.agent.events" and point.attributes["otelbpf.probe.name"] == "process"
    }
    assert outcomes["ring_full"] == events.terms["lost"]
    assert dashboard(points) == {
        "unaccounted": 0,
        "lost": events.terms["lost"],
        "shed": 0,
        "not taken": 0,
        "on its way": 0,
    }


def dashboard(points: list[Point]) -> dict[str, float]:
    """The row that docs/reliability.md gives, which says from these numbers alone whether data is complete."""

    def total(metric: str, **having: set[str | None]) -> float:
        wanted = {name.replace("_", "."): values for name, values in having.items()}
        return sum(
            point.value
            for point in points
            if point.metric == metric and all(point.attributes.get(name) in wanted[name] for name in wanted)
        )

    def exported(*kinds: str) -> float:
        whole = sum(total(f"otel.sdk.exporter.{kind}.exported") for kind in kinds)
        return whole - sum(total(f"otel.sdk.exporter.{kind}.exported", error_type={None}) for kind in kinds)

    seen, pending = total("otelbpf.agent.kernel.events"), total("otelbpf.agent.pending")
    return {
        "unaccounted": seen - total("otelbpf.agent.events") - pending,
        "lost": total("otelbpf.agent.events", otelbpf_event_outcome={"lost", "undecodable"}),
        "shed": total("otelbpf.agent.log.records", otelbpf_record_outcome={"shed"}),
        "not taken": exported("log", "metric_data_point"),
        "on its way": sum(total(f"otel.sdk.exporter.{kind}.inflight") for kind in ("log", "metric_data_point")),
    }


def test_a_probe_that_cannot_be_attached_is_told(tmp_path: Path) -> None:
    with Collector(tmp_path) as collector:
        with Agent(tmp_path, settings(collector), inside=WITHOUT_CGROUP2) as agent:
            (failed,) = wait_for(lambda: of(collector, "probe_failed"), "the failure")
            agent.stop()
        collector.stop()
    assert (failed["otelbpf.probe.name"], failed.severity) == ("dns_lookup", 17)
    assert "cgroup" in failed.body
    assert "probe dns_lookup is off: " in agent.text


def test_the_numbers_about_itself_are_those_of_the_machine(tmp_path: Path) -> None:
    """CPU time, memory, descriptors, fill and age against what /proc and the account say."""
    with Collector(tmp_path) as collector:
        with Agent(tmp_path, settings(collector)) as agent:
            run_programs(50)
            wait_for(lambda: len(collector.records()) >= 100, "records")
            wait_for(lambda: descriptors_are_told(collector, agent.pid), "the number of descriptors")
            agent.stop()
        collector.stop()
        points = {
            (point.metric, *map(str, point.attributes.values())): point for point in latest(collector.own_points())
        }
    assert 20 << 20 < points["process.memory.usage",].value < 300 << 20
    assert points["process.cpu.time", "user"].value > 0.1
    for probe in ("process", "dns_lookup", "tcp_connection"):
        assert points["otelbpf.agent.map.entries", f"{probe}.events"].value == 0
        assert points["otelbpf.agent.map.capacity", f"{probe}.events"].value > 1000
        assert points["otelbpf.agent.probe.status", *state_of(points, probe)].value == 1
    assert points["otelbpf.agent.queue.age", "otlp_grpc/logs"].value < 60
    assert points["otelbpf.agent.series.overflow", "otelbpf.process.execs"].value == 0
    assert points["otelbpf.agent.stage.status", "line", "runs"].value == 1
    assert points["otelbpf.agent.stage.overdue", "line"].value == 0
    lag = points["otelbpf.agent.event.lag",]
    assert lag.count > 0
    assert 0 < lag.value / lag.count < 10
    lookups = [points["otelbpf.agent.enrichment.lookups", "executable", result].value for result in ("hit", "miss")]
    assert min(lookups) > 0


def descriptors_are_told(collector: Collector, pid: int) -> bool:
    """Whether the number that was told last is the one that there is; connections come and go."""
    there_are = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    points = [one for one in latest(collector.own_points()) if one.metric == "process.unix.file_descriptor.count"]
    return any(abs(one.value - there_are) <= 2 for one in points)


def state_of(points: dict[Any, Any], probe: str) -> tuple[str, ...]:
    """The attributes of the probe's status, of which there is one."""
    (found,) = [key[1:] for key in points if key[0] == "otelbpf.agent.probe.status" and probe in key]
    return found
