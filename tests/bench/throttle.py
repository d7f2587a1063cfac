"""The throttle: what it costs an event that is told, and one that is summed; what a flood does with and without it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from otelbpf.kernel.object import Object
from otelbpf.kernel.throttle import Throttle
from tests.bench import running
from tests.bench.figure import Figure
from tests.load import dns

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(__file__).with_suffix(".bpf.c")
INCLUDE = Path(__file__).parents[2] / "otelbpf" / "probes" / "include"
ROUNDS = 1_000_000
FLOOD = 400_000
ADDRESS = "127.0.0.53"
REPEATS = 7
PROGRAMS = ("time_nothing", "time_clock", "time_check", "time_check_and_sum")
HIGH, LOW = (10_000_000, 1_000_000), (1, 1)


def compiled(directory: Path) -> Path:
    """The programs that measure, as an object in *directory*."""
    found = sorted(Path("/usr/include").glob("*-linux-gnu/asm"))
    to = directory / "throttle.bpf.o"
    words = ["clang", "-g", "-O2", "-Wall", "-target", "bpf", f"-I{INCLUDE}", f"-I{found[0].parent}"]
    subprocess.run([*words, "-c", str(SOURCE), "-o", str(to)], check=True)
    return to


def figures() -> Iterator[Figure]:
    """Its cost, then floods of one cgroup that asks and answers: as fast as it can, and at a rate that all should bear."""
    yield from cost_figures()
    for title, rate in (("as fast as it goes", 0), ("50,000 lookups/s", 50_000)):
        for name, settings in (("default throttle", {}), ("no throttle", {"throttle": "off"})):
            yield flood(f"DNS flood of one cgroup, {title}, {name}", rate, settings)


def flood(title: str, rate: int, settings: dict[str, Any]) -> Figure:
    """What became of the events of FLOOD lookups, both ends of which are seen."""
    with running.agent(settings={"probes": {"dns_lookup": settings}}) as (agent, _):
        truth = dns.dns_load(dns.Plan(FLOOD, {"a": 1}, "mmsg", rate, 205, address=ADDRESS, port=53, records=False))
        running.settle(agent)
    row = agent.summary.events["dns_lookup"]
    reasons = ", ".join(f"{reason} {count}" for reason, count in row.reasons.items())
    told = f"{row.terms['lost']} of {row.terms['seen']} events lost, {row.terms['throttled']} summed"
    return Figure(title, told, "", f"{2 * truth.rate:.0f} events/s offered; {reasons}")


def cost_figures() -> Iterator[Figure]:
    """Nanoseconds an event, without those of the loop around it."""
    with TemporaryDirectory() as directory:
        path = compiled(Path(directory))
        with Object(path, constants={}, map_sizes={}, programs=PROGRAMS) as loaded:
            throttle = Throttle(loaded)

            def ns(program: str, limit: tuple[int, int]) -> float:
                throttle.limit(*limit)
                return median(_once(loaded, program) for _ in range(REPEATS))

            loop = ns("time_nothing", HIGH)
            clock = ns("time_clock", HIGH) - loop
            told, summed = ns("time_check", HIGH) - loop, ns("time_check_and_sum", LOW) - loop
            off = ns("time_check", (0, 0)) - loop
    yield Figure(
        "throttle, an event within the rate",
        f"{told:.0f} ns",
        "≤ 60 ns",
        f"{clock:.0f} ns of it the clock, which records need anyway; {off:.0f} ns while it is off",
    )
    yield Figure("throttle, an event beyond the rate", f"{summed:.0f} ns", "", "check and sum, no record")


def _once(loaded: Object, program: str) -> float:
    loaded.run(program)
    return int(loaded.bss("took_ns")) / ROUNDS
