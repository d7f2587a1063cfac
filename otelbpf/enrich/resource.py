"""Whose signal it is: the OTLP resource of what is observed. One per container, else pod, systemd unit or executable.

The Facts hold all attributes. Metrics leave out those in `names.RUN_ONLY` (container.id, container.runtime.name):
a restart must not split a series.

service.name of a container is what its runtime calls it. Where no file of a runtime tells, it is the name of the
first executable that ran in the container (its oldest process, for one older than the agent): a container has one
first program whichever of its processes happens to make the next event, so the name stays for its whole life.

service.instance.id of an executable is host.id and its *name*: a name stays when a package manager gives each version
a path of its own, and the same program in two mount namespaces is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from otelbpf import __version__
from otelbpf.batch import Categorical, Facts
from otelbpf.enrich.caches import Memory
from otelbpf.enrich.container import NOBODY
from otelbpf.enrich.image import image_facts
from otelbpf.enrich.kubernetes.identity import container_facts
from otelbpf.native.distinct import distinct
from otelbpf.signals import names

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from otelbpf.batch import Batch
    from otelbpf.enrich.caches import Counters
    from otelbpf.enrich.container import Cgroups, Container
    from otelbpf.enrich.kubernetes.cluster import Cluster
    from otelbpf.enrich.kubernetes.identity import Pod
    from otelbpf.enrich.machine import Answers
    from otelbpf.enrich.runtime import Named

RESOURCES = 10_000
CONTAINERS = 10_000
RUNTIME_PROGRAMS = frozenset({"runc", "crun", "youki", "runsc", "conmon", "containerd-shim-runc-v2", "exe"})
"""What a runtime runs inside the cgroup before it gives way to the container's own program."""
NS_PER_S = 10**9


class Owner(NamedTuple):
    """What a resource is of: the key under which it is kept."""

    kind: str
    name: str


@dataclass(slots=True)
class _Held:
    facts: Facts
    used_ns: int
    pod: Pod | None


class Resources:
    """Rows → the resource each belongs to."""

    def __init__(
        self,
        machine: Answers,
        cgroups: Cgroups,
        attributes: Mapping[str, object],
        forget_after_s: float,
        cluster: Cluster | None = None,
    ) -> None:
        """*attributes* are the user's own; a resource not seen for *forget_after_s* is forgotten."""
        self._cluster = cluster
        self._node_name = ""
        self._machine = machine
        self._cgroups = cgroups
        self._attributes = attributes
        self._forget_after_ns = int(forget_after_s * NS_PER_S)
        self._known: Memory[Owner, _Held] = Memory(RESOURCES)
        self._swept_ns = 0
        self._first_program: Memory[str, str] = Memory(CONTAINERS)
        self._host: dict[str, object] = {}

    def ask_host(self) -> None:
        """Learns what all resources have in common."""
        found = {
            names.HOST_NAME: self._machine.host_name(),
            names.HOST_ID: self._machine.host_id(),
            names.TELEMETRY_DISTRO_NAME: "otelbpf",
            names.TELEMETRY_DISTRO_VERSION: __version__,
        }
        self._host = {**{name: value for name, value in found.items() if value is not None}, **self._attributes}

    def follow(self, attributes: Mapping[str, object], forget_after_s: float) -> None:
        """Other attributes of the user's own, which make other resources, and another time from now on."""
        self._forget_after_ns = int(forget_after_s * NS_PER_S)
        if attributes is self._attributes:  # a reload leaves what has not changed
            return
        self._attributes = attributes
        self._node_name = ""
        self._known.clear()
        self.ask_host()

    def learn(self, executed: Batch, processes: Categorical) -> None:
        """Takes in executions: the first one in a container names it."""
        head = executed.rows["head"]
        groups = distinct(head["cgroup_id"])
        containers = [self._cgroups.of(*asked).container_id for asked in _asked(head, groups.rows)]
        nameless = np.array([bool(one) and one not in self._first_program for one in containers], dtype=bool)
        for row in np.flatnonzero(nameless[groups.codes]).tolist():
            program = processes.values[processes.codes[row]].get(names.PROCESS_EXECUTABLE_NAME, "")
            if program not in RUNTIME_PROGRAMS:
                self._first_program.setdefault(containers[groups.codes[row]], program)

    def of(self, batch: Batch, processes: Categorical) -> Categorical:
        """The resource of each row; *processes* says what each row's process runs.

        A container or unit is known by the cgroup alone, so there are as many things to look up as cgroups and
        executables, not as pairs of them.
        """
        head = batch.rows["head"]
        now_ns = int(head["time_ns"].max())
        self._forget_old(now_ns)
        self._look_at_node()
        groups = distinct(head["cgroup_id"])
        containers = [self._cgroups.of(*asked) for asked in _asked(head, groups.rows)]
        by_cgroup = np.array([container.owns for container in containers], dtype=bool)[groups.codes]
        by_cgroup &= ~np.array([_is_runtime(process) for process in processes.values], dtype=bool)[processes.codes]
        things = distinct(np.where(by_cgroup, groups.codes, len(containers) + processes.codes).astype(np.uint64))
        values: dict[Facts, int] = {}
        codes = np.empty(len(things.rows), dtype=np.intp)
        for at, row in enumerate(things.rows.tolist()):
            container = containers[groups.codes[row]] if by_cgroup[row] else NOBODY
            facts = self._resource(container, head[row], processes.values[processes.codes[row]], now_ns)
            codes[at] = values.setdefault(facts, len(values))
        return Categorical(codes[things.codes], list(values))

    def counters(self) -> Counters:
        return self._known.counters()

    def _resource(self, container: Container, head: np.void, process: Facts, now_ns: int) -> Facts:
        owner = _owner(container, process)
        pod = self._cluster.pod(container.pod_uid) if container.pod_uid and self._cluster is not None else None
        held = self._known.recall(owner)
        if held is None or held.pod is not pod:
            made = {**self._host, **self._of_owner(owner, container, pod, head, process)}
            facts = held.facts if held is not None and held.facts == made else Facts(made)
            self._known[owner] = held = _Held(facts, now_ns, pod)
        held.used_ns = now_ns
        return held.facts

    def _look_at_node(self) -> None:
        """The node's name may be found only after a while."""
        if self._cluster is None or self._cluster.node_name == self._node_name:
            return
        self._node_name = self._cluster.node_name
        named = {names.K8S_CLUSTER_NAME: self._cluster.cluster_name, names.K8S_NODE_NAME: self._node_name}
        self._host = {**{name: value for name, value in named.items() if value}, **self._host}
        self._known.clear()

    def _of_owner(
        self, owner: Owner, container: Container, pod: Pod | None, head: np.void, process: Facts
    ) -> dict[str, object]:
        if pod is not None:
            return self._of_pod(pod, container)
        if owner.kind == "pod":
            return {names.K8S_POD_UID: owner.name, names.SERVICE_INSTANCE_ID: owner.name}
        if owner.kind == "container":
            return self._of_container(container, int(head["cgroup_id"]), int(head["pid"]), process)
        if not owner.name:
            return {}
        own: dict[str, object] = {names.SERVICE_NAME: owner.name.removesuffix(".service")}
        host = self._host.get(names.HOST_ID) or self._host.get(names.HOST_NAME)
        if host is not None:
            own[names.SERVICE_INSTANCE_ID] = f"{host}/{owner.name}"
        if owner.kind == "unit":
            own[names.SYSTEMD_UNIT_NAME] = owner.name
        return own

    def _of_pod(self, pod: Pod, container: Container) -> dict[str, object]:
        own = container_facts(pod, container.container_id)
        if container.container_id not in pod.containers:
            named = self._machine.container_named(container.container_id) if container.container_id else None
            own = {**_named_container(named), **own} if named is not None else own
        return own | _run_facts(container)

    def _of_container(self, container: Container, cgroup_id: int, pid: int, process: Facts) -> dict[str, object]:
        named = self._machine.container_named(container.container_id)
        name = named.name if named is not None else self._program_of(container.container_id, cgroup_id, pid, process)
        own: dict[str, object] = {names.SERVICE_INSTANCE_ID: container.container_id, **_run_facts(container)}
        if name:
            own[names.SERVICE_NAME] = name
        if container.pod_uid:
            own[names.K8S_POD_UID] = container.pod_uid
        return own | (_named_container(named) | image_facts(named.image) if named is not None else {})

    def _program_of(self, container_id: str, cgroup_id: int, pid: int, process: Facts) -> str:
        first = self._first_program.get(container_id)
        if first is None:
            path = self._machine.first_executable(cgroup_id, pid)
            first = path.rpartition("/")[2] if path else str(process.get(names.PROCESS_EXECUTABLE_NAME, ""))
            self._first_program[container_id] = first
        return first

    def _forget_old(self, now_ns: int) -> None:
        if now_ns - self._swept_ns < self._forget_after_ns:
            return
        self._swept_ns = now_ns
        old = [owner for owner, held in self._known.items() if now_ns - held.used_ns > self._forget_after_ns]
        for owner in old:
            del self._known[owner]


def _run_facts(container: Container) -> dict[str, object]:
    """What changes with each run of the container."""
    found = {names.CONTAINER_ID: container.container_id, names.CONTAINER_RUNTIME_NAME: container.runtime}
    return {name: value for name, value in found.items() if value}


def _named_container(named: Named) -> dict[str, object]:
    """What the runtime's files tell of a pod: all there is before the API server answers, and while it is away."""
    if not named.pod or not named.namespace:
        return {}
    return {
        names.K8S_NAMESPACE_NAME: named.namespace,
        names.K8S_POD_NAME: named.pod,
        names.K8S_CONTAINER_NAME: named.name,
        names.SERVICE_NAMESPACE: named.namespace,
        names.SERVICE_INSTANCE_ID: f"{named.namespace}.{named.pod}.{named.name}",
    }


def _asked(head: NDArray[np.void], rows: NDArray[np.intp]) -> Iterable[tuple[int, int]]:
    return zip(head["cgroup_id"][rows].tolist(), head["pid"][rows].tolist(), strict=True)


def _is_runtime(process: Facts) -> bool:
    return process.get(names.PROCESS_EXECUTABLE_NAME) in RUNTIME_PROGRAMS


def _owner(container: Container, process: Facts) -> Owner:
    if container.container_id:
        return Owner("container", container.container_id)
    if container.pod_uid:
        return Owner("pod", container.pod_uid)
    if container.unit:
        return Owner("unit", container.unit)
    name = str(process.get(names.PROCESS_EXECUTABLE_NAME, ""))
    if names.PROCESS_EXECUTABLE_PATH not in process:  # kworker/0:1 is the kernel's kworker, whichever the CPU
        name = name.partition("/")[0]
    return Owner("executable", name)
