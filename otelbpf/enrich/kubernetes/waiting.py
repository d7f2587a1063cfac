"""Which rows are worth waiting for: their cgroup says that they are of a pod, but nobody has told of the pod yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from otelbpf.enrich.caches import Memory
from otelbpf.native.distinct import distinct

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otelbpf.batch import Batch
    from otelbpf.enrich.container import Cgroups, Container
    from otelbpf.enrich.kubernetes.cluster import Cluster

GIVEN_UP = 16_384


class Waiting:
    """Tells rows that should wait. What was waited for in vain (a pod's sandbox, which no object names) is not again."""

    def __init__(self, cgroups: Cgroups, cluster: Cluster | None) -> None:
        self._cgroups = cgroups
        self._cluster = cluster if cluster is not None and cluster.holds else None
        self._given_up: Memory[int, bool] = Memory(GIVEN_UP)

    @property
    def is_possible(self) -> bool:
        """Whether there is anybody who may tell of a pod yet."""
        return self._cluster is not None

    def mask(self, batch: Batch) -> NDArray[np.bool_] | None:
        """The rows whose pod or container is not known yet; None when there are none."""
        if self._cluster is None or not len(batch) or "head" not in (batch.rows.dtype.names or ()):
            return None
        head = batch.rows["head"]
        groups = distinct(head["cgroup_id"])
        ids, pids = head["cgroup_id"][groups.rows].tolist(), head["pid"][groups.rows].tolist()
        waits = [self._waits(*asked) for asked in zip(ids, pids, strict=True)]
        if not any(waits):
            return None
        rows: NDArray[np.bool_] = np.array(waits, dtype=bool)[groups.codes]
        return rows

    def give_up(self, batch: Batch) -> None:
        """The cgroups of these rows have been waited for long enough."""
        for cgroup_id in np.unique(batch.rows["head"]["cgroup_id"]).tolist():
            self._given_up[cgroup_id] = True

    def _waits(self, cgroup_id: int, pid: int) -> bool:
        container = self._cgroups.of(cgroup_id, pid)
        return bool(container.pod_uid) and cgroup_id not in self._given_up and not self._is_known(container)

    def _is_known(self, container: Container) -> bool:
        pod = self._cluster.pod(container.pod_uid) if self._cluster is not None else None
        return pod is not None and (not container.container_id or container.container_id in pod.containers)
