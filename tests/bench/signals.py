"""Log records and metrics, by the benchmark that stands beside their tests; its lines are the figures."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from tests.bench.figure import Figure
from tests.e2e.agent import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator


def figures() -> Iterator[Figure]:
    """One figure a line of `python -m tests.bench.bench_signals`: what it is, then numbers."""
    command = [sys.executable, "-m", "tests.bench.bench_signals"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for line in done.stdout.splitlines():
        title, _, numbers = line.strip().partition("  ")
        if title:
            yield Figure(title.rstrip(":"), numbers.strip())
