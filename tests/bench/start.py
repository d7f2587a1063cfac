"""Start and rest: imports, time to attached, CPU when nothing happens."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from tests.bench import running
from tests.bench.figure import Figure
from tests.bench.resources import cpu_s
from tests.e2e.agent import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

IMPORT = "import time; began = time.perf_counter(); import otelbpf.agent; print(time.perf_counter() - began)"
TIMES = 5
IDLE_S = 60.0
"""Four intervals of the metrics, which are the most of it: of 20 s it could be one or two."""
MILLISECONDS = re.compile(r"([\d.]+) ?ms")


def figures() -> Iterator[Figure]:
    """The best of some starts: others use this machine too."""
    imports, attached, ready = [], [], []
    for _ in range(TIMES):
        done = subprocess.run([sys.executable, "-c", IMPORT], cwd=ROOT, capture_output=True, text=True, check=True)
        imports.append(float(done.stdout))
        began = time.perf_counter()
        with running.agent() as (agent, _):
            ready.append(time.perf_counter() - began)
            line = next(line for line in agent.lines if line.startswith("ready"))
            attached += [float(found) / 1000 for found in MILLISECONDS.findall(line)[-1:]]
            running.settle(agent)
    yield Figure("imports", f"{min(imports):.2f} s", "≤ 0.5 s")
    if attached:
        note = f"as the ready line says; process start to ready, with a sink to start: {min(ready):.2f} s"
        yield Figure("start to all probes attached, after imports", f"{min(attached):.2f} s", "≤ 0.5 s", note)


def idle_figures() -> Iterator[Figure]:
    """CPU over some seconds in which the benchmarks do nothing."""
    with running.agent() as (agent, _):
        time.sleep(2)
        before = cpu_s(agent.pid)
        time.sleep(IDLE_S)
        used = cpu_s(agent.pid) - before
        running.settle(agent)
        seen = sum(row.terms["seen"] for row in agent.summary.events.values())
    note = f"over {IDLE_S:.0f} s; {seen} events of others on this machine"
    yield Figure("idle CPU", f"{used / IDLE_S:.2%} of a core", "≤ 0.5 %", note)
