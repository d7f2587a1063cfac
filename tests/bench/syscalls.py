"""What every system call of every program pays: the kernel traces all of them while a program waits for one kind."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from otelbpf.config import Config
from otelbpf.kernel.attach import attach
from otelbpf.probes.tcp_connection import PROBE
from tests.bench.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otelbpf.probes.probe import Probe

TRACES = "connect_returned"
ROUNDS, CALLS, TURNS = 100, 10_000, 4


def figures() -> Iterator[Figure]:
    """getppid(2) from Python, with the probe and without its program that needs the trace; the least of many rounds."""
    (way,) = PROBE.ways
    optional = tuple(name for name in way.optional if name != TRACES)
    without = replace(PROBE, ways=(replace(way, optional=optional),))
    turns = [(ns_a_call(PROBE), ns_a_call(without)) for _ in range(TURNS)]
    traced_ns, ns = (min(times) for times in zip(*turns, strict=True))
    note = f"getppid() from Python: {ns:.0f} ns without {TRACES}, {traced_ns:.0f} with it"
    yield Figure("a system call of any program, more by", f"{traced_ns - ns:.0f} ns", "", note)


def ns_a_call(probe: Probe) -> float:
    with attach(probe, Config()):
        return min(_round() for _ in range(ROUNDS))


def _round() -> float:
    call, began = os.getppid, time.perf_counter_ns()
    for _ in range(CALLS):
        call()
    return (time.perf_counter_ns() - began) / CALLS
