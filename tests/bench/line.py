"""The line alone, without a kernel: recorded connections replayed through prepare, enrich, signals and export."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tests.bench import running
from tests.bench.figure import Figure
from tests.bench.sink import sink
from tests.bench.tcp_cost import FIRST_PEER
from tests.e2e.agent import ROOT
from tests.load import tcp

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZES = (5_000, 105_000)
"""Connections recorded: the difference of the two costs leaves out the start."""
CPU = "import resource, sys, runpy; sys.argv[0] = 'otelbpf'\ntry: runpy.run_module('otelbpf', run_name='__main__')\nfinally: u = resource.getrusage(resource.RUSAGE_SELF); print('cpu', u.ru_utime + u.ru_stime, file=sys.stderr)"
USED = re.compile(r"^cpu ([\d.]+)$", re.MULTILINE)


def figures() -> Iterator[Figure]:
    """Cost per event of the whole line, metrics only and with log records, by replay of what a kernel sent."""
    with TemporaryDirectory(prefix="otelbpf-bench-") as directory:
        recordings = [record(Path(directory, str(size)), size) for size in SIZES]
        for title, goal, words in (
            ("decode + enrich + metrics, warm", "≤ 2 µs an event", off()),
            ("the same, log records encoded and sent", "", []),
        ):
            costs = [replay(path, words) for path in recordings]
            events = 2 * (SIZES[1] - SIZES[0])
            used, elapsed = (large - small for small, large in zip(*costs, strict=True))
            note = f"{events / 2 / elapsed:,.0f} connections/s by the clock" if elapsed > 0 else ""
            yield Figure(title, f"{used / events * 1e6:.2f} µs an event", goal, note)


def off() -> list[str]:
    """The words that turn log records off."""
    return [word for name in running.NO_LOGS for word in ("--set", f"logs.{name}=off")]


def record(path: Path, connections: int) -> Path:
    """A recording of so many connections, both ends."""
    with running.agent("--record", str(path), logs=False) as (agent, _):
        tcp.tcp_load(tcp.Plan(count=connections, threads=2, address=FIRST_PEER, peers=100, records=False))
        running.settle(agent)
    return path


def replay(path: Path, words: list[str]) -> tuple[float, float]:
    """CPU seconds and seconds of one replay to a sink."""
    with sink() as taker, TemporaryDirectory(prefix="otelbpf-bench-") as directory:
        file = Path(directory, "otelbpf.yaml")
        file.write_text(f"exporters: {{otlp_grpc: {{endpoint: '{taker.endpoint}'}}}}\n")
        command = [sys.executable, "-c", CPU, "replay", str(path), "-c", str(file), *words]
        began = time.perf_counter()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        elapsed = time.perf_counter() - began
    match = USED.search(done.stderr)
    if match is None:
        raise RuntimeError(f"the replay said: {done.stderr}")
    return float(match[1]), elapsed
