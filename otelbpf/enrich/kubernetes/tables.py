"""What is kept of each kind of object. A table is filled by the watching thread alone; others only read its dicts.

`put` takes an object of `kind` as it is now, `gone` one that was deleted, `uids` those that are there. Times are Unix
time in ns. Each table has a bound in `watcher.py`; those who are gone are remembered for some minutes, and so many.
"""

from __future__ import annotations

from collections import deque
from sys import intern
from typing import TYPE_CHECKING, Any, Protocol

from otelbpf.enrich.kubernetes import identity, objects
from otelbpf.enrich.kubernetes.alike import Alike
from otelbpf.enrich.kubernetes.holders import (
    ENDED_FOR_NS,
    NODE,
    NS_PER_S,
    POD,
    SERVICE,
    Holder,
    Holders,
    network,
    packed_all,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from datetime import datetime

    from otelbpf.config import Kubernetes
    from otelbpf.enrich.kubernetes.holders import Network
    from otelbpf.enrich.kubernetes.identity import Pod

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
GONE_PODS = 16_384
"""Pods of one node that are remembered after their end: three times what a minute's thousand make in five."""
CLOCK_OFF_NS = 86_400 * NS_PER_S
"""The API server's clock is not a day ahead of ours."""
FINISHED = ("Succeeded", "Failed")
"""Phases in which a pod has given back its address although its object is still there."""


class Table(Protocol):
    """Where a watch puts what it is told."""

    heard_ns: int
    """When the API was last heard before an outage, while it is told what happened meanwhile; 0: as it happens."""

    @property
    def kind(self) -> Any: ...
    def put(self, found: Any, now_ns: int) -> None: ...
    def gone(self, uid: str, now_ns: int) -> None: ...
    def uids(self) -> Collection[str]: ...


class OwnPods:
    """The pods of this node, by the UID in their cgroups."""

    kind = objects.PodObject

    def __init__(self, settings: Kubernetes) -> None:
        self._settings = settings
        self.heard_ns = 0
        self._by_uid: dict[str, Pod] = {}
        self._gone: deque[tuple[int, Pod]] = deque()
        self.by_cgroup_uid: dict[str, Pod] = {}

    def put(self, found: objects.PodObject, now_ns: int) -> None:
        before = self._by_uid.get(found.metadata.uid)
        pod = identity.pod_of(found, self._settings, before)
        if pod != before:  # most changes are of conditions, and what was made of the pod stays good
            self._by_uid[pod.uid] = pod
            if pod.cgroup_uid == pod.uid or not self._is_taken(pod):  # nobody else can say who a pod is
                self.by_cgroup_uid[pod.cgroup_uid] = pod

    def gone(self, uid: str, now_ns: int) -> None:
        pod = self._by_uid.pop(uid, None)
        if pod is not None:
            self._gone.append((now_ns, pod))
            if len(self._gone) > GONE_PODS:
                self._forget_oldest()
            self._hand_over(pod)

    def _is_taken(self, mirror: Pod) -> bool:
        """Whether the static pod that *mirror* says it stands for is another, or has another that is still there."""
        holder = self.by_cgroup_uid.get(mirror.cgroup_uid)
        others = holder is not None and holder.uid != mirror.uid and holder.uid in self._by_uid
        return mirror.cgroup_uid in self._by_uid or others

    def _hand_over(self, pod: Pod) -> None:
        """Of a static pod kubelet makes another mirror, of which a list may tell before it tells that the last is gone."""
        if self.by_cgroup_uid.get(pod.cgroup_uid) is pod:
            heir = next((other for other in self._by_uid.values() if other.cgroup_uid == pod.cgroup_uid), pod)
            self.by_cgroup_uid[pod.cgroup_uid] = heir

    def uids(self) -> Collection[str]:
        return self._by_uid.keys()

    def sweep(self, now_ns: int) -> None:
        """Forgets pods that were deleted long ago."""
        while self._gone and self._gone[0][0] + ENDED_FOR_NS < now_ns:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        _, pod = self._gone.popleft()
        if self.by_cgroup_uid.get(pod.cgroup_uid) is pod and pod.uid not in self._by_uid:
            del self.by_cgroup_uid[pod.cgroup_uid]


class _Held:
    """What most tables do: an object is one holder of some addresses."""

    def __init__(self, holders: Holders) -> None:
        self._holders = holders
        self.heard_ns = 0
        self._known: dict[str, tuple[Holder, tuple[bytes, ...]]] = {}

    def gone(self, uid: str, now_ns: int) -> None:
        holder, addresses = self._known.pop(uid, (None, ()))
        if holder is not None:
            self._end(holder, addresses, now_ns)

    def uids(self) -> Collection[str]:
        return self._known.keys()

    def _end(self, holder: Holder, addresses: tuple[bytes, ...], now_ns: int) -> None:
        if not holder.ends_ns:
            self._holders.end(holder, addresses, now_ns, self.heard_ns)

    def _keep(self, holder: Holder, addresses: tuple[bytes, ...], now_ns: int) -> Holder:
        """Takes in *holder* as it is now; gives the one that stands for it."""
        before, held = self._known.get(holder.uid, (None, ()))
        if before is not None and (held or before.ends_ns) and addresses != held:
            # it got others: what was before stays with the old ones
            self._end(before, held, now_ns)
            holder.begins_ns = self.heard_ns or now_ns
            before, held = None, ()
        elif before is not None:
            holder.begins_ns = max(holder.begins_ns, before.begins_ns)
            holder.ends_ns, holder.told_ns, holder.seen_ns = before.ends_ns, before.told_ns, before.seen_ns
            if before.ends_ns or before.same(holder):  # what is over stays as it was told
                holder = before
            elif held:
                self._holders.replace(before, holder, held)
        if addresses != held:
            holder.told_ns = now_ns
            self._holders.add(holder, addresses)
        self._known[holder.uid] = (holder, addresses)
        return holder


class PeerPods(_Held):
    """All pods of the cluster, as the other ends of connections."""

    kind = objects.PeerPodObject

    def __init__(self, holders: Holders) -> None:
        super().__init__(holders)
        self._alike = Alike()

    def put(self, found: objects.PeerPodObject, now_ns: int) -> None:
        addresses = (
            () if found.spec.host_network else _pod_addresses(found.status)
        )  # else the node's, and it is the node
        made = self._holder(found.metadata, found.spec.node_name or "", now_ns)
        made.begins_ns = max(made.begins_ns, _said_ns(found.status.start_time, now_ns))  # no address before its kubelet
        holder = self._keep(made, addresses, now_ns)
        if found.status.phase in FINISHED:
            self._end(holder, addresses, now_ns)

    def _holder(self, metadata: objects.RawMetadata, node: str, now_ns: int) -> Holder:
        who = self._alike.who(metadata)
        return Holder(
            POD,
            metadata.name,
            intern(metadata.namespace),
            metadata.uid,
            intern(node),
            who.workload_kind,
            who.workload_name,
            who.service_name,
            who.service_namespace,
            _made_ns(metadata, now_ns),
        )


def _pod_addresses(status: objects.PeerPodStatus) -> tuple[bytes, ...]:
    return packed_all([one.ip for one in status.pod_ips or ()]) or packed_all((status.pod_ip,))


class Nodes(_Held):
    """All nodes."""

    kind = objects.NodeObject

    def __init__(self, holders: Holders) -> None:
        super().__init__(holders)
        self._networks: dict[str, frozenset[Network]] = {}

    def put(self, found: objects.NodeObject, now_ns: int) -> None:
        name, spec = intern(found.metadata.name), found.spec
        holder = Holder(NODE, name, uid=found.metadata.uid, node=name)
        self._keep(holder, packed_all(one.address for one in found.status.addresses or ()), now_ns)
        known = [network(text) for text in spec.pod_cidrs or ([spec.pod_cidr] if spec.pod_cidr else ())]
        self._give_networks(found.metadata.uid, name, frozenset(one for one in known if one is not None))

    def gone(self, uid: str, now_ns: int) -> None:
        self._give_networks(uid, "", frozenset())
        self._networks.pop(uid, None)  # many network plug-ins give nodes none
        super().gone(uid, now_ns)

    def _give_networks(self, uid: str, name: str, networks: frozenset[Network]) -> None:
        """The node's pods have addresses of *networks*: of one that nobody holds that much is known."""
        before = self._networks.get(uid, frozenset())
        if before == networks:
            return
        self._networks[uid] = networks
        others = {key: one for key, one in self._holders.networks.items() if key not in before}
        self._holders.networks = others | dict.fromkeys(networks, Holder(POD, "", node=name))
        self._holders.lengths = tuple(sorted({length for _bits, length in self._holders.networks}, reverse=True))


class Services(_Held):
    """All services: their addresses, their ports on nodes, and the host names that some stand for."""

    kind = objects.ServiceObject

    def __init__(self, holders: Holders) -> None:
        super().__init__(holders)
        self._ways: dict[str, tuple[Holder, tuple[int, ...], tuple[str, ...]]] = {}
        self.by_node_port: dict[int, Holder] = {}
        self.by_host_name: dict[str, tuple[Holder, ...]] = {}
        """Lower case, without a final dot; also `NAME.NAMESPACE.svc` of those that are only an alias."""

    def put(self, found: objects.ServiceObject, now_ns: int) -> None:
        metadata, spec = found.metadata, found.spec
        ports = spec.ports or ()
        holder = Holder(
            SERVICE,
            metadata.name,
            metadata.namespace,
            metadata.uid,
            service_name=metadata.name,
            service_namespace=metadata.namespace,
            begins_ns=_made_ns(metadata, now_ns),
            ports=tuple(port.port for port in ports),
        )
        balancer = found.status.load_balancer
        ingress = (balancer.ingress if balancer is not None else None) or ()
        texts = [spec.cluster_ip, *(spec.cluster_ips or ()), *(spec.external_ips or ()), *(one.ip for one in ingress)]
        holder = self._keep(holder, packed_all(texts), now_ns)
        self._forget_ways(metadata.uid)
        node_ports = tuple(port.node_port for port in ports if port.node_port)
        self._remember_ways(metadata.uid, holder, node_ports, tuple(dict.fromkeys(_host_names(found, ingress))))

    def gone(self, uid: str, now_ns: int) -> None:
        self._forget_ways(uid)
        super().gone(uid, now_ns)

    def _remember_ways(self, uid: str, holder: Holder, ports: tuple[int, ...], hosts: tuple[str, ...]) -> None:
        self._ways[uid] = holder, ports, hosts
        self.by_node_port.update(dict.fromkeys(ports, holder))
        for host in hosts:
            self.by_host_name[host] = (*self.by_host_name.get(host, ()), holder)

    def _forget_ways(self, uid: str) -> None:
        holder, ports, hosts = self._ways.pop(uid, (None, (), ()))
        for port in ports:
            if self.by_node_port.get(port) is holder:
                del self.by_node_port[port]
        for host in hosts:
            left = tuple(other for other in self.by_host_name[host] if other is not holder)
            if left:
                self.by_host_name[host] = left
            else:
                del self.by_host_name[host]


def _host_names(found: Any, ingress: Iterable[Any]) -> Iterable[str]:
    """What a service is called where it has no address: in other words, and as a load balancer has them."""
    metadata = found.metadata
    if found.spec.type == "ExternalName" and found.spec.external_name:
        yield found.spec.external_name.rstrip(".").lower()
        yield f"{metadata.name}.{metadata.namespace}.svc"
    for one in ingress:
        if one.hostname:
            yield one.hostname.rstrip(".").lower()


class Slices:
    """All EndpointSlices: the pods behind services, in far fewer objects and changes than the pods themselves."""

    kind = objects.SliceObject

    def __init__(self, holders: Holders) -> None:
        self._holders = holders
        self.heard_ns = 0
        self._known: dict[str, dict[bytes, Holder]] = {}

    def put(self, found: objects.SliceObject, now_ns: int) -> None:
        uid = found.metadata.uid
        before = self._known.get(uid, {})
        now: dict[bytes, Holder] = {}
        for address, holder in dict(_endpoints(found, now_ns)).items():  # pods on the host's network share one
            known = before.get(address)
            if known is not None:
                holder.begins_ns, holder.told_ns = known.begins_ns, known.told_ns
            elif self.heard_ns:  # the slice may have changed for others since
                holder.begins_ns = min(holder.begins_ns, self.heard_ns)
            if known is not None and known.same(holder):
                now[address] = known
            else:
                now[address] = holder
                self._holders.add(holder, (address,))
        for address, holder in before.items():
            if now.get(address) is not holder:
                self._holders.end(holder, (address,), now_ns, self.heard_ns)
        self._known[uid] = now

    def gone(self, uid: str, now_ns: int) -> None:
        for address, holder in self._known.pop(uid, {}).items():
            self._holders.end(holder, (address,), now_ns, self.heard_ns)

    def uids(self) -> Collection[str]:
        return self._known.keys()


def _endpoints(found: Any, now_ns: int) -> Iterable[tuple[bytes, Holder]]:
    service = (found.metadata.labels or {}).get(SERVICE_NAME_LABEL, "")
    begins_ns = _changed_ns(found.metadata, now_ns)
    ports = tuple(each.port for each in found.ports or () if each.port)
    for endpoint in found.endpoints or ():
        target = endpoint.target_ref
        if target is None or target.kind != "Pod":
            continue
        for address in packed_all(endpoint.addresses or ()):
            yield (
                address,
                Holder(
                    POD,
                    target.name,
                    intern(target.namespace),
                    target.uid,
                    intern(endpoint.node_name or ""),
                    service_name=intern(service),
                    service_namespace=intern(target.namespace),
                    begins_ns=begins_ns,
                    ports=ports,
                    told_ns=now_ns,
                ),
            )


def _made_ns(metadata: objects.Identified, now_ns: int) -> int:
    """When it was made; 0, not known, for what no clock can have said."""
    return _said_ns(metadata.creation_timestamp, now_ns)


def _changed_ns(metadata: objects.ManagedMetadata, now_ns: int) -> int:
    """Since when it says what it says: since its last change, which may be long ago when a watch begins."""
    changed_ns = max((_said_ns(one.time, now_ns) for one in metadata.managed_fields or ()), default=0)
    return min(changed_ns, now_ns) or now_ns


def _said_ns(time: datetime | None, now_ns: int) -> int:
    time_ns = int(time.timestamp()) * NS_PER_S if time is not None else 0
    return time_ns if 0 < time_ns < now_ns + CLOCK_OFF_NS else 0
