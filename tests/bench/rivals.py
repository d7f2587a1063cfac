"""tcplife of libbpf-tools and of bcc beside the agent, on the same load in the same run."""

from __future__ import annotations

import shutil
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tests.bench import running
from tests.bench.figure import Figure
from tests.bench.resources import Runs, bpf_runs, bpf_stats, cpu_s
from tests.bench.tcp_cost import FIRST_PEER, tail
from tests.load import tcp

if TYPE_CHECKING:
    from collections.abc import Iterator

PLAN = tcp.Plan(count=50_000, threads=2, address=FIRST_PEER, peers=50_000, records=False)
START_S = 3.0
PROGRAMS = ("tcplife", "tcplife-bpfcc")
PATH = "/usr/sbin:/usr/bin:/sbin"


@dataclass
class Cost:
    """What watching one load took."""

    cpu_s: float
    bpf_ns: float
    p50_ns: int
    rate: float
    told: int
    """Ends of connections that were told of, of 2 for each."""

    def text(self) -> str:
        per_million = self.cpu_s / PLAN.count * 1e6
        missing = 2 * PLAN.count - self.told
        return f"{per_million:.1f} s per million, {self.bpf_ns:.0f} ns of eBPF each, {missing} of {2 * PLAN.count} ends missing"


def bpf_ns(before: dict[str, Runs], after: dict[str, Runs]) -> float:
    """Nanoseconds of all programs but the packet filters, per connection."""
    spent = [runs.since(before.get(name)).nanoseconds for name, runs in after.items() if runs.kind != "cgroup_skb"]
    return sum(spent) / PLAN.count


@contextmanager
def rival(path: str, output: Path) -> Iterator[subprocess.Popen[bytes] | None]:
    """A rival that watches and writes to a file; None when it does not start here."""
    with output.open("wb") as file:
        process = subprocess.Popen([path], stdout=file, stderr=subprocess.DEVNULL)
        try:
            time.sleep(START_S)
            yield process if process.poll() is None else None
        finally:
            process.terminate()
            process.wait()


def cost_of(process: subprocess.Popen[bytes], output: Path) -> Cost:
    """What *process* needs for the load."""
    before, cpu = bpf_runs(process.pid), cpu_s(process.pid)
    truth = tcp.tcp_load(PLAN)
    time.sleep(1)
    used, after = cpu_s(process.pid) - cpu, bpf_runs(process.pid)
    process.send_signal(2)  # SIGINT: it writes what it still holds
    process.wait()
    lines = sum(b" 127.16." in line for line in output.read_bytes().splitlines())
    return Cost(used, bpf_ns(before, after), truth.client["p50_ns"], truth.rate, lines)


def cost_of_agent() -> Cost:
    """What the agent needs for the load, log records and metrics sent."""
    with running.agent() as (agent, _):
        before, cpu = bpf_runs(agent.pid), cpu_s(agent.pid)
        truth = tcp.tcp_load(PLAN)
        after = bpf_runs(agent.pid)
        used = tail(agent, cpu)
    told = agent.summary.records["otlp_grpc", "logs"].terms["accepted"]
    return Cost(used, bpf_ns(before, after), truth.client["p50_ns"], truth.rate, min(told, 2 * PLAN.count))


def figures() -> Iterator[Figure]:
    """The agent, then every rival that is installed and starts."""
    with bpf_stats(), TemporaryDirectory(prefix="otelbpf-bench-") as directory:
        none = tcp.tcp_load(PLAN)
        ours = cost_of_agent()
        yield Figure("beside rivals: otelbpf, OTLP logs + metrics", ours.text(), "", latency(ours, none))
        for name in PROGRAMS:
            path = shutil.which(name, path=PATH)
            if path is None:
                yield Figure(f"beside rivals: {name}", "not installed")
                continue
            output = Path(directory, name)
            with rival(path, output) as process:
                if process is None:
                    yield Figure(f"beside rivals: {name}", "does not start here")
                    continue
                theirs = cost_of(process, output)
            ratios = f"; CPU {ours.cpu_s / theirs.cpu_s:.2f} x, eBPF {ours.bpf_ns / (theirs.bpf_ns or 1):.2f} x (ours / theirs)"
            yield Figure(f"beside rivals: {name}, nothing exported", theirs.text(), "", latency(theirs, none) + ratios)


def latency(cost: Cost, none: tcp.TcpTruth) -> str:
    return f"{cost.rate:.0f}/s; p50 {cost.p50_ns / none.client['p50_ns']:.2f} x of none"
