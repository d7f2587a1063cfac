"""Enrichment: rows → who (process, container, unit), where (addresses) and which name.

Teaching comes first: in each tick `learn` is given all batches before any is enriched, because probes have rings of
their own and a connection may be read before the lookup that named its peer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelbpf.batch import Batch, Categorical, Facts
from otelbpf.enrich.address import Addresses
from otelbpf.enrich.caches import Made
from otelbpf.enrich.container import Cgroups
from otelbpf.enrich.hostname import HostNames
from otelbpf.enrich.kubernetes.peers import Peers
from otelbpf.enrich.kubernetes.waiting import Waiting
from otelbpf.enrich.machine import Machine
from otelbpf.enrich.process import EXEC, EXECUTABLES, Executables
from otelbpf.enrich.resource import Resources
from otelbpf.signals import names

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from otelbpf.batch import Column
    from otelbpf.config import Config
    from otelbpf.enrich.caches import Counters
    from otelbpf.enrich.kubernetes.cluster import Cluster
    from otelbpf.enrich.machine import Answers

__all__ = ["Enrichment"]

RESOURCES_OUTLIVE_SERIES = 2
"""A series must never find its resource forgotten."""


class Enrichment:
    """Adds the columns `process` and `resource`, and what `Addresses` or the parent of a process gives.

    A context manager; entering asks the machine who it is. The cgroup tree is walked when the first rows arrive: by
    then the kernel tells of new cgroups, so that none is missed in between.
    """

    def __init__(self, config: Config, machine: Answers | None = None, cluster: Cluster | None = None) -> None:
        """*cluster* is what Kubernetes may be asked, if there is one."""
        self._cluster = cluster
        self._machine = machine if machine is not None else Machine()
        self._executables = Executables(self._machine)
        self._cgroups = Cgroups(self._machine)
        self._resources = Resources(
            self._machine,
            self._cgroups,
            config.resource.attributes,
            forget_after_s=config.metrics.series_ttl * RESOURCES_OUTLIVE_SERIES,
            cluster=cluster,
        )
        self.waiting = Waiting(self._cgroups, cluster)
        self._host_names = HostNames()
        self._addresses = Addresses(self._machine, None if cluster is None else Peers(cluster))
        self._as_parent: Made[str, Facts] = Made(EXECUTABLES, _parent)
        self._walked = False

    def __enter__(self) -> Self:
        self._resources.ask_host()
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held open."""

    def follow(self, config: Config) -> None:
        """Describes resources as *config* says from now on; between two batches."""
        self._resources.follow(config.resource.attributes, config.metrics.series_ttl * RESOURCES_OUTLIVE_SERIES)

    def learn(self, batches: Sequence[Batch]) -> None:
        """Takes in what the batches of one tick teach: cgroups first, for executions are in them."""
        if not self._walked:
            self._cgroups.walk()
            self._walked = True
        if self._cluster is not None:
            self._cluster.learn()
        self._executables.let_go()
        for batch in batches:
            if batch.probe == "cgroup":
                self._cgroups.learn(batch)
        for batch in batches:
            if batch.probe == "process":
                self._executables.learn(batch)
                executed = batch.select(batch.number("kind") == EXEC)
                self._resources.learn(executed, self._processes(executed))
            elif batch.probe == "dns_lookup":
                self._host_names.learn(batch)

    def enrich(self, batch: Batch) -> Batch:
        """The batch with what is known of its rows."""
        fields = batch.rows.dtype.names or ()
        if "head" not in fields or not len(batch):
            return batch
        processes = self._processes(batch)
        columns: dict[str, Column] = {
            **batch.columns,
            "process": processes,
            "resource": self._resources.of(batch, processes),
        }
        if "parent_executable" in fields:
            columns["parent"] = self._parents(batch)
            self._executables.forget(batch)
        if "remote_address" in fields:
            columns |= (
                self._addresses.of_connections(batch, *self._host_names.of(batch))
                if "cookie" in fields
                else self._addresses.of_lookups(batch)
            )
        return Batch(batch.probe, batch.rows, batch.clock_offset_ns, columns, batch.snapshot, batch.totals)

    def counters(self) -> dict[str, Counters]:
        """Cache → how it fares."""
        return {
            "executable": self._executables.counters(),
            "cgroup": self._cgroups.counters(),
            "resource": self._resources.counters(),
            "host_name": self._host_names.counters(),
            "named_connection": self._host_names.fixed_counters(),
            "address": self._addresses.counters(),
        }

    def _processes(self, batch: Batch) -> Categorical:
        head = batch.rows["head"]
        return self._executables.of(head["executable"], head["pid"], head["comm"])

    def _parents(self, batch: Batch) -> Categorical:
        rows = batch.rows
        found = self._executables.of(rows["parent_executable"], rows["parent_pid"], rows["parent_comm"])
        parents = self._as_parent.of_all([facts.get(names.PROCESS_EXECUTABLE_NAME, "") for facts in found.values])
        return Categorical(found.codes, parents)


def _parent(name: str) -> Facts:
    return Facts({names.OTELBPF_PARENT_EXECUTABLE_NAME: name} if name else {})
