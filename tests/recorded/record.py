"""Makes `session.recording` from a real kernel: one of each event, by processes in a cgroup and a namespace of their own.

Run: python -m tests.recorded.record (root). What other processes of the machine did meanwhile is left out, and the node
has a name of its own, so that the file says nothing of where it was made. Then look at what changed in `session.json`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from otelbpf.kernel.features import cgroup2_mount
from otelbpf.recording import EVENTS, MACHINE, SNAPSHOT, Frame, Recorder, Recording
from tests.recorded.test_recorded import GOLDEN, RECORDING, told

NAMESPACE = "otelbpf-record"
CONTAINER = "0123456789abcdef" * 4
CGROUP = f"/system.slice/docker-{CONTAINER}.scope"
DNSMASQ = "exec dnsmasq -k --no-resolv --no-hosts --listen-address=127.0.0.1 --bind-interfaces --log-facility=- "
DNSMASQ += "--address=/db.shop.test/127.0.0.9 --cname=database.shop.test,db.shop.test"
STEPS = (
    "sleep 0.5; exec dig +tries=1 +time=1 @127.0.0.1 db.shop.test A",
    "exec dig +tries=1 +time=1 @127.0.0.1 nowhere.test MX",
    "exec dig +tcp +tries=1 @127.0.0.1 db.shop.test AAAA",
    "exec dig +tries=1 +time=1 @127.0.0.2 silent.test TXT",
    "exec nc -q 0 -N 127.0.0.9 53 < /dev/null",
    "exec nc -N 127.0.0.9 9",
    "kill -9 $$",
)


def main() -> None:
    mount = cgroup2_mount()
    if mount is None:
        sys.exit("no cgroup2 mount")
    with ExitStack() as open_:
        directory = Path(open_.enter_context(TemporaryDirectory()))
        cgroup = Path(f"{mount}{CGROUP}")
        subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
        open_.callback(subprocess.run, ["ip", "netns", "del", NAMESPACE], check=True)
        subprocess.run(["ip", "-n", NAMESPACE, "link", "set", "lo", "up"], check=True)
        cgroup_id = record(directory / "all", cgroup)
        keep(directory / "all", cgroup_id)
    GOLDEN.write_text(json.dumps(told(RECORDING), indent=1, ensure_ascii=False) + "\n")


def record(path: Path, cgroup: Path) -> int:
    """Records the session into *path*; gives the id of its cgroup."""
    words = [sys.executable, "-m", "otelbpf", "run", "--record", str(path), "--set", "exporters.console={}"]
    words += ["--set", "probes.dns_lookup.timeout=1s", "--set", "metrics.interval=1s"]
    environ = os.environ | {"OTELBPF_INSTANCE": NAMESPACE}
    agent = subprocess.Popen(words, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert agent.stderr is not None
    while not agent.stderr.readline().startswith("ready"):
        pass
    cgroup.mkdir(parents=True)
    cgroup_id = cgroup.stat().st_ino
    server = inside(cgroup, DNSMASQ)
    for step in STEPS:
        inside(cgroup, step).wait()
    time.sleep(2.5)  # the silent lookup is told by the sweep
    server.terminate()
    server.wait()
    agent.terminate()
    agent.communicate()
    cgroup.rmdir()
    return cgroup_id


def inside(cgroup: Path, command: str) -> subprocess.Popen[bytes]:
    words = ["nsenter", f"--net=/run/netns/{NAMESPACE}", "/bin/sh", "-c", f"echo $$ > {cgroup}/cgroup.procs; {command}"]
    return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def keep(path: Path, cgroup_id: int) -> None:
    """Writes RECORDING with the rows of one cgroup only, and the answers that they need."""
    with Recording(path) as recording, Recorder(RECORDING, recording.layouts) as kept:
        executables: set[str] = set()
        for frame in recording.frames():
            if frame.kind not in (EVENTS, SNAPSHOT):
                if frame.kind != MACHINE:
                    kept.write(frame)
                continue
            rows = np.frombuffer(frame.payload, recording.layouts[frame.kind, frame.probe])
            whose = rows["head"]["cgroup_id"] if "head" in (rows.dtype.names or ()) else rows["cgroup_id"]
            rows = rows[whose == cgroup_id]
            if "head" in (rows.dtype.names or ()):
                executables |= {str(number) for number in rows["head"]["executable"].tolist()}
            if len(rows):
                kept.write(Frame(frame.kind, frame.time_ns, frame.clock_offset_ns, frame.probe, rows.tobytes()))
        answers = {
            "host_name": {"": "node-1"},
            "host_id": {"": "5f3c0d9e8b7a46b1a2c3d4e5f6a7b8c9"},
            "addresses": {"": []},
            "executable_path": {
                about: answer
                for about, answer in recording.machine().get("executable_path", {}).items()
                if about.split()[0] in executables and answer.startswith("/usr/")
            },
        }
        kept.write(Frame(MACHINE, time.time_ns(), payload=json.dumps(answers).encode()))


if __name__ == "__main__":
    main()
