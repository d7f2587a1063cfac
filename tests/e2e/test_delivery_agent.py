"""The whole agent with a spool: it ends during an outage, or is killed, and the next one delivers."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING

from otelbpf.export.memory import decode_logs
from tests.e2e.agent import Agent
from tests.e2e.collector import Collector
from tests.e2e.polling import wait_for

if TYPE_CHECKING:
    from pathlib import Path

SHUTDOWN_S = 5


def settings(collector: Collector, spool: Path) -> dict:
    exporter = {"endpoint": collector.grpc_endpoint, "spool": {"directory": str(spool)}}
    return {"exporters": {"otlp_grpc": exporter}, "shutdown_timeout": f"{SHUTDOWN_S}s", "telemetry": {"enabled": False}}


def run(count: int) -> set[int]:
    """Runs so many programs; gives their process ids."""
    found = set()
    for _ in range(count):
        with subprocess.Popen(["/bin/true"]) as process:
            found.add(process.pid)
    return found


def executed(collector: Collector) -> list[int]:
    return [record["process.pid"] for record in collector.records() if record.event_name == "otelbpf.process.exec"]


def on_disk(directory: Path) -> set[object]:
    """The programs that were executed, by the spool. A copy is read: the file is the agent's alone."""
    copy = directory / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(directory / "spool" / "otlp_grpc", copy)
    with closing(sqlite3.connect(copy / "spool.db")) as database:
        try:
            bodies = database.execute("SELECT body FROM request WHERE signal = 'logs'").fetchall()
        except sqlite3.Error:  # copied in the middle of a change
            return set()
    records = [record for (body,) in bodies for record in decode_logs(body)]
    return {one.attributes["process.pid"] for one in records if one.event_name == "otelbpf.process.exec"}


def test_an_end_during_an_outage_loses_nothing(tmp_path):
    (tmp_path / "agent").mkdir()
    (tmp_path / "collector").mkdir()
    with Collector(tmp_path / "collector") as collector:
        collector.kill()
        with Agent(tmp_path / "agent", settings(collector, tmp_path / "spool")) as agent:
            pids = run(50)
            assert agent.stop() == 0
        first = agent.summary.records["otlp_grpc", "logs"]
        assert first.balanced
        assert first.terms["spooled"] == first.terms["made"] > 50
        collector.start()
        with Agent(tmp_path / "agent", settings(collector, tmp_path / "spool")) as agent:
            wait_for(lambda: pids <= set(executed(collector)), "what the first one saw")
        second = agent.summary.records["otlp_grpc", "logs"]
        assert second.balanced
        assert second.terms["recovered"] == first.terms["spooled"]
        assert second.terms["spooled"] == second.terms["queued"] == 0
        found = executed(collector)
        assert all(found.count(pid) == 1 for pid in pids)


def test_a_kill_loses_no_more_than_the_last_moment(tmp_path):
    """What happened long before the kill is delivered by the next agent; docs/reliability.md says how long."""
    (tmp_path / "agent").mkdir()
    (tmp_path / "collector").mkdir()
    with Collector(tmp_path / "collector") as collector:
        collector.kill()
        with Agent(tmp_path / "agent", settings(collector, tmp_path / "spool")) as agent:
            pids = run(20)
            wait_for(lambda: pids <= on_disk(tmp_path), "what it saw on disk")
            agent.process.send_signal(signal.SIGKILL)
            agent.process.wait()
        collector.start()
        with Agent(tmp_path / "agent", settings(collector, tmp_path / "spool")):
            wait_for(lambda: pids <= set(executed(collector)), "what the killed one saw")
