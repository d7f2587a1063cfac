"""What this machine offers, each asked once."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from otelbpf.kernel.libbpf import TestRun, libbpf

if TYPE_CHECKING:
    from collections.abc import Sequence

VMLINUX_BTF = Path("/sys/kernel/btf/vmlinux")
_INITIAL_PID_NAMESPACE = "pid:[4026531836]"
_TYPEDEF, _FUNCTION = 8, 12
WORKS_FROM = "6.1"
"""The oldest Linux that the tests run; 5.10 is known to be too old, and nothing in between was tried."""


class Mount(NamedTuple):
    """One line of mountinfo."""

    root: str
    path: Path
    kind: str
    options: frozenset[str]


def mounts(mountinfo: str) -> list[Mount]:
    """The mounts of a text in the form of /proc/self/mountinfo; later ones lie over earlier ones."""
    found = []
    for line in mountinfo.splitlines():
        before, separator, after = line.partition(" - ")
        fields, tail = before.split(), after.split()
        if separator and len(fields) > 4 and len(tail) > 2:
            found.append(
                Mount(_unescaped(fields[3]), Path(_unescaped(fields[4])), tail[0], frozenset(tail[2].split(",")))
            )
    return found


def _unescaped(path: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), path)


@functools.cache
def own_mounts() -> tuple[Mount, ...]:
    """The mounts that this process sees."""
    return tuple(mounts(Path("/proc/self/mountinfo").read_text()))


def find_mount(kind: str, option: str | None = None, among: Sequence[Mount] | None = None) -> Path | None:
    """Where a file system of *kind* (with *option*) is mounted; whole, where a part of it is mounted elsewhere."""
    found = [
        mount
        for mount in (own_mounts() if among is None else among)
        if mount.kind == kind and (option is None or option in mount.options)
    ]
    return min(found, key=lambda mount: mount.root != "/").path if found else None


def cgroup2_mount() -> Path | None:
    """Where the v2 hierarchy is: cgroup_skb programs attach to its root."""
    return find_mount("cgroup2")


def cgroup_v1_memory_mount() -> Path | None:
    """Where the v1 memory hierarchy is, which says which container on hybrid and v1 machines."""
    return find_mount("cgroup", "memory")


def tracefs_mount() -> Path | None:
    """Where tracepoints are described."""
    return find_mount("tracefs")


def btf() -> bool:
    """Whether the kernel describes its types, which CO-RE needs."""
    return VMLINUX_BTF.exists()


def kernel_release() -> str:
    """As in `uname -r`."""
    return platform.release()


@functools.cache
def tracepoint_arguments(name: str) -> int | None:
    """How many arguments the tracepoint *name* has (its hidden first one left out); None: no such tracepoint."""
    library = libbpf()
    types = library.btf__load_vmlinux_btf()
    if not types:
        return None
    try:
        found = library.btf__find_by_name_kind(types, f"btf_trace_{name}".encode(), _TYPEDEF)
        if found < 0:
            return None
        pointer = library.btf__type_by_id(types, found)[2]
        function = library.btf__type_by_id(types, pointer)[2]
        return int(library.btf__type_by_id(types, function)[1] & 0xFFFF) - 1
    finally:
        library.btf__free(types)


@functools.cache
def too_old() -> str:
    """One sentence if no probe can work here, whatever else there is; empty where some may.

    Told by what all of them need and Linux 5.11 was the first to have (3ca1032ab7ab), not by the version: makers of
    long-lived systems carry such things back.
    """
    library = libbpf()
    types = library.btf__load_vmlinux_btf()
    if not types:
        return ""
    try:
        found = library.btf__find_by_name_kind(types, b"bpf_get_current_task_btf", _FUNCTION)
    finally:
        library.btf__free(types)
    return f"Linux {kernel_release()} is too old: otelbpf works from Linux {WORKS_FROM} on" if found < 0 else ""


@functools.cache
def initial_pid() -> int:
    """This process's id in the initial pid namespace, which is the one that BPF programs see.

    In a container without hostPID nothing in /proc shows it, but a BPF program that runs for us does.
    """
    if str(Path("/proc/self/ns/pid").readlink()) == _INITIAL_PID_NAMESPACE:
        return os.getpid()
    return _pid_by_program() or os.getpid()


def _pid_by_program() -> int:
    # call bpf_get_current_pid_tgid; r0 >>= 32; exit
    program = bytes.fromhex("850000000e00000077000000200000009500000000000000")
    load_options = (ctypes.c_uint32 * 16)()  # bpf_prog_load_opts: sz, attempts, expected_attach_type, …
    ctypes.cast(load_options, ctypes.POINTER(ctypes.c_size_t))[0] = ctypes.sizeof(load_options)
    load_options[5] = 1 << 4  # prog_flags: BPF_F_SLEEPABLE, as a `syscall` program must be
    program_type_syscall = 31
    library = libbpf()
    fd = library.bpf_prog_load(program_type_syscall, b"own_pid", b"GPL", program, len(program) // 8, load_options)
    if fd < 0:
        return 0
    try:
        run = TestRun(size=ctypes.sizeof(TestRun))
        return int(run.retval) if library.bpf_prog_test_run_opts(fd, ctypes.byref(run)) == 0 else 0
    finally:
        os.close(fd)
