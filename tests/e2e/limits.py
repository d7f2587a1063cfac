"""A real memory limit for one process: a cgroup of its own, in whichever hierarchy has the memory controller."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from otelbpf.kernel import features

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class MemoryLimit:
    """A cgroup with a limit."""

    def __init__(self, directory: Path, *, v2: bool) -> None:
        self.directory = directory
        self._v2 = v2

    @property
    def inside(self) -> tuple[str, ...]:
        """The words that run the words behind them in it."""
        return ("sh", "-c", f'echo $$ > {self.directory}/cgroup.procs && exec "$@"', "sh")

    @property
    def kills(self) -> int:
        """Processes that the kernel has killed here for want of memory."""
        lines = (self.directory / ("memory.events" if self._v2 else "memory.oom_control")).read_text().splitlines()
        return int(dict(line.split() for line in lines)["oom_kill"])

    @property
    def peak_bytes(self) -> int:
        """The most that was charged, pages of files included."""
        return int((self.directory / ("memory.peak" if self._v2 else "memory.max_usage_in_bytes")).read_text())


@contextmanager
def memory_limit(name: str, limit_bytes: int) -> Iterator[MemoryLimit]:
    """A cgroup *name* of this test with *limit_bytes*; whoever is in it must have ended before the block does."""
    v1, v2 = features.cgroup_v1_memory_mount(), features.cgroup2_mount()
    if v1 is not None:
        directory, limit = v1 / name, "memory.limit_in_bytes"
    elif v2 is not None and "memory" in (v2 / "cgroup.subtree_control").read_text().split():
        directory, limit = v2 / name, "memory.max"
    else:
        pytest.skip("no memory controller in a cgroup hierarchy")
    directory.mkdir()
    try:
        (directory / limit).write_text(str(limit_bytes))
        yield MemoryLimit(directory, v2=v1 is None)
    finally:
        directory.rmdir()
