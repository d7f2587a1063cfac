"""`make bench`: every figure that docs/performance.md states, as a Markdown table with the command that made it.

Run: python -m tests.bench [NAME...]; without names all of them, in about eleven minutes. Needs root.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from importlib import import_module
from typing import TYPE_CHECKING

from tests.bench.figure import Figure, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BENCHES = {
    "ring": "ring:figures",
    "signals": "signals:figures",
    "export": "bench_export:figures",
    "spool": "bench_spool:figures",
    "line": "line:figures",
    "tcp": "tcp_cost:figures",
    "kernel": "tcp_cost:kernel_figures",
    "latency": "tcp_cost:latency_figures",
    "syscalls": "syscalls:figures",
    "dns": "dns_cost:figures",
    "throttle": "throttle:figures",
    "start": "start:figures",
    "idle": "start:idle_figures",
    "memory": "tcp_cost:memory_figures",
    "kubernetes": "bench_kubernetes:figures",
    "rivals": "rivals:figures",
}


def figures_of(name: str) -> Callable[[], Iterator[Figure]]:
    """The benchmark *name*; imported only when it is wanted, as each needs other things."""
    module, function = BENCHES[name].split(":")
    found: Callable[[], Iterator[Figure]] = getattr(import_module(f"tests.bench.{module}"), function)
    return found


def run(names: list[str]) -> list[Figure]:
    """The figures of *names*, told as they come; a benchmark that cannot run says why and the others go on."""
    found = []
    for name in names:
        began = time.perf_counter()
        try:
            for figure in figures_of(name)():
                print(f"{name}: {figure.name}: {figure.measured} ({figure.note})", file=sys.stderr, flush=True)
                found.append(figure)
        except (RuntimeError, OSError, AttributeError, ImportError, KeyError) as error:
            found.append(Figure(name, "did not run", note=f"{type(error).__name__}: {str(error).splitlines()[-1:]}"))
            print(f"{name}: {error}", file=sys.stderr)
        print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return found


def main() -> None:
    names = sys.argv[1:] or list(BENCHES)
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        sys.exit(f"no such benchmark: {', '.join(unknown)}; there are: {', '.join(BENCHES)}")
    load = os.getloadavg()[0]
    found = run(names)
    print(
        f"`python -m tests.bench {' '.join(names)}` on Linux {platform.release()}, {os.cpu_count()} cores, load {load:.1f} before:\n"
    )
    print(table(found))


main()
