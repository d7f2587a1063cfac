"""Kubernetes: names for pods, their workloads and services, at both ends of what is seen.

`watcher` keeps `tables` as the API server has them, in one thread; `cluster` is all that enrichment may ask.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from otelbpf.enrich.kubernetes.access import there_is_one
from otelbpf.enrich.kubernetes.watcher import Watcher

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from otelbpf.config import Kubernetes

__all__ = ["HOW_TO_ALLOW", "examine", "watching"]

HOW_TO_ALLOW = (
    "check kubernetes.* in the configuration and the agent's ClusterRole: get, list and watch of pods, services, nodes "
    "and endpointslices (deploy/kubernetes)"
)


def examine(settings: Kubernetes, environ: Mapping[str, str], host_name: str) -> Iterator[tuple[str, bool, str]]:
    """For `check`: each kind of object that would be watched, whether it is refused, and what the server said."""
    if not there_is_one(settings, environ):
        return
    watcher = Watcher(settings, environ, host_name)
    yield from watcher.examine()


def watching(
    settings: Kubernetes, environ: Mapping[str, str], host_name: str | None
) -> AbstractContextManager[Watcher | None]:
    """A watcher of the cluster, or None where there is no cluster or it is not wanted."""
    return Watcher(settings, environ, host_name) if there_is_one(settings, environ) else nullcontext()
