"""Stages that really hang: on a pipe that nobody reads, a file system that never answers, a recording nobody takes."""

from __future__ import annotations

import os
import signal
import subprocess
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.agent import Agent
from tests.e2e.collector import Collector, free_ports
from tests.e2e.hung import hung_file_system
from tests.e2e.polling import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.otlp_json import Record

STUCK_AFTER_S = 2
ONLY_PROCESSES = {"tcp_connection": {"enabled": False}, "dns_lookup": {"enabled": False}}


@pytest.fixture
def port() -> int:
    """Where the agent answers for its health."""
    return free_ports(1)[0]


def settings(port: int, exporters: dict[str, Any]) -> dict[str, Any]:
    return {
        "probes": ONLY_PROCESSES,
        "exporters": exporters,
        "health": {"endpoint": f"127.0.0.1:{port}", "stuck_after": f"{STUCK_AFTER_S}s"},
        "telemetry": {"interval": "1s"},
        "shutdown_timeout": "2s",
    }


def health(port: int) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10) as answer:
            return answer.status, answer.read().decode().strip()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode().strip()


def run_programs(count: int) -> None:
    for _ in range(count):
        subprocess.run(["/bin/true"], check=True)


def told(collector: Collector, event: str) -> list[Record]:
    return [record for record in collector.own_records() if record.event_name == event]


def test_a_console_that_nobody_reads_is_named_and_comes_back(tmp_path: Path, port: int) -> None:
    reading, writing = os.pipe()
    with Collector(tmp_path) as collector:
        given = settings(port, collector.exporters("grpc") | {"console": {}})
        with Agent(tmp_path, given, output=writing) as agent:
            os.close(writing)
            assert health(port) == (200, "ok")
            run_programs(700)
            wait_for(lambda: health(port)[0] == 503, "the watchdog")
            assert "export console has been stuck for " in health(port)[1]
            assert ", in send (otelbpf/export/console.py:" in health(port)[1]
            (stuck,) = wait_for(lambda: told(collector, "otelbpf.agent.stage_stuck"), "the event")
            with os.fdopen(reading, "rb") as pipe:
                os.set_blocking(reading, False)
                wait_for(lambda: pipe.read() is not None and health(port) == (200, "ok"), "all is well again")
            (moves,) = wait_for(lambda: told(collector, "otelbpf.agent.stage_moves"), "the event")
            agent.stop()
        collector.stop()
        states = {
            point.attributes["otelbpf.stage.state"]
            for point in collector.own_points()
            if point.metric == "otelbpf.agent.stage.status"
            and point.attributes["otelbpf.stage.name"] == "export console"
        }
    assert (stuck["otelbpf.stage.name"], stuck.severity) == ("export console", 17)
    assert (moves["otelbpf.stage.name"], moves.severity) == ("export console", 9)
    assert states == {"runs", "stuck"}
    assert agent.summary.records["otlp_grpc", "logs"].balanced


def test_an_agent_that_was_stopped_goes_on(tmp_path: Path, port: int) -> None:
    """As a container that is paused: for longer than a stage may hang, with all its threads."""
    with Collector(tmp_path) as collector, Agent(tmp_path, settings(port, collector.exporters("grpc"))) as agent:
        for count in (1, 2, 3):
            agent.process.send_signal(signal.SIGSTOP)
            signal.sigtimedwait([], 3 * STUCK_AFTER_S)
            agent.process.send_signal(signal.SIGCONT)
            run_programs(5)
            wait_for(lambda count=count: len(collector.records()) >= 10 * count, "what happened then")
        assert health(port) == (200, "ok")
        assert agent.stop() == 0
    assert "stuck" not in agent.text
    assert agent.summary.events["process"].balanced
    assert agent.summary.records["otlp_grpc", "logs"].balanced


def test_a_spool_whose_disk_never_answers_is_named_and_holds_neither_line_nor_end(tmp_path: Path, port: int) -> None:
    (tmp_path / "disk").mkdir()
    with Collector(tmp_path) as collector, hung_file_system(tmp_path / "disk") as disk:
        given = settings(port, collector.exporters("grpc"))
        given["exporters"]["otlp_grpc"]["spool"] = {"directory": str(tmp_path / "disk" / "spool")}
        with Agent(tmp_path, given) as agent:
            wait_for(lambda: health(port)[0] == 503, "the watchdog")
            assert "spool otlp_grpc has been stuck for " in health(port)[1]
            assert "(otelbpf/export/spool.py:" in health(port)[1]
            run_programs(20)
            wait_for(lambda: len(collector.records()) >= 40, "records, all the same")
            disk.answer()
            wait_for(lambda: health(port) == (200, "ok"), "all is well again")
            agent.stop()
        assert "what waits is in memory only" in agent.text
        assert agent.summary.records["otlp_grpc", "logs"].balanced


def test_an_end_while_the_disk_never_answers_takes_the_time_that_it_may(tmp_path: Path, port: int) -> None:
    (tmp_path / "disk").mkdir()
    with Collector(tmp_path) as collector, hung_file_system(tmp_path / "disk"):
        given = settings(port, collector.exporters("grpc"))
        given["exporters"]["otlp_grpc"]["spool"] = {"directory": str(tmp_path / "disk" / "spool")}
        with Agent(tmp_path, given) as agent:
            run_programs(20)
            assert agent.stop() == 0  # its helper waits for 20 s
        assert agent.summary.records["otlp_grpc", "logs"].balanced
