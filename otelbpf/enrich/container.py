"""A cgroup's path → the container, pod or systemd unit that it belongs to, and the cache of cgroup id → path.

The forms (systemd and cgroupfs drivers of containerd, CRI-O, Docker and Podman) are the table in
`tests/unit/enrich/test_container.py`. What a path does not say is unknown, never guessed.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, NamedTuple

from cachetools import TTLCache

from otelbpf.enrich.caches import Memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelbpf.batch import Batch
    from otelbpf.enrich.caches import Counters
    from otelbpf.enrich.machine import Answers

CGROUPS = 65_536
REMOVED_CGROUPS = 16_384
REMOVED_FOR_S = 300.0
"""Events of a container that is gone still arrive: its last connections time out for minutes."""
UNKNOWN_FOR_S = 10.0
MKDIR, RMDIR, RENAME = 1, 2, 3

RUNTIMES = {
    "cri-containerd": "containerd",
    "nerdctl": "containerd",
    "crio": "cri-o",
    "docker": "docker",
    "libpod": "podman",
    "libpod-payload": "podman",
}
CONTAINER = re.compile(r"(?:(?P<runtime>[a-z][a-z-]*)-)?(?P<id>[0-9a-f]{64})(?:\.scope)?")
COLON_FORM = re.compile(r"[^:]+:(?P<runtime>[a-z-]+):(?P<id>[0-9a-f]{64})")
"""What containerd makes of a systemd path when it was told to use the cgroupfs driver."""
POD = re.compile(r"(?:.*-)?pod(?P<uid>[0-9a-f]{8}[-_][0-9a-f_-]{27}|[0-9a-f]{32})(?:\.slice)?(?::.*)?")
"""The systemd driver writes the dashes of a UID as underscores; a static pod's UID is a hash without any."""
UNIT = re.compile(r".+\.(?:service|scope)")
FOLDED = re.compile(
    r"(?:session-|run-|app-|vte-spawn-|libpod-conmon-|crio-conmon-).*\.scope|run-[ur][0-9a-f]+\.service"
)
"""Names with a counter, a pid or a random part: a resource for each would be one for every login."""
CONNECTION_INSTANCE = re.compile(r"(?P<template>[^@]+@)\d+-.*\.service")
"""One instance a connection (Accept=yes): sshd@3-10.0.0.1:22-10.0.0.2:51234.service is sshd@.service."""


class Container(NamedTuple):
    """Whose cgroup it is; an empty string is what the path does not say."""

    container_id: str = ""
    runtime: str = ""
    pod_uid: str = ""
    unit: str = ""

    @property
    def owns(self) -> bool:
        """Whether what runs in it is known by it, not by its executable."""
        return bool(self.container_id or self.pod_uid or self.unit)


NOBODY = Container()


def container_of(path: str) -> Container:
    """Whose the cgroup *path* is. The innermost container wins: a node of kind is a container with containers in it."""
    parts = path.split("/")
    for depth in range(len(parts) - 1, -1, -1):
        found = _container(parts, depth)
        if found is not None:
            return found
    return Container(pod_uid=_pod_uid(parts), unit=_unit(parts))


def _container(parts: list[str], depth: int) -> Container | None:
    part = parts[depth]
    match = COLON_FORM.fullmatch(part) or CONTAINER.fullmatch(part)
    if match is None:
        return None
    prefix = match["runtime"]
    if prefix is None:  # a cgroupfs driver: docker names the parent, a kubelet does not say who runs it
        runtime = "docker" if depth and parts[depth - 1] == "docker" else ""
    elif prefix in RUNTIMES:
        runtime = RUNTIMES[prefix]
    else:  # a monitor of a container (crio-conmon-…), not the container
        return None
    return Container(match["id"], runtime, _pod_uid(parts[: depth + 1]))


def _pod_uid(parts: list[str]) -> str:
    if not any("kubepods" in part for part in parts):
        return ""
    for part in reversed(parts):
        match = POD.fullmatch(part)
        if match is not None:
            return match["uid"].replace("_", "-")
    return ""


def _unit(parts: list[str]) -> str:
    for part in reversed(parts):
        if FOLDED.fullmatch(part):
            return ""
        if UNIT.fullmatch(part):
            return CONNECTION_INSTANCE.sub(r"\g<template>.service", part)
    return ""


class Cgroups:
    """cgroup id → whose it is: told by the kernel while it happens, walked at start, asked of /proc as the last way."""

    def __init__(self, machine: Answers, clock: Callable[[], float] = time.monotonic) -> None:
        self._machine = machine
        self._living: Memory[int, Container] = Memory(CGROUPS)
        self._removed: TTLCache[int, Container] = TTLCache(REMOVED_CGROUPS, REMOVED_FOR_S, timer=clock)
        self._unknown: TTLCache[int, Container] = TTLCache(REMOVED_CGROUPS, UNKNOWN_FOR_S, timer=clock)

    def walk(self) -> None:
        """Learns every cgroup there is. Call it after the kernel has begun to tell, so that none falls in between."""
        for cgroup_id, path in self._machine.cgroup_walk():
            self._living[cgroup_id] = container_of(path)

    def learn(self, batch: Batch) -> None:
        """Takes in what the probe `cgroup` saw."""
        rows = batch.rows
        for cgroup_id, kind, path in zip(
            rows["cgroup_id"].tolist(), rows["kind"].tolist(), rows["path"].tolist(), strict=True
        ):
            whose = container_of(path.decode(errors="replace"))
            if kind == RMDIR:
                self._living.pop(cgroup_id, None)
                self._removed[cgroup_id] = whose
            else:
                self._living[cgroup_id] = whose
                self._unknown.pop(cgroup_id, None)

    def of(self, cgroup_id: int, pid: int) -> Container:
        """Whose the cgroup is in which process *pid* is or was."""
        known = self._living.recall(cgroup_id) or self._removed.get(cgroup_id) or self._unknown.get(cgroup_id)
        return known if known is not None else self._ask(cgroup_id, pid)

    def counters(self) -> Counters:
        return self._living.counters()

    def _ask(self, cgroup_id: int, pid: int) -> Container:
        path = self._machine.cgroup_path(cgroup_id, pid)
        if path is None:
            self._unknown[cgroup_id] = NOBODY
            return NOBODY
        self._living[cgroup_id] = container_of(path)
        return self._living[cgroup_id]
