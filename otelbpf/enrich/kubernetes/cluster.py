"""What enrichment may ask of Kubernetes: reads of dictionaries that another thread fills, or a recording of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from otelbpf.enrich.kubernetes.holders import Holder, Holders, may_be_of_pods
from otelbpf.enrich.kubernetes.identity import Pod

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otelbpf.config import Kubernetes
    from otelbpf.enrich.kubernetes.conntrack import Conntrack
    from otelbpf.enrich.kubernetes.tables import OwnPods, Services
    from otelbpf.kernel.conntrack import Ends

ADDRESS, PORT, NAME, ENDS, UNSURE = "address", "port", "name", "ends", "unsure"


class Cluster(Protocol):
    """What can be asked. No answer waits for anything."""

    @property
    def node_name(self) -> str:
        """Empty while it is not known."""

    @property
    def cluster_name(self) -> str:
        """As it is set."""

    @property
    def holds(self) -> bool:
        """Whether a pod that is not known may be known soon, so that its rows are worth keeping for a moment."""

    def pod(self, cgroup_uid: str) -> Pod | None:
        """The pod of this node with that UID in its cgroup's path; of one that was deleted for some minutes yet."""

    def holders(self, address: bytes) -> tuple[Holder, ...]:
        """Who has or had that address."""

    def is_complete_for(self, address: bytes) -> bool:
        """Whether all who may have *address* are known, so that it is none of the cluster's if nobody has it."""

    def at_node_port(self, port: int) -> Holder | None:
        """The service that every node offers at *port*."""

    def outside(self, name: str) -> Holder | None:
        """The service that stands for the host *name* (type ExternalName, a load balancer's name), if only one does."""

    def learn(self) -> None:
        """Takes in what was told since the last tick; called before any row of a tick is looked at."""

    def translates(self, remote: bytes) -> bool:
        """Whether connections to *remote* are known to lead to another end."""

    def true_end(self, ends: Ends, began_ns: int) -> tuple[bytes, int] | None:
        """The address and port of the other end of a connection that is translated on its way; *began_ns* (CLOCK_BOOTTIME)
        tells it from others with the same ends."""


class Known:
    """The answers from tables."""

    def __init__(
        self, settings: Kubernetes, own: OwnPods, holders: Holders, services: Services, conntrack: Conntrack
    ) -> None:
        self._conntrack = conntrack
        self.learn = conntrack.learn
        self.translates = conntrack.translates
        self.true_end = conntrack.true_end
        self.cluster_name = settings.cluster_name
        self.node_name = settings.node_name
        self.holds = settings.hold > 0
        self._own = own.by_cgroup_uid
        self._holders = holders
        self._by_node_port = services.by_node_port
        self._by_host_name = services.by_host_name
        self.is_complete = False
        """Whether every pod, service and node of the cluster is told of, now; the watcher says so."""

    def pod(self, cgroup_uid: str) -> Pod | None:
        return self._own.get(cgroup_uid)

    def holders(self, address: bytes) -> tuple[Holder, ...]:
        return self._holders.of(address)

    def is_complete_for(self, address: bytes) -> bool:
        return self.is_complete or not may_be_of_pods(address)

    def at_node_port(self, port: int) -> Holder | None:
        return self._by_node_port.get(port)

    def outside(self, name: str) -> Holder | None:
        found = self._by_host_name.get(name) or self._by_host_name.get(_in_cluster(name), ())
        return found[0] if len(found) == 1 else None


def _in_cluster(name: str) -> str:
    """db.shop.svc.cluster.local → db.shop.svc: the cluster's own domain may be another. Empty for what is no service."""
    first = name.split(".", 3)[:3]
    return ".".join(first) if first[2:] == ["svc"] else ""


class Recorder:
    """Asks another cluster and keeps in *answers* what it said last, as JSON can hold it."""

    holds: bool

    def __init__(self, cluster: Cluster, answers: dict[str, dict[str, Any]]) -> None:
        self._cluster = cluster
        self._answers = answers
        self.holds = cluster.holds
        self.cluster_name = cluster.cluster_name

    @property
    def node_name(self) -> str:
        name = self._cluster.node_name
        self._answers.setdefault("cluster", {}).update({"node_name": name, "cluster_name": self.cluster_name})
        return name

    def pod(self, cgroup_uid: str) -> Pod | None:
        found = self._cluster.pod(cgroup_uid)
        if found is not None:
            self._answers.setdefault("pod", {})[cgroup_uid] = msgspec.to_builtins(found)
        return found

    def holders(self, address: bytes) -> tuple[Holder, ...]:
        return self._kept(ADDRESS, address.hex(), self._cluster.holders(address))

    def is_complete_for(self, address: bytes) -> bool:
        complete = self._cluster.is_complete_for(address)
        if not complete:
            self._answers.setdefault(UNSURE, {})[address.hex()] = True
        return complete

    def at_node_port(self, port: int) -> Holder | None:
        return next(iter(self._kept(PORT, str(port), _one(self._cluster.at_node_port(port)))), None)

    def outside(self, name: str) -> Holder | None:
        return next(iter(self._kept(NAME, name, _one(self._cluster.outside(name)))), None)

    def learn(self) -> None:
        self._cluster.learn()

    def translates(self, remote: bytes) -> bool:
        return self._cluster.translates(remote)

    def true_end(self, ends: Ends, began_ns: int) -> tuple[bytes, int] | None:
        true = self._cluster.true_end(ends, began_ns)
        if true is not None:
            self._answers.setdefault(ENDS, {})[f"{_text(ends)} {began_ns}"] = [true[0].hex(), true[1]]
        return true

    def _kept(self, kind: str, key: str, holders: tuple[Holder, ...]) -> tuple[Holder, ...]:
        if holders:
            self._answers.setdefault(kind, {})[key] = msgspec.to_builtins(holders)
        return holders


class Recorded:
    """Answers as they were recorded."""

    holds = False

    def __init__(self, answers: Mapping[str, Mapping[str, Any]]) -> None:
        about = answers.get("cluster", {})
        self.node_name = str(about.get("node_name", ""))
        self.cluster_name = str(about.get("cluster_name", ""))
        self._pods = {uid: msgspec.convert(pod, Pod) for uid, pod in answers.get("pod", {}).items()}
        self._holders: dict[tuple[str, str], tuple[Holder, ...]] = {}
        self._true = {key: (bytes.fromhex(one[0]), one[1]) for key, one in answers.get(ENDS, {}).items()}
        self._remotes = {key.split()[3] for key in self._true}
        self._unsure = answers.get(UNSURE, {})
        made: dict[str, Holder] = {}
        for kind in (ADDRESS, PORT, NAME):
            for key, holders in answers.get(kind, {}).items():
                self._holders[kind, key] = tuple(_shared(holder, made) for holder in holders)

    def pod(self, cgroup_uid: str) -> Pod | None:
        return self._pods.get(cgroup_uid)

    def holders(self, address: bytes) -> tuple[Holder, ...]:
        return self._holders.get((ADDRESS, address.hex()), ())

    def is_complete_for(self, address: bytes) -> bool:
        return address.hex() not in self._unsure

    def at_node_port(self, port: int) -> Holder | None:
        return next(iter(self._holders.get((PORT, str(port)), ())), None)

    def outside(self, name: str) -> Holder | None:
        return next(iter(self._holders.get((NAME, name), ())), None)

    def learn(self) -> None:
        """All is known from the start."""

    def translates(self, remote: bytes) -> bool:
        return remote.hex() in self._remotes

    def true_end(self, ends: Ends, began_ns: int) -> tuple[bytes, int] | None:
        text = _text(ends)
        return self._true.get(f"{text} {began_ns}") or self._true.get(text)  # older recordings have no times


def _text(ends: Ends) -> str:
    return " ".join(part.hex() if isinstance(part, bytes) else str(part) for part in ends)


def _one(holder: Holder | None) -> tuple[Holder, ...]:
    return () if holder is None else (holder,)


def _shared(holder: Any, made: dict[str, Holder]) -> Holder:
    """One that stands in several places is one again."""
    return made.setdefault(msgspec.json.encode(holder).decode(), msgspec.convert(holder, Holder))
