"""Kubernetes: names for pods, their workloads and services, at both ends of what is seen.

`watcher` keeps `tables` as the API server has them, in one thread; `cluster` is all that enrichment may ask. The watcher
is imported where there is a cluster: what it needs of HTTP takes 5 MB, and most of the time of this package's import.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from otelbpf.enrich.kubernetes.presence import there_is_one

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from otelbpf.config import Kubernetes
    from otelbpf.enrich.kubernetes.watcher import Watcher, WatchState

__all__ = ["HOW_TO_ALLOW", "HOW_TO_TRACK", "examine", "read_told", "told", "untracked", "watching"]

HOW_TO_ALLOW = (
    "check kubernetes.* in the configuration and the agent's ClusterRole: it lists and watches pods, nodes, services "
    "and endpointslices, and gets pods and nodes (deploy/kubernetes)"
)
HOW_TO_TRACK = (
    "give CAP_NET_ADMIN, hostPID and hostNetwork (deploy/kubernetes); the kernel needs nf_conntrack_netlink, and "
    "net.netfilter.nf_conntrack_events other than 0"
)


def untracked() -> str:
    """Why the kernel does not tell of connections that it translates; empty when it does."""
    from otelbpf.enrich.kubernetes.conntrack import Conntrack

    with Conntrack(Path("/proc")) as conntrack:
        return conntrack.unavailable


def examine(settings: Kubernetes, environ: Mapping[str, str], host_name: str) -> Iterator[tuple[str, bool, str]]:
    """For `check`: each kind of object that would be watched, whether it is refused, and what the server said."""
    if not there_is_one(settings, environ):
        return
    from otelbpf.enrich.kubernetes.watcher import Watcher

    yield from Watcher(settings, environ, host_name).examine()


def watching(
    settings: Kubernetes, environ: Mapping[str, str], host_name: str | None
) -> AbstractContextManager[Watcher | None]:
    """A watcher of the cluster, or None where there is no cluster or it is not wanted."""
    if not there_is_one(settings, environ):
        return nullcontext()
    from otelbpf.enrich.kubernetes.watcher import Watcher

    return Watcher(settings, environ, host_name)


def told(watcher: Watcher | None) -> str:
    """How its watches fare, as JSON for another process; empty where there is none."""
    return "" if watcher is None else msgspec.json.encode(list(watcher.states())).decode()


def read_told(text: str) -> list[WatchState]:
    """What `told` gave; nothing for what is something else."""
    from otelbpf.enrich.kubernetes.watcher import WatchState

    try:
        return msgspec.json.decode(text, type=list[WatchState])
    except (msgspec.MsgspecError, UnicodeEncodeError):
        return []
