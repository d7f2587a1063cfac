"""A running agent takes another configuration: no event is lost or counted twice, no series begins again, and what
cannot be used changes nothing."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from otelbpf.kernel.features import cgroup2_mount
from tests.e2e.agent import ROOT, STOP_LIMIT_S, Agent
from tests.e2e.collector import Collector, Protocol, free_ports, latest
from tests.e2e.netns import Namespaces
from tests.e2e.polling import wait_for
from tests.e2e.reloading import REFUSED, RELOADED, answer, answers, ask, reload, write
from tests.load import tcp
from tests.load.programs import Place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.otlp_json import Point, Record

# The filters know addresses, not namespaces: two runs on one machine must not have the same.
NET = f"{100 + os.getpid() // 250 % 100}.{os.getpid() % 250}"
CLIENT, SERVER, NOBODY = f"10.{NET}.2", f"10.{NET}.1", f"10.{NET}.128/25"
LOCAL_CLIENT, LOCAL_SERVER = f"127.{NET}.2", f"127.{NET}.1"
OURS = {"addresses": {"include": [f"10.{NET}.0/25"]}}
OFF = {"enabled": False}
ONLY_TCP = {"tcp_connection": {"ring_size": "16MiB"}, "dns_lookup": OFF, "process": OFF}
ONLY_PROCESSES = {"tcp_connection": OFF, "dns_lookup": OFF}
POLICIES = ("all", "failed", "off", {"slow": "1h"})
RELOADS = 50


@pytest.fixture
def places() -> Iterator[tuple[Place, Place]]:
    """Where the client and the server of a load run."""
    with Namespaces("rel") as spaces:
        client, server = spaces.add("client"), spaces.add("server")
        spaces.link(client, [f"{CLIENT}/24"], server, [f"{SERVER}/24"])
        yield Place(client), Place(server)


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    directory = tmp_path / "collector"
    directory.mkdir()
    with Collector(directory) as running:
        yield running


def seeing_tcp(collector: Collector, **more: Any) -> dict[str, Any]:
    exporters = collector.exporters("grpc")
    return {"probes": ONLY_TCP, "filters": OURS, "metrics": {"interval": "1s"}, "exporters": exporters} | more


def seeing_processes(exporters: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"probes": ONLY_PROCESSES, "exporters": exporters, "telemetry": {"enabled": False}} | more


def run(count: int) -> set[int]:
    """Runs so many programs; gives their process ids."""
    found = set()
    for _ in range(count):
        with subprocess.Popen(["/bin/true"]) as process:
            found.add(process.pid)
    return found


def executed(records: list[Record]) -> list[int]:
    return [int(str(one["process.pid"])) for one in records if one.event_name == "otelbpf.process.exec"]


def connect(places: tuple[Place, Place], count: int = 20) -> tcp.TcpTruth:
    return tcp.tcp_load(tcp.Plan(count=count, address=SERVER, records=False), *places)


def check_series(points: list[Point]) -> None:
    """Each series has one start, and a counter never falls. How many are open is counted afresh, and begins again."""
    of_series: dict[Any, list[Point]] = {}
    for point in sorted(points, key=lambda point: point.time_ns):
        if point.metric != "otelbpf.tcp.connection.active":
            of_series.setdefault(point.series, []).append(point)
    for series in of_series.values():
        assert {point.start_ns for point in series} == {series[0].start_ns}
        assert all(one.value <= other.value for one, other in itertools.pairwise(series))


def total(points: list[Point], metric: str) -> float:
    return sum(point.value for point in latest(points) if point.metric == metric)


def test_fifty_reloads_under_load_lose_nothing_and_bend_no_number(
    tmp_path: Path, places: tuple[Place, Place], collector: Collector
) -> None:
    mix = {"normal": 6, "refused": 1, "server_resets": 1, "server_closes": 2}
    truths: list[tcp.TcpTruth] = []
    ended = threading.Event()

    def load() -> None:
        while not ended.is_set():
            truths.append(tcp.tcp_load(tcp.Plan(count=300, mix=mix, address=SERVER, records=False), *places))

    with Agent(tmp_path, seeing_tcp(collector)) as agent:
        loading = threading.Thread(target=load)
        loading.start()
        for number in range(1, RELOADS + 1):
            logs = {"tcp_connection": POLICIES[number % len(POLICIES)]}
            legacy = {"legacy": ("dup", "off")[number % 2]}
            wanted = seeing_tcp(collector, logs=logs, attributes=legacy, metrics={"interval": f"{1 + number % 2}s"})
            assert reload(agent, tmp_path, wanted) != "nothing has changed"
        ended.set()
        loading.join()
        agent.stop()
    collector.stop()
    established, failed = sum(one.established for one in truths), sum(one.failed for one in truths)
    events = agent.summary.events["tcp_connection"]
    logs_row, metrics_row = (agent.summary.records["otlp_grpc", signal_] for signal_ in ("logs", "metrics"))
    assert events.balanced
    assert (events.terms["processed"], events.terms["lost"]) == (2 * established + failed, 0)
    assert logs_row.balanced
    assert logs_row.terms["made"] == logs_row.terms["accepted"] == len(collector.records())
    assert failed < logs_row.terms["made"] < events.terms["processed"]
    assert metrics_row.terms["made"] == metrics_row.terms["accepted"] == len(collector.points())
    points = collector.points()
    check_series(points)
    assert total(points, "otelbpf.tcp.connections") == 2 * established + failed
    assert total(points, "otelbpf.tcp.closes") == 2 * established
    transferred = sum(one.client["sent"] + one.client["received"] for one in truths)
    assert total(points, "otelbpf.tcp.io") == 2 * transferred
    own = latest(collector.own_points())
    assert total(own, "otelbpf.agent.config.reloads") == RELOADS


def test_filters_change_in_the_kernel(tmp_path: Path, places: tuple[Place, Place], collector: Collector) -> None:
    steps: list[tuple[dict[str, Any], bool]] = [
        ({"addresses": {"include": [NOBODY]}}, False),
        ({"addresses": OURS["addresses"] | {"exclude": [CLIENT]}}, False),
        (OURS, True),
        (OURS | {"ports": {"include": [1]}}, False),
        (OURS | {"ports": {"exclude": [1]}}, True),
    ]
    expected = 0
    with Agent(tmp_path, seeing_tcp(collector)) as agent:
        for filters, is_seen in steps:
            assert "filters." in reload(agent, tmp_path, seeing_tcp(collector, filters=filters))
            made = connect(places)
            expected += 2 * made.established * is_seen
            if filters.get("addresses", {}).get("exclude") == [CLIENT]:
                expected += made.established  # the client's own, whose other end is the server
        agent.stop()
    events = agent.summary.events["tcp_connection"]
    assert (events.terms["processed"], events.terms["lost"]) == (expected, 0)
    assert events.terms["filtered"] >= 2 * 20 * len(steps) - expected
    assert events.balanced


def test_a_connection_that_is_hidden_for_a_while_is_counted_once(tmp_path: Path, collector: Collector) -> None:
    """Both its ends are here. What it sends while it is hidden counts when it is seen again."""
    ours = {"addresses": {"include": [f"127.{NET}.0/24"]}}
    sent = 0
    with socket.create_server((LOCAL_SERVER, 0)) as listener, Agent(tmp_path, seeing_tcp(collector)) as agent:
        reload(agent, tmp_path, seeing_tcp(collector, filters=ours))
        port = listener.getsockname()[1]
        client = socket.create_connection((LOCAL_SERVER, port), source_address=(LOCAL_CLIENT, 0))
        server, _ = listener.accept()
        for hidden in (False, True, False, True, False):
            lists = {"ports": {"exclude": [port]}} if hidden else {"ports": {"exclude": [1]}}
            reload(agent, tmp_path, seeing_tcp(collector, filters=ours | lists))
            for _ in range(10):
                client.sendall(b"x" * 1000)
                sent += len(server.recv(1000, socket.MSG_WAITALL))
        client.close()
        server.close()
        agent.stop()
    collector.stop()
    points = collector.points()
    check_series(points)
    assert total(points, "otelbpf.tcp.connections") == total(points, "otelbpf.tcp.closes") == 2
    assert total(points, "otelbpf.tcp.io") == 2 * sent == 2 * 50_000
    assert sorted(record.event_name for record in collector.records()) == ["otelbpf.tcp.connection.closed"] * 2


@pytest.fixture
def cgroup() -> Iterator[Path]:
    mount = cgroup2_mount()
    assert mount is not None
    made = mount / f"otelbpf-reload-{free_ports(1)[0]}"
    made.mkdir()
    yield made
    made.rmdir()


def run_in(cgroup: Path) -> int:
    """Runs a program in *cgroup*; gives its process id."""
    command = ["sh", "-c", f"echo $$ > {cgroup}/cgroup.procs && exec /bin/true"]
    with subprocess.Popen(command) as process:
        return process.pid


def test_a_cgroup_is_left_out_and_let_in_again(tmp_path: Path, collector: Collector, cgroup: Path) -> None:
    seen: dict[int, bool] = {}
    with Agent(tmp_path, seeing_processes(collector.exporters("grpc"))) as agent:
        for lists, is_seen in (({}, True), ({"exclude": [f"*/{cgroup.name}"]}, False), ({"exclude": ["/x"]}, True)):
            reload(agent, tmp_path, seeing_processes(collector.exporters("grpc"), filters={"cgroups": lists}))
            seen |= {run_in(cgroup): is_seen for _ in range(5)}
        agent.stop()
    assert agent.summary.events["process"].balanced
    collector.stop()
    exits = [one for one in collector.records() if one.event_name == "otelbpf.process.exit"]
    found = {int(str(one["process.pid"])) for one in exits}
    assert {pid: pid in found for pid in seen} == seen


def test_older_names_come_and_go(tmp_path: Path, places: tuple[Place, Place], collector: Collector) -> None:
    with Agent(tmp_path, seeing_tcp(collector)) as agent:
        for legacy in ("dup", "off", "dup"):
            reload(agent, tmp_path, seeing_tcp(collector, attributes={"legacy": legacy}))
            connect(places, 10)
        agent.stop()
    collector.stop()
    records = sorted(collector.records(), key=lambda record: record.time_ns)
    assert ["net.peer.ip" in record.attributes for record in records] == [True] * 20 + [False] * 20 + [True] * 20
    check_series(collector.points())


def test_other_attributes_make_other_resources_and_the_sum_is_right(
    tmp_path: Path, places: tuple[Place, Place], collector: Collector
) -> None:
    with Agent(tmp_path, seeing_tcp(collector)) as agent:
        connect(places)
        wanted = seeing_tcp(collector, resource={"attributes": {"tier": "b"}})
        assert reload(agent, tmp_path, wanted) == "resource.attributes"
        connect(places)
        agent.stop()
    collector.stop()
    tiers = [record.resource.get("tier") for record in sorted(collector.records(), key=lambda one: one.time_ns)]
    assert tiers == [None] * 40 + ["b"] * 40
    points = collector.points()
    check_series(points)
    assert total(points, "otelbpf.tcp.connections") == 80
    assert total([point for point in points if point.resource.get("tier") == "b"], "otelbpf.tcp.connections") == 40
    assert {one.resource.get("tier") for one in collector.own_records()} == {None, "b"}


def test_exporters_come_and_go(tmp_path: Path, collector: Collector) -> None:
    grpc, http = collector.exporters("grpc"), collector.exporters("http")
    with Agent(tmp_path, seeing_processes(grpc)) as agent:
        first = run(20)
        assert reload(agent, tmp_path, seeing_processes(grpc | http)) == "exporters.otlp_http"
        second = run(20)
        assert reload(agent, tmp_path, seeing_processes(http)) == "exporters.otlp_grpc"
        third = run(20)
        assert reload(agent, tmp_path, seeing_processes(grpc | http)) == "exporters.otlp_grpc"
        fourth = run(20)
        agent.stop()
    collector.stop()
    ours = first | second | third | fourth
    by_grpc = [pid for pid in executed(collector.records("grpc")) if pid in ours]
    by_http = [pid for pid in executed(collector.records("http")) if pid in ours]
    # What is made within a tick of the change may go either way of it, but for those that the change waits for.
    assert len(by_grpc) == len(set(by_grpc))
    assert len(by_http) == len(set(by_http))
    assert set(by_grpc) | set(by_http) == ours
    assert fourth <= set(by_grpc) & set(by_http)
    for row in agent.summary.records.values():
        assert row.balanced
        assert row.terms["made"] == row.terms["accepted"]


def test_what_waits_for_a_peer_that_is_away_goes_to_the_one_that_is_set_then(
    tmp_path: Path, collector: Collector
) -> None:
    def exporter(endpoint: str, **more: Any) -> dict[str, Any]:
        return {"otlp_grpc": {"endpoint": endpoint, "spool": {"directory": str(tmp_path / "spool")}} | more}

    away = seeing_processes(exporter(f"http://127.0.0.1:{free_ports(1)[0]}"))
    there = seeing_processes(exporter(collector.grpc_endpoint, headers={"x-key": "value"}))
    with Agent(tmp_path, away) as agent:
        pids = run(50)
        wait_for(lambda: "nothing listens on" in agent.text, "the outage")
        said = reload(agent, tmp_path, there)
        assert set(said.split(", ")) == {"exporters.otlp_grpc.endpoint", "exporters.otlp_grpc.headers"}
        wait_for(lambda: pids <= set(executed(collector.records())), "what had waited")
        agent.stop()
    collector.stop()
    row = agent.summary.records["otlp_grpc", "logs"]
    assert row.balanced
    assert row.terms["made"] == row.terms["accepted"] == len(collector.records())
    found = executed(collector.records())
    assert all(found.count(pid) == 1 for pid in pids)
    assert "value" not in agent.text


def test_what_a_reload_did_is_an_event_and_is_counted(tmp_path: Path, collector: Collector) -> None:
    settings = seeing_processes(collector.exporters("grpc"), telemetry={"interval": "1s"})
    with Agent(tmp_path, settings) as agent:
        said = reload(agent, tmp_path, settings | {"logs": {"process": "off"}, "metrics": {"temporality": "delta"}})
        assert said == "logs.process; restart needed for: metrics.temporality"
        (tmp_path / "otelbpf.yaml").write_text("logs: {proces: off}\nmetrics: {interval: 1}\n")
        assert ask(agent) == REFUSED
        assert (
            f"otelbpf: {tmp_path}/otelbpf.yaml:1: logs.proces: is not a setting; did you mean process?" in agent.lines
        )
        assert any("otelbpf.yaml:2: metrics.interval: " in line for line in agent.lines)
        (tmp_path / "otelbpf.yaml").write_text("\n")  # cut by a full disk; the defaults are not what is meant
        assert ask(agent) == REFUSED
        assert f"otelbpf: {tmp_path}/otelbpf.yaml: is empty; write {{}} if the defaults are meant" in agent.lines
        (tmp_path / "otelbpf.yaml").unlink()
        assert ask(agent) == REFUSED
        said = reload(agent, tmp_path, settings | {"metrics": {"temporality": "delta"}})
        assert said == "logs.process; restart needed for: metrics.temporality"
        agent.stop()
    collector.stop()
    told = [one for one in collector.own_records() if ".config_" in one.event_name]
    named = [(one.event_name.rpartition(".")[2], one["otelbpf.config.applied"], one["error.type"]) for one in told]
    assert named == [
        ("config_reloaded", ["logs.process"], None),
        ("config_refused", None, "refused"),
        ("config_refused", None, "refused"),
        ("config_refused", None, "refused"),
        ("config_reloaded", ["logs.process"], None),
    ]
    assert all(one["otelbpf.config.restart"] == ["metrics.temporality"] for one in told if not one["error.type"])
    counted = {
        point.attributes.get("error.type"): point.value
        for point in latest(collector.own_points())
        if point.metric == "otelbpf.agent.config.reloads"
    }
    assert counted == {None: 2, "refused": 3}


def test_the_agents_own_signals_follow_their_peer(tmp_path: Path, collector: Collector) -> None:
    def settings(protocol: Any) -> dict[str, Any]:
        return seeing_processes(collector.exporters(protocol), telemetry={"interval": "1s"})

    def seen(protocol: Any) -> set[str]:
        return {one.event_name.removeprefix("otelbpf.agent.") for one in collector.own_records(protocol)}

    with Agent(tmp_path, settings("grpc")) as agent:
        wait_for(lambda: collector.own_points("grpc"), "its metrics")
        said = reload(agent, tmp_path, settings("http"))
        assert set(said.split(", ")) == {"exporters.otlp_grpc", "exporters.otlp_http"}
        wait_for(lambda: collector.own_points("http"), "its metrics at the other peer")
        agent.stop()
    collector.stop()
    assert seen("grpc") == {"started"}
    assert seen("http") == {"config_reloaded", "stopped"}


def test_a_file_that_is_watched(tmp_path: Path) -> None:
    """As a ConfigMap is mounted: the file is a link to a link, which is turned to another directory."""
    settings = {"probes": ONLY_PROCESSES, "exporters": {"console": {"signals": ["metrics"]}}}
    for version, interval in (("one", "20s"), ("two", "30s")):
        (tmp_path / version).mkdir()
        write(tmp_path / version, settings | {"metrics": {"interval": interval}})
    with Agent(tmp_path, settings, "--watch", "--set", "metrics.interval=40s") as agent:
        before = len(answers(agent))
        (tmp_path / "otelbpf.yaml").unlink()
        assert answer(agent, before) == REFUSED
        (tmp_path / "data").symlink_to("one")
        (tmp_path / "otelbpf.yaml").symlink_to("data/otelbpf.yaml")
        assert answer(agent, before + 1) == "nothing has changed"  # --set stays in force
        write(tmp_path / "two", settings | {"logs": {"process": "failed"}})
        (tmp_path / "new").symlink_to("two")
        (tmp_path / "new").rename(tmp_path / "data")
        assert answer(agent, before + 2) == "logs.process"
        write(tmp_path / "two", settings | {"logs": {"process": "off"}})
        assert answer(agent, before + 3) == "logs.process"
        agent.stop()
    assert agent.summary.events["process"].balanced


def test_two_signals_at_once_and_one_while_it_ends(tmp_path: Path) -> None:
    """The peer is away, so that the end takes its time."""
    exporter = {"endpoint": f"http://127.0.0.1:{free_ports(1)[0]}"}
    settings = seeing_processes({"otlp_grpc": exporter}, shutdown_timeout="3s")
    with Agent(tmp_path, settings) as agent:
        write(tmp_path, settings | {"logs": {"process": "failed"}})
        for _ in range(2):
            agent.process.send_signal(signal.SIGHUP)
        wait_for(lambda: f"{RELOADED}logs.process" in agent.lines, "the reload")
        run(5)
        agent.process.send_signal(signal.SIGTERM)
        for _ in range(3):
            agent.process.send_signal(signal.SIGHUP)
        agent.process.wait(STOP_LIMIT_S)  # before `stop`, whose signal would be a second one to end
        assert agent.stop() == 0
    assert agent.summary.events["process"].balanced
    assert agent.summary.records["otlp_grpc", "metrics"].balanced


def test_a_second_signal_to_end_is_obeyed_at_once_after_a_reload_too(tmp_path: Path) -> None:
    exporter = {"endpoint": f"http://127.0.0.1:{free_ports(1)[0]}"}
    settings = seeing_processes({"otlp_grpc": exporter}, shutdown_timeout="60s")
    with Agent(tmp_path, settings) as agent:
        run(5)  # so that there is something to send, and the end takes its time
        reload(agent, tmp_path, settings | {"logs": {"process": "failed"}})
        agent.process.send_signal(signal.SIGTERM)
        wait_for(lambda: agent.process.send_signal(signal.SIGTERM) or agent.process.poll() is not None, "the end", 30)
        assert agent.process.returncode == 128 + signal.SIGTERM


def test_without_a_file_it_says_so() -> None:
    command = [sys.executable, "-m", "otelbpf", "run", "--for", "60s", "--set", "health.endpoint="]
    command += ["--set", "exporters.console.signals=[metrics]"]
    environment = {"OTELBPF_INSTANCE": f"reload-{free_ports(1)[0]}", "PATH": "/usr/bin:/bin"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("ready"):
                process.send_signal(signal.SIGHUP)
            if line == f"{REFUSED}\n":
                process.send_signal(signal.SIGTERM)
            if line.startswith("otelbpf: there is no configuration file"):
                told = line
    assert told == "otelbpf: there is no configuration file to read again; start with -c FILE\n"
    assert process.returncode == 0


def test_a_file_to_watch_is_needed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "otelbpf", "run", "--watch"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (2, "otelbpf: --watch needs a file to watch; give it with -c FILE\n")


def held(agent: Agent) -> tuple[int, int]:
    """Threads and descriptors of the agent."""
    proc = Path(f"/proc/{agent.pid}")
    return len(list((proc / "task").iterdir())), len(list((proc / "fd").iterdir()))


def test_many_reloads_leave_nothing_behind(tmp_path: Path, collector: Collector) -> None:
    """Each one takes away an exporter, redirects another, and moves the agent's own signals."""
    grpc, http = collector.exporters("grpc"), collector.exporters("http")

    def settings(number: int) -> dict[str, Any]:
        name = f"otlp_{('http', 'grpc')[number % 2]}"
        kept = (http, grpc)[number % 2][name] | {"headers": {"x-number": str(number)}}
        exporter, often = {f"{name}/{number % 2}": kept}, {"interval": "1s"}
        return {"probes": ONLY_PROCESSES, "exporters": exporter, "telemetry": often, "metrics": often}

    def deliver(protocol: Protocol) -> None:
        pids = run(1)
        wait_for(lambda: pids <= set(executed(collector.records(protocol))), f"records over {protocol}")
        wait_for(lambda: collector.points(protocol), f"points over {protocol}")

    with Agent(tmp_path, settings(0)) as agent:
        deliver("http")
        reload(agent, tmp_path, settings(1))
        deliver("grpc")
        for number in range(2, 11):
            reload(agent, tmp_path, settings(number))
        before = held(agent)
        for number in range(11, 31):
            reload(agent, tmp_path, settings(number))
        wait_for(lambda: all(now <= then + 4 for now, then in zip(held(agent), before, strict=True)), "what ends")
        agent.stop()
    assert all(row.balanced for row in agent.summary.records.values())
    assert len(agent.summary.records) == 4
