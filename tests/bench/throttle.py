"""The throttle: what it costs an event that is told, and one that is summed."""

from __future__ import annotations

import subprocess
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from otelbpf.kernel.object import Object
from otelbpf.kernel.throttle import Throttle
from tests.bench.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(__file__).with_suffix(".bpf.c")
INCLUDE = Path(__file__).parents[2] / "otelbpf" / "probes" / "include"
ROUNDS = 1_000_000
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
