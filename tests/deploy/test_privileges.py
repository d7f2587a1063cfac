"""The capabilities of the DaemonSet suffice, and each of them is needed: the agent runs here with just those."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otelbpf.kernel import capabilities
from tests.deploy.objects import MANIFESTS, ROOT, container, read
from tests.e2e.agent import parse_summary
from tests.e2e.polling import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

CAPABILITIES = container(read(MANIFESTS / "daemonset.yaml"))["securityContext"]["capabilities"]["add"]
NOBODY = 65534
EXECUTABLE = """
import sys
from pathlib import Path
from otelbpf.enrich.machine import Machine
pid = int(sys.argv[1])
print(Machine().executable_path(Path(f"/proc/{pid}/exe").stat().st_ino, pid))
"""


def confined(given: list[str], *words: str, state: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs our Python as the container would: root with no other capabilities, a read-only root file system but for
    the mount *state*, and the private cgroup namespace that runtimes give to whoever is not privileged."""
    mask = ",".join(("-all", *(f"+{name.lower()}" for name in given)))
    limits = ["setpriv", "--no-new-privs", "--inh-caps", mask, "--ambient-caps", mask, "--bounding-set", mask]
    writable = f'mount --bind "{state}" "{state}" && ' if state is not None else ""
    script = f'{writable}mount -o remount,bind,ro / && exec "$@"'
    return subprocess.run(
        ["unshare", "--mount", "--cgroup", "sh", "-c", script, "sh", *limits, sys.executable, *words],
        capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, "OTELBPF_INSTANCE": f"deploy{os.getpid()}"},
    )  # fmt: skip


@contextmanager
def stranger() -> Iterator[int]:
    """A process of another user, as those are that are older than the agent."""
    command = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", "sleep", "60"]
    process = subprocess.Popen(command)
    try:
        wait_for(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n", "another user's process")
        yield process.pid
    finally:
        process.kill()
        process.wait()


@contextmanager
def programs() -> Iterator[None]:
    """Programs that start and end all the time: the machine may be quiet otherwise."""
    with subprocess.Popen(["sh", "-c", "while sleep 0.05; do :; done"]) as loop:
        try:
            yield
        finally:
            loop.kill()


def test_they_are_those_that_the_agent_asks_for():
    assert {f"CAP_{name}" for name in CAPABILITIES} == set(capabilities.NEEDED) | set(capabilities.recommended(uid=0))


def test_check_finds_nothing_missing():
    report = json.loads(confined(CAPABILITIES, "-m", "otelbpf", "check", "--json").stdout)
    states = {row["subject"]: row["state"] for row in report["rows"]}
    assert states["capabilities"] == "ok"
    assert {probe["name"]: probe["state"] for probe in report["probes"]} == dict.fromkeys(
        ("cgroup", "dns_lookup", "process", "tcp_connection"), "ok"
    )


def test_the_agent_runs_and_writes_nothing():
    off = ["--set", "health.endpoint=", "--set", "telemetry.enabled=false"]
    done = confined(CAPABILITIES, "-m", "otelbpf", "run", "--for", "1s", *off)
    assert done.returncode == 0, done.stderr
    assert "ready: dns_lookup" in done.stderr
    assert all(row.balanced for row in parse_summary(done.stderr.splitlines()).events.values())


def test_what_waits_for_a_collector_is_on_disk(tmp_path):
    """In a directory as kubelet makes it; root without capabilities can write it as its owner."""
    exporter = {"endpoint": "http://127.0.0.1:9", "spool": {"directory": f"{tmp_path}/spool"}}
    settings = {"exporters": {"otlp_grpc": exporter}, "health": {"endpoint": ""}, "telemetry": {"enabled": False}}
    (tmp_path / "otelbpf.yaml").write_text(json.dumps(settings | {"metrics": {"interval": "1s"}}))
    words = ("-m", "otelbpf", "run", "-c", f"{tmp_path}/otelbpf.yaml", "--for", "2s")
    with programs():
        done = confined(CAPABILITIES, *words, state=tmp_path)
    assert done.returncode == 0, done.stderr
    metrics = parse_summary(done.stderr.splitlines()).records["otlp_grpc", "metrics"]
    assert metrics.balanced
    assert metrics.terms["spooled"] > 0
    spool = tmp_path / "spool" / "otlp_grpc" / "spool.db"
    assert (spool.stat().st_mode & 0o777, spool.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_programs_of_other_users_have_names():
    with stranger() as pid:
        assert confined(CAPABILITIES, "-c", EXECUTABLE, str(pid)).stdout.strip().endswith("/sleep")


@pytest.mark.parametrize("name", sorted(set(CAPABILITIES) - {"SYS_PTRACE"}))
def test_it_does_not_start_without(name):
    done = confined([other for other in CAPABILITIES if other != name], "-m", "otelbpf", "run", "--for", "1s")
    assert "ready: dns_lookup" not in done.stderr
    assert f"missing capability CAP_{name}:" in done.stderr


@pytest.mark.parametrize("without", ["", "SYS_PTRACE"])
def test_the_kernel_tells_of_translated_connections(without):
    fewer = [name for name in CAPABILITIES if name != without]
    code = "from otelbpf.enrich import kubernetes; print(repr(kubernetes.untracked()))"
    assert confined(fewer, "-c", code).stdout == "''\n"


def test_without_ptrace_programs_of_other_users_have_none():
    fewer = [name for name in CAPABILITIES if name != "SYS_PTRACE"]
    with stranger() as pid:
        assert "Permission denied" in confined(fewer, "-c", EXECUTABLE, str(pid)).stderr
