"""The limits of descriptors, memory and threads: checked before anything is opened.

Where one of them runs out, whatever comes next fails, in any library: gRPC aborts the process, an import raises. So a
limit that is too low is reported at the start, in one sentence; what runs out later is counted by whoever misses it.
"""

from __future__ import annotations

import os
import resource
import threading

from otelbpf.errors import CannotRun
from otelbpf.guards.cgroup import memory_bounds

DESCRIPTORS = 256
"""Measured: 115 with every probe and one exporter by gRPC; each further one, each reload and each watch takes more."""
ADDRESS_SPACE_BYTES = 1 << 30
"""Measured: 0.4 GB, most of it stacks of threads that are never touched."""
MEMORY_BYTES = 64 << 20
"""Measured: with 64 MiB some probes are missing, and that is said; with 48 the kernel kills the agent as it starts."""
_BY_GRPC_AT_MOST = 16
"""It takes a thread a core, up to so many."""
_OWN_THREADS = 16

_NEEDED = (
    (resource.RLIMIT_NOFILE, "open files", DESCRIPTORS, "ulimit -n, LimitNOFILE= of its unit"),
    (resource.RLIMIT_AS, "bytes of address space", ADDRESS_SPACE_BYTES, "ulimit -v, LimitAS= of its unit"),
)


def refuse_too_little() -> None:
    """Takes what the hard limits allow; raises CannotRun with one sentence when that is too little to run at all."""
    for kind, what, needed, where in _NEEDED:
        _raise_to(kind, needed)
        have, _ = resource.getrlimit(kind)
        if have != resource.RLIM_INFINITY and have < needed:
            raise CannotRun(f"may have {have} {what} and needs {needed}; raise the limit ({where})")
    _refuse_small_cgroup()
    needed = threads_needed()
    have = threads_to_be_had(needed)
    if have < needed:
        raise CannotRun(
            f"may start {have} threads and needs {needed}; raise the limit (pids.max of its cgroup, TasksMax= of its "
            "unit, ulimit -u)"
        )


def _refuse_small_cgroup() -> None:
    """Where the kernel would kill us with no word said; whatever `memory_limit` says."""
    have = min((bound.limit_bytes for bound in memory_bounds()), default=MEMORY_BYTES)
    if have < MEMORY_BYTES:
        raise CannotRun(
            f"its cgroup may use {have >> 20} MiB of memory and it needs {MEMORY_BYTES >> 20} MiB; raise the limit "
            "(memory.max of its cgroup, MemoryMax= of its unit, resources.limits.memory of its pod)"
        )


def threads_needed() -> int:
    """For all stages, with gRPC's own."""
    return _OWN_THREADS + min(_BY_GRPC_AT_MOST, os.cpu_count() or 1)


def threads_to_be_had(most: int) -> int:
    """How many of *most* threads can be started at once. Tried, as no file says it: limits of cgroups and users add up."""
    done = threading.Event()
    threads: list[threading.Thread] = []
    try:
        for _ in range(most):
            thread = threading.Thread(target=done.wait, daemon=True)
            thread.start()
            threads.append(thread)
    except (RuntimeError, MemoryError):  # the interpreter's words for EAGAIN
        pass
    finally:
        done.set()
    for thread in threads:
        thread.join()
    return len(threads)


def _raise_to(kind: int, needed: int) -> None:
    soft, hard = resource.getrlimit(kind)
    if soft != resource.RLIM_INFINITY and soft < needed:
        more = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
        resource.setrlimit(kind, (more, hard))
