"""A scripted session: every kind of event is caused on purpose, and what it should look like is written down."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from tests.e2e import dns_steps, expect, tcp_steps
from tests.e2e.agent import Agent
from tests.e2e.collector import PROTOCOLS, Collector
from tests.e2e.processes import Owner, Talker, copy_program
from tests.e2e.stage import stage

if TYPE_CHECKING:
    from tests.e2e.stage import Session, Stage


SETTINGS = {
    "metrics": {"interval": "1s"},
    "telemetry": {"interval": "1s"},
    "probes": {"dns_lookup": {"timeout": "1s"}},
}


def play(directory: Path) -> Session:
    """Runs the whole session with an agent that sends over gRPC and HTTP to one collector; returns all that is known."""
    with ExitStack() as open_:
        place = open_.enter_context(stage(directory))
        collector = open_.enter_context(Collector(directory))
        front = open_.enter_context(Talker(directory, "e2e-front", place.client))
        back = open_.enter_context(Talker(directory, "e2e-back", place.server))
        older = tcp_steps.Conversation(place, front, back)
        older.exchange(1000, 2000)
        settings = {**SETTINGS, "exporters": collector.exporters()}
        with Agent(directory, settings) as agent:
            place.session.agent_pid = agent.pid
            place.session.began_ns = time.time_ns()
            tcp_steps.end_older(place, older)
            tcp_steps.tcp_kinds(place)
            tcp_steps.tcp_families(place)
            tcp_steps.timed_out(place)
            tcp_steps.unroutable(place, front)
            tcp_steps.large_transfer(place)
            tcp_steps.long_lived(place, collector, front, back)
            dns_steps.lookups_by_dnsmasq(place, front, back)
            dns_steps.lookups_of_every_class(place)
            short_processes(place)
            dns_steps.wait_for_timeouts(place, collector)
            place.session.ended_ns = time.time_ns()
            place.session.exit_code = agent.stop()
        place.session.summary = agent.summary
        collector.stop()
        keep(place.session, collector)
    return place.session


def keep(session: Session, collector: Collector) -> None:
    """What arrived."""
    names = {one.owner.executable.name for one in session.expected + session.processes}
    session.services = frozenset(names - {"dig", "dnsmasq"})
    for protocol in PROTOCOLS:
        session.records[protocol] = collector.records(protocol)
        session.points[protocol] = collector.points(protocol)


def short_processes(place: Stage) -> None:
    """A process that lives a millisecond, one that fails, one that is killed."""
    me = Owner(os.getpid(), Path(sys.executable).resolve())
    for name, code in (("true", 0), ("false", 1)):
        executable = copy_program(Path(shutil.which(name) or name), place.directory, f"e2e-{name}")
        process = subprocess.Popen([str(executable), "argument"])
        process.wait()
        owner = Owner(process.pid, executable)
        place.session.processes += [expect.executed(owner, me, str(executable)), expect.exited(owner, me, code)]
    executable = copy_program(Path(shutil.which("sleep") or "sleep"), place.directory, "e2e-sleep")
    process = subprocess.Popen([str(executable), "60"])
    process.send_signal(signal.SIGKILL)
    process.wait()
    owner = Owner(process.pid, executable)
    place.session.processes += [expect.executed(owner, me, str(executable)), expect.exited(owner, me, None, "SIGKILL")]
