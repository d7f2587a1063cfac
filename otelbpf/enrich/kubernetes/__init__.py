"""Kubernetes: names for pods, their workloads and services, at both ends of what is seen.

`watcher` keeps `tables` as the API server has them, in one thread; `cluster` is all that enrichment may ask.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from otelbpf.enrich.kubernetes.api import there_is_one
from otelbpf.enrich.kubernetes.watcher import Watcher

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from otelbpf.config import Kubernetes

__all__ = ["watching"]


def watching(
    settings: Kubernetes, environ: Mapping[str, str], host_name: str | None
) -> AbstractContextManager[Watcher | None]:
    """A watcher of the cluster, or None where there is no cluster or it is not wanted."""
    return Watcher(settings, environ, host_name) if there_is_one(settings, environ) else nullcontext()
