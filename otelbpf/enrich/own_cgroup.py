"""Where this process is in the tree of cgroups: a cgroup namespace of its own makes /proc tell paths from there.

A container runtime gives each container such a namespace. Of a process outside of it /proc says `/../../kubepods/…`,
while the host's tree is mounted whole: what lies above must be found before the path means anything.
"""

from __future__ import annotations

import os
from posixpath import normpath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

ABOVE = "/.."


def namespace_root(mount: Path, own_path: str, paths: Iterable[str], pid: int | None = None) -> str:
    """The path in *mount* of the root of our cgroup namespace; empty, which is that of the whole tree, where it has none
    or it cannot be found.

    *own_path* is what /proc says of ourselves, *paths* are all cgroups in *mount*.
    """
    us = str(os.getpid() if pid is None else pid)
    if own_path.startswith(ABOVE) or _holds(mount, own_path, us):
        return ""
    for path in paths:
        if path.endswith(own_path.rstrip("/")) and _holds(mount, path, us):
            return path.removesuffix(own_path.rstrip("/")).rstrip("/")
    return ""


def seen_from_the_top(root: str, path: str) -> str:
    """What /proc says of a process, as a path from the top of the tree."""
    return normpath(root + path)


def _holds(mount: Path, path: str, pid: str) -> bool:
    try:
        return pid in (mount / path.lstrip("/") / "cgroup.procs").read_text().split()
    except OSError:
        return False
