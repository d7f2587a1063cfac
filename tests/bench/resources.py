"""What a process uses, as the kernel counts it: CPU time to the nanosecond, memory by kind, time in BPF programs."""

from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHED_CLOCK = 2
RUN_TIME = 0
MIB = 1 << 20
RING = "27"
"""BPF_MAP_TYPE_RINGBUF"""


def cpu_s(pid: int) -> float:
    """CPU seconds that all threads of *pid* have used, ended ones included (the clock that clock_getcpuclockid gives)."""
    return time.clock_gettime((~pid << 3) | SCHED_CLOCK)


class Memory(NamedTuple):
    """Bytes."""

    anonymous: int
    resident: int


def memory(pid: int) -> Memory:
    """What *pid* holds: *anonymous* is its own, *resident* counts shared libraries and mapped rings as well."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kilobytes = {name: int(size) for name, size in re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE)}
    return Memory(kilobytes["Anonymous"] * 1024, kilobytes["Rss"] * 1024)


class Runs(NamedTuple):
    """Of one BPF program."""

    nanoseconds: int
    runs: int
    kind: str

    def since(self, before: Runs | None) -> Runs:
        """What was added after *before*."""
        return (
            self if before is None else Runs(self.nanoseconds - before.nanoseconds, self.runs - before.runs, self.kind)
        )


@contextmanager
def bpf_stats() -> Iterator[None]:
    """The kernel counts the time of BPF programs while the block runs; this costs about 60 ns a run.

    By a file descriptor and not by the sysctl, which others may set and reset.
    """
    libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)
    fd = libbpf.bpf_enable_stats(RUN_TIME)
    if fd < 0:
        raise OSError(-fd, "the kernel does not count the time of BPF programs")
    try:
        yield
    finally:
        os.close(fd)


def _descriptors(pid: int) -> Iterator[str]:
    """What the kernel says of each open file of *pid*; one that is closed meanwhile is left out."""
    for file in Path(f"/proc/{pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):
            yield file.read_text()


def bpf_runs(pid: int) -> dict[str, Runs]:
    """The programs that *pid* holds, by name."""
    numbers = set()
    for text in _descriptors(pid):
        if match := re.search(r"^prog_id:\s*(\d+)", text, re.MULTILINE):
            numbers.add(int(match[1]))
    listed = json.loads(subprocess.run(["bpftool", "-j", "prog", "show"], capture_output=True, check=True).stdout)
    return {
        program.get("name", str(program["id"])): Runs(
            program.get("run_time_ns", 0), program.get("run_cnt", 0), program["type"]
        )
        for program in listed
        if program["id"] in numbers
    }


def ring_memory(pid: int) -> int:
    """Bytes of the rings that *pid* holds."""
    rings = {}
    for text in _descriptors(pid):
        fields = dict(re.findall(r"^(map_id|map_type|max_entries):\s*(\d+)$", text, re.MULTILINE))
        if fields.get("map_type") == RING:
            rings[fields["map_id"]] = int(fields["max_entries"])
    return sum(rings.values())


def bpf_memory(pid: int) -> int:
    """Bytes of all BPF maps that *pid* holds, rings included."""
    held = {}
    for text in _descriptors(pid):
        fields = dict(re.findall(r"^(map_id|memlock):\s*(\d+)$", text, re.MULTILINE))
        if fields.keys() == {"map_id", "memlock"}:  # a link of an iterator has a map_id as well
            held[fields["map_id"]] = int(fields["memlock"])
    return sum(held.values())
