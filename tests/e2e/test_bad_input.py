"""Whatever a user or a machine can do wrong: one clear sentence or a degradation that is told, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.agent import ROOT, Agent, otelbpf
from tests.e2e.collector import Collector, free_ports
from tests.e2e.limits import memory_limit
from tests.e2e.polling import wait_for
from tests.load import tcp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.collector import Protocol

CANNOT_RUN = 2


OTHER = {"OTELBPF_INSTANCE": "bad-input"}


def sentences(text: str) -> list[str]:
    """The lines that the agent says; a traceback is never one of them."""
    assert "Traceback" not in text
    return [line for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize(
    ("file", "words", "said"),
    [
        ("probs: {}", (), ("otelbpf.yaml", "probs", "probes")),
        ("probes: {tcp_connection: {ringsize: 1MiB}}", (), ("probes.tcp_connection", "ring_size")),
        ("metrics: {interval: soon}", (), ("metrics.interval", "soon")),
        ("metrics: {interval: [1]}", (), ("metrics.interval",)),
        ("metrics: {max_series: many}", (), ("metrics.max_series",)),
        ("probes: {dns_lookup: {ports: [70000]}}", (), ("ports", "65535")),
        ("logs: {tcp_connection: sometimes}", (), ("logs.tcp_connection", "sometimes")),
        ("exporters: {otlp_grcp: {endpoint: a:1}}", (), ("otlp_grcp", "otlp_grpc")),
        ("exporters: {otlp_grpc: {}}", (), ("endpoint",)),
        ("exporters: {otlp_grpc: {endpoint: 'a:1', tls: {ca_file: /nowhere/ca}}}", (), ("/nowhere/ca",)),
        ("metrics: {interval: '${env:UNSET_VARIABLE}'}", (), ("UNSET_VARIABLE",)),
        ("probes: [", (), ("otelbpf.yaml",)),
        ("", ("--set", "metrics.intervall=1s"), ("metrics.intervall", "interval")),
        ("", ("--set", "metrics"), ("metrics",)),
    ],
)
def test_a_wrong_setting_is_one_sentence(
    tmp_path: Path, file: str, words: tuple[str, ...], said: tuple[str, ...]
) -> None:
    path = tmp_path / "otelbpf.yaml"
    path.write_text(file + "\n")
    done = otelbpf("run", "-c", str(path), "--for", "1s", *words, environment=OTHER)
    (sentence,) = sentences(done.stderr)
    assert done.returncode == CANNOT_RUN
    for word in said:
        assert word in sentence


@pytest.mark.parametrize("path", ["/nowhere/recording", "/dev/full", "unread"])
def test_a_recording_that_cannot_be_written_is_one_sentence(tmp_path: Path, path: str) -> None:
    os.mkfifo(tmp_path / "unread")
    done = otelbpf("run", "--record", str(tmp_path / path), "--for", "1s", environment=OTHER)
    (sentence,) = sentences(done.stderr)
    assert f"--record {tmp_path / path}: " in sentence
    assert done.returncode == 1


@pytest.mark.parametrize("setting", ["bearer_token_file", "tls.ca_file", "header_files"])
@pytest.mark.parametrize("path", ["unwritten", "/dev/zero", "/dev/null"])
def test_a_file_that_is_none_is_one_sentence(tmp_path: Path, setting: str, path: str) -> None:
    os.mkfifo(tmp_path / "unwritten")
    value = f"{{x-key: {tmp_path / path}}}" if setting == "header_files" else str(tmp_path / path)
    words = ("exporters.otlp_http.endpoint=https://127.0.0.1:1", f"exporters.otlp_http.{setting}={value}")
    done = otelbpf("run", "--for", "1s", "--set", words[0], "--set", words[1], environment=OTHER)
    (sentence,) = sentences(done.stderr)
    assert str(tmp_path / path) in sentence
    assert done.returncode == CANNOT_RUN


def test_a_missing_file_is_one_sentence() -> None:
    done = otelbpf("run", "-c", "/nowhere/otelbpf.yaml")
    (sentence,) = sentences(done.stderr)
    assert "/nowhere/otelbpf.yaml" in sentence
    assert done.returncode == CANNOT_RUN


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_without_standard_streams_it_runs_all_the_same(closed: str) -> None:
    command = f"exec {sys.executable} -m otelbpf run --for 1s --set exporters.console={{}} {closed}"
    environment = {**os.environ, **OTHER}
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, check=False, env=environment, text=True)
    sentences(done.stderr)
    assert "output_closed" not in done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("limit", "said"), [("-n 80", "80 open files"), ("-v 200000", "204800000 bytes of address space")]
)
@pytest.mark.parametrize("command", ["run --for 1s", "check"])
def test_a_limit_below_what_it_needs_is_one_sentence(limit: str, said: str, command: str) -> None:
    done = shell(f"ulimit {limit}; exec {sys.executable} -m otelbpf {command}")
    (sentence,) = sentences(done.stderr)
    assert done.returncode == CANNOT_RUN
    assert said in sentence
    assert "ulimit" in sentence


@pytest.mark.parametrize("command", ["run --for 1s", "check"])
def test_a_cgroup_with_too_little_memory_is_one_sentence_and_no_kill(command: str) -> None:
    with memory_limit(f"otelbpf-small-{os.getpid()}", 40 << 20) as small:
        words = [*small.inside, sys.executable, "-m", "otelbpf", *command.split()]
        environment = {**os.environ, **OTHER}
        done = subprocess.run(words, cwd=ROOT, capture_output=True, check=False, env=environment, text=True)
        assert small.kills == 0
    (sentence,) = sentences(done.stderr)
    assert done.returncode == CANNOT_RUN
    assert "its cgroup may use 40 MiB of memory and it needs 64 MiB" in sentence


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_BLRP_MAX_QUEUE_SIZE", "-1"),
        ("OTEL_ATTRIBUTE_COUNT_LIMIT", "many"),
        ("OTEL_METRICS_EXEMPLAR_FILTER", "none"),
        ("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "none"),
        ("OTEL_PYTHON_CONTEXT", "none"),
        ("OTEL_PYTHON_METER_PROVIDER", "none"),
    ],
)
def test_a_variable_of_the_sdk_cannot_stop_what_the_agent_says_of_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with Collector(tmp_path) as collector:
        with Agent(tmp_path, {"exporters": collector.exporters("grpc")}) as agent:
            assert agent.stop() == 0
        events = {"otelbpf.agent.started", "otelbpf.agent.stopped"}
        wait_for(lambda: {record.event_name for record in collector.own_records()} >= events, "the agent's own events")
    assert "mistake" not in agent.text
    assert "Traceback" not in agent.text


def test_a_soft_limit_is_raised_to_what_it_needs() -> None:
    done = shell(f"ulimit -Sn 64; exec {sys.executable} -m otelbpf run --for 1s --set exporters.console={{}}")
    sentences(done.stderr)
    assert done.returncode == 0


@pytest.mark.parametrize("room", [2, 4, 10])
def test_too_few_threads_is_one_sentence(room: int) -> None:
    with few_tasks(room) as tasks:
        done = shell(f"echo $$ > {tasks}; exec {sys.executable} -m otelbpf run --for 1s")
    (sentence,) = sentences(done.stderr)
    assert done.returncode == CANNOT_RUN
    assert "threads" in sentence
    assert "pids.max" in sentence


def shell(command: str) -> subprocess.CompletedProcess[str]:
    """Runs *command* with an agent of its own in it."""
    environment = {**os.environ, **OTHER}
    return subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False, env=environment)


@contextmanager
def few_tasks(most: int) -> Iterator[Path]:
    """The file that takes a process into a cgroup of at most so many tasks."""
    root = next(path for path in (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup")) if path.is_dir())
    directory = root / f"otelbpf-few-tasks-{os.getpid()}"
    directory.mkdir()
    try:
        if not (directory / "pids.max").exists():
            pytest.skip("no pids controller here")
        (directory / "pids.max").write_text(str(most))
        yield directory / "cgroup.procs"
    finally:
        directory.rmdir()


def test_missing_capabilities_are_named_with_their_remedy() -> None:
    command = ["setpriv", "--bounding-set=-all", sys.executable, "-m", "otelbpf", "run", "--for", "1s"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, **OTHER})
    (sentence,) = sentences(done.stderr)
    assert done.returncode == CANNOT_RUN
    assert "CAP_BPF" in sentence
    assert "root" in sentence or "setcap" in sentence


def test_two_agents_at_once_are_refused(tmp_path: Path) -> None:
    with Agent(tmp_path, {}) as first:
        done = otelbpf("run", "--for", "1s", environment={"OTELBPF_INSTANCE": str(tmp_path)})
    (sentence,) = sentences(done.stderr)
    assert done.returncode == CANNOT_RUN
    assert str(first.pid) in sentence


def outcome(directory: Path, exporters: dict[str, object]) -> Agent:
    """An agent that has seen some connections and could not deliver; it went on and ended in order."""
    settings = {"exporters": exporters, "shutdown_timeout": "1s", "metrics": {"interval": "1s"}}
    with Agent(directory, settings) as agent:
        tcp.tcp_load(tcp.Plan(count=20, address="127.8.8.8", records=False))
        assert agent.stop() == 0
    sentences(agent.text)
    for row in (*agent.summary.events.values(), *agent.summary.records.values()):
        assert row.balanced
    return agent


def test_an_unreachable_endpoint_is_told_and_counted(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    agent = outcome(tmp_path, {"otlp_grpc": {"endpoint": f"http://127.0.0.1:{port}"}})
    assert f"127.0.0.1:{port}" in agent.text
    row = agent.summary.records["otlp_grpc", "logs"]
    assert row.terms["dropped"] + row.terms["queued"] == row.terms["made"] >= 40


@pytest.mark.parametrize(
    ("exporter", "port", "said"), [("otlp_grpc", "http", "http/protobuf"), ("otlp_http", "grpc", "grpc")]
)
def test_the_wrong_protocol_is_named(tmp_path: Path, exporter: str, port: Protocol, said: str) -> None:
    with Collector(tmp_path) as collector:
        agent = outcome(tmp_path, {exporter: {"endpoint": f"http://127.0.0.1:{collector.ports[port]}"}})
    assert said in agent.text
    assert agent.summary.records[exporter, "logs"].terms["accepted"] == 0


@pytest.mark.parametrize(("exporter", "port"), [("otlp_grpc", "grpc"), ("otlp_http", "http")])
def test_tls_against_plain_text_is_told(tmp_path: Path, exporter: str, port: Protocol) -> None:
    with Collector(tmp_path) as collector:
        agent = outcome(tmp_path, {exporter: {"endpoint": f"https://127.0.0.1:{collector.ports[port]}"}})
    assert "TLS" in agent.text
    assert agent.summary.records[exporter, "logs"].terms["accepted"] == 0


def test_an_end_that_meets_a_handshake_is_in_order(tmp_path: Path) -> None:
    """Ten times, as one in five died of what exit() takes away from a thread that has not ended."""
    with Collector(tmp_path) as collector:
        for number in range(10):
            directory = tmp_path / str(number)
            directory.mkdir()
            outcome(directory, {"otlp_http": {"endpoint": f"https://127.0.0.1:{collector.ports['http']}"}})


def without(path: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs a command of the agent where *path* is an empty directory (in a mount namespace of its own)."""
    script = 'mount -t tmpfs none "$0" && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", script, path, sys.executable, "-m", "otelbpf", *words]
    environment = {**os.environ, **OTHER}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60, env=environment)


def test_no_proc_is_told_by_its_path() -> None:
    done = without("/proc", "run", "--for", "1s")
    (sentence,) = sentences(done.stderr)
    assert "/proc/self/mountinfo" in sentence
    assert done.returncode == CANNOT_RUN


def test_no_btf_is_told_and_nothing_runs() -> None:
    done = without("/sys/kernel/btf", "run", "--for", "1s")
    assert any("BTF" in sentence for sentence in sentences(done.stderr))
    assert done.returncode == CANNOT_RUN


def test_no_cgroup2_costs_the_lookups_only() -> None:
    done = without("/sys/fs/cgroup", "run", "--for", "1s")
    text = "\n".join(sentences(done.stderr))
    assert done.returncode == 0
    assert "dns_lookup" in next(line for line in text.splitlines() if "cgroup2" in line)
    assert "tcp_connection" in next(line for line in text.splitlines() if line.startswith("ready"))
