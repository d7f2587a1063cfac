"""Everything that enrichment reads from this machine, so that a recording can keep the answers and a replay give them.

`Machine` asks the machine, `Recorder` asks it and writes the answers down, `RecordedMachine` answers from them.
None means: the machine does not know (any more).
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from otelbpf.enrich.interfaces import interface_addresses
from otelbpf.enrich.own_cgroup import namespace_root, seen_from_the_top
from otelbpf.enrich.runtime import Named, container_named
from otelbpf.kernel import features

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

T = TypeVar("T")

CGROUP_V1 = 1 << 63
"""Marks an id of the v1 memory hierarchy, as in the head of an event."""
ADDRESSES_FOR_S = 5.0
INODE_BITS = (1 << 40) - 1
DELETED = " (deleted)"
START_TIME_FIELD = 19
"""Of /proc/PID/stat, counted from behind the name."""


class Answers(Protocol):
    """What can be asked."""

    def executable_path(self, executable: int, pid: int) -> str | None:
        """The path of what *pid* runs, if that still is *executable* (its id in the head of an event)."""

    def first_executable(self, cgroup_id: int, pid: int) -> str | None:
        """The path of what the oldest process runs in the cgroup of *pid*, or in the one with that id."""

    def cgroup_walk(self) -> list[tuple[int, str]]:
        """Every cgroup: its id and its path from the root of its hierarchy."""

    def cgroup_path(self, cgroup_id: int, pid: int) -> str | None:
        """The path of the cgroup with that id, if *pid* still is in it."""

    def container_named(self, container_id: str) -> Named | None:
        """What the container runtime calls it."""

    def addresses(self) -> frozenset[bytes]:
        """The node's own addresses, 16 bytes each; not older than some seconds."""

    def host_name(self) -> str | None:
        """As in `hostname`."""

    def host_id(self) -> str | None:
        """What the machine keeps over a restart."""


class Machine:
    """Asks the machine. *proc*, *root* and the mounts can be those of a recorded tree."""

    def __init__(
        self,
        proc: Path = Path("/proc"),
        root: Path = Path("/"),
        cgroup2: Path | None = None,
        cgroup_v1_memory: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._proc = proc
        self._root = root
        self._cgroup2 = cgroup2
        self._cgroup_v1_memory = cgroup_v1_memory
        self._clock = clock
        self._addresses: frozenset[bytes] = frozenset()
        self._addresses_until = -1.0
        self._namespace_roots: dict[Path, str] = {}
        """Mount → where the root of our cgroup namespace is in it."""

    def executable_path(self, executable: int, pid: int) -> str | None:
        link = self._proc / str(pid) / "exe"
        try:
            path, inode = str(link.readlink()), link.stat().st_ino
        except OSError:  # gone, or a kernel thread
            return None
        if (inode ^ executable) & INODE_BITS:  # it runs something else by now, or the pid was given again
            return None
        return path.removesuffix(DELETED)

    def first_executable(self, cgroup_id: int, pid: int) -> str | None:
        path = self.cgroup_path(cgroup_id, pid)
        mount = self._hierarchy(cgroup_id)
        if path is None or mount is None:
            return None
        try:
            pids = (mount / path.lstrip("/") / "cgroup.procs").read_text().split()
            oldest = min(pids, key=self._start_time)
            return str((self._proc / oldest / "exe").readlink()).removesuffix(DELETED)
        except (OSError, ValueError):
            return None

    def cgroup_walk(self) -> list[tuple[int, str]]:
        found = []
        for mount, mark in ((self._v2(), 0), (self._v1_memory(), CGROUP_V1)):
            if mount is not None:
                there = list(_directories(mount))
                found += [(inode | mark, path) for inode, path in there]
                own_path = self._told_path("self", mark) or "/"
                self._namespace_roots[mount] = namespace_root(mount, own_path, (path for _, path in there))
        return found

    def cgroup_path(self, cgroup_id: int, pid: int) -> str | None:
        mount, told = self._hierarchy(cgroup_id), self._told_path(str(pid), cgroup_id)
        if mount is None or told is None:
            return None
        path = seen_from_the_top(self._namespace_roots.get(mount, ""), told)
        try:
            same = (mount / path.lstrip("/")).stat().st_ino == cgroup_id & ~CGROUP_V1
        except (OSError, ValueError):
            return None
        return path if same else None

    def container_named(self, container_id: str) -> Named | None:
        return container_named(self._root, container_id)

    def addresses(self) -> frozenset[bytes]:
        if self._clock() >= self._addresses_until:
            self._addresses = interface_addresses()
            self._addresses_until = self._clock() + ADDRESSES_FOR_S
        return self._addresses

    def host_name(self) -> str | None:
        return _line(self._proc / "sys/kernel/hostname")

    def host_id(self) -> str | None:
        return _line(self._root / "etc/machine-id") or _line(self._root / "sys/class/dmi/id/product_uuid")

    def _told_path(self, pid: str, cgroup_id: int) -> str | None:
        """What /proc says where *pid* is, in the hierarchy of that id."""
        controller = "memory" if cgroup_id & CGROUP_V1 else ""
        try:
            for line in (self._proc / pid / "cgroup").read_text().splitlines():
                _, controllers, path = line.split(":", 2)
                if controller in controllers.split(","):
                    return path
        except (OSError, ValueError):
            return None
        return None

    def _v2(self) -> Path | None:
        return self._cgroup2 or features.cgroup2_mount()

    def _v1_memory(self) -> Path | None:
        return self._cgroup_v1_memory or features.cgroup_v1_memory_mount()

    def _hierarchy(self, cgroup_id: int) -> Path | None:
        return self._v1_memory() if cgroup_id & CGROUP_V1 else self._v2()

    def _start_time(self, pid: str) -> int:
        stat = (self._proc / pid / "stat").read_text()
        return int(stat.rpartition(")")[2].split()[START_TIME_FIELD])


def _directories(mount: Path) -> Iterator[tuple[int, str]]:
    """All directories of a cgroup tree by inode, which is the cgroup's id; those that vanish meanwhile left out."""
    if not mount.is_dir():  # listed, but hidden by another mount
        return
    waiting = [""]
    yield mount.stat().st_ino, "/"
    while waiting:
        path = waiting.pop()
        try:
            with os.scandir(f"{mount}{path}") as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(f"{path}/{entry.name}")
                        yield entry.inode(), waiting[-1]
        except OSError:
            continue


def _line(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except OSError:
        return None


class Recorder:
    """Asks another machine and keeps in *answers* what it said, as JSON can hold it: question → about what → answer."""

    def __init__(self, machine: Answers, answers: dict[str, dict[str, Any]]) -> None:
        self._machine = machine
        self._answers = answers

    def executable_path(self, executable: int, pid: int) -> str | None:
        return self._kept("executable_path", (executable, pid), self._machine.executable_path(executable, pid))

    def first_executable(self, cgroup_id: int, pid: int) -> str | None:
        return self._kept("first_executable", (cgroup_id, pid), self._machine.first_executable(cgroup_id, pid))

    def cgroup_walk(self) -> list[tuple[int, str]]:
        return self._kept("cgroup_walk", (), self._machine.cgroup_walk())

    def cgroup_path(self, cgroup_id: int, pid: int) -> str | None:
        return self._kept("cgroup_path", (cgroup_id, pid), self._machine.cgroup_path(cgroup_id, pid))

    def container_named(self, container_id: str) -> Named | None:
        return self._kept("container_named", (container_id,), self._machine.container_named(container_id))

    def addresses(self) -> frozenset[bytes]:
        addresses = self._machine.addresses()
        self._kept("addresses", (), sorted(address.hex() for address in addresses))
        return addresses

    def host_name(self) -> str | None:
        return self._kept("host_name", (), self._machine.host_name())

    def host_id(self) -> str | None:
        return self._kept("host_id", (), self._machine.host_id())

    def _kept(self, question: str, about: tuple[int | str, ...], answer: T) -> T:
        if answer is not None:
            self._answers.setdefault(question, {})[_key(about)] = answer
        return answer


class RecordedMachine:
    """Answers as another machine did; what was not asked there is not known here."""

    def __init__(self, answers: Mapping[str, Mapping[str, Any]]) -> None:
        self._answers = answers

    def executable_path(self, executable: int, pid: int) -> str | None:
        return self._text("executable_path", executable, pid)

    def first_executable(self, cgroup_id: int, pid: int) -> str | None:
        return self._text("first_executable", cgroup_id, pid)

    def cgroup_walk(self) -> list[tuple[int, str]]:
        return [(cgroup_id, path) for cgroup_id, path in self._answer("cgroup_walk") or ()]

    def cgroup_path(self, cgroup_id: int, pid: int) -> str | None:
        return self._text("cgroup_path", cgroup_id, pid)

    def container_named(self, container_id: str) -> Named | None:
        named = self._answer("container_named", container_id)
        return None if named is None else Named(*named)

    def addresses(self) -> frozenset[bytes]:
        return frozenset(bytes.fromhex(address) for address in self._answer("addresses") or ())

    def host_name(self) -> str | None:
        return self._text("host_name")

    def host_id(self) -> str | None:
        return self._text("host_id")

    def _text(self, question: str, *about: int | str) -> str | None:
        answer = self._answer(question, *about)
        return None if answer is None else str(answer)

    def _answer(self, question: str, *about: int | str) -> Any:
        return self._answers.get(question, {}).get(_key(about))


def _key(about: tuple[int | str, ...]) -> str:
    return " ".join(str(part) for part in about)
