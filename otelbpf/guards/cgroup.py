"""The cgroup of this process: which limits of memory and CPU time hold for it, and what is used of them.

Both hierarchies, v2 and v1, also side by side; a limit may stand at any level above our own. In a container the path in
/proc/self/cgroup is that of its cgroup namespace, which need not fit what is mounted; then the tree is searched for us.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from otelbpf.kernel.features import own_mounts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from otelbpf.kernel.features import Mount

CGROUP = Path("/proc/self/cgroup")
V1_UNLIMITED = 1 << 62
"""v1 writes the largest number of pages there is."""


@dataclass(frozen=True, slots=True)
class MemoryBound:
    """One limit of memory, in *directory*."""

    directory: Path
    limit_bytes: int
    v2: bool

    def used_bytes(self) -> int:
        """What counts against the limit and cannot be taken back by the kernel alone.

        Pages of files are left out: the kernel drops, or writes out, those before it kills anybody. Raises OSError when
        the cgroup is gone.
        """
        used = int((self.directory / ("memory.current" if self.v2 else "memory.usage_in_bytes")).read_text())
        stat = dict(line.split() for line in (self.directory / "memory.stat").read_text().splitlines())
        prefix = "" if self.v2 else "total_"
        return max(0, used - int(stat[f"{prefix}inactive_file"]) - int(stat[f"{prefix}active_file"]))


def memory_bounds(mounts: Sequence[Mount] | None = None, cgroup: Path = CGROUP) -> list[MemoryBound]:
    """The limits that hold for this process, from its own cgroup upwards; none when there is none."""
    found = []
    for directory, v2 in _directories("memory", own_mounts() if mounts is None else mounts, cgroup):
        limit = _number(directory / ("memory.max" if v2 else "memory.limit_in_bytes"))
        if limit is not None and limit < V1_UNLIMITED:
            found.append(MemoryBound(directory, limit, v2))
    return found


def cpu_quota(mounts: Sequence[Mount] | None = None, cgroup: Path = CGROUP) -> float | None:
    """The cores that this process may use, the least of all that its cgroups say; None: as many as there are."""
    quotas = []
    for directory, v2 in _directories("cpu", own_mounts() if mounts is None else mounts, cgroup):
        if v2:
            quota, _, period = _text(directory / "cpu.max").partition(" ")
        else:
            quota, period = _text(directory / "cpu.cfs_quota_us"), _text(directory / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period):
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def _directories(controller: str, mounts: Sequence[Mount], cgroup: Path) -> Iterator[tuple[Path, bool]]:
    """Our own cgroup in each hierarchy that may hold *controller*, and those above it, with whether it is v2."""
    for line in _text(cgroup).splitlines():
        number, controllers, path = line.split(":", 2)
        v2 = number == "0" and not controllers
        if not v2 and controller not in controllers.split(","):
            continue
        for mount in mounts:
            if mount.kind == ("cgroup2" if v2 else "cgroup") and (v2 or controller in mount.options):
                own = _own(mount, path)
                if own is not None:
                    above = [own, *own.parents]
                    yield from ((one, v2) for one in above[: above.index(mount.path) + 1])
                    break


def _own(mount: Mount, path: str) -> Path | None:
    """Where *path* of /proc/self/cgroup is below *mount*; what is mounted may be a part of the tree, or more of it."""
    if ".." not in mount.root:
        below = os.path.relpath(path, mount.root)
        directory = mount.path if below.startswith("..") else mount.path / below
        if _holds_us(directory):
            return directory
    return next((Path(directory) for directory, _, _ in os.walk(mount.path) if _holds_us(Path(directory))), None)


def _holds_us(directory: Path) -> bool:
    return str(os.getpid()) in _text(directory / "cgroup.procs").split()


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    """What stands in the file; nothing when it cannot be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
