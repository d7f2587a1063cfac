"""Who a process is, as the head of its events says it; read from /proc."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from otelbpf.kernel.features import cgroup2_mount, cgroup_v1_memory_mount

CGROUP_V1 = 1 << 63


def head(pid: int | None = None) -> dict[str, Any]:
    """The members of `event_head` but the time."""
    process = Path("/proc") / str(pid or os.getpid())
    status = (process / "exe").stat()
    device = os.major(status.st_dev) << 20 | os.minor(status.st_dev)
    return {
        "cgroup_id": cgroup_id(process),
        "executable": (device << 40 ^ status.st_ino) & (1 << 64) - 1,
        "pid": pid or os.getpid(),
        "netns": (process / "ns" / "net").stat().st_ino,
        "comm": (process / "comm").read_bytes().strip(),
    }


def cgroup_id(process: Path) -> int:
    """v2 below the root, else v1 memory where that is mounted."""
    lines = [line.split(":", 2) for line in (process / "cgroup").read_text().splitlines()]
    v2 = next(path for _, controllers, path in lines if not controllers)
    memory = next((path for _, controllers, path in lines if "memory" in controllers.split(",")), None)
    v1_mount = cgroup_v1_memory_mount()
    if v2 == "/" and memory is not None and v1_mount is not None:
        return (v1_mount / memory.lstrip("/")).stat().st_ino | CGROUP_V1
    mount = cgroup2_mount()
    assert mount is not None
    return (mount / v2.lstrip("/")).stat().st_ino
