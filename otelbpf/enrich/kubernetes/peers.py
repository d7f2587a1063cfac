"""The other ends of connections, as Kubernetes knows them: rows → who had the address when it happened.

Almost all addresses have one holder for all times, so that is a look at a dictionary for each distinct address; only
addresses that changed hands, ports on nodes and translated connections are looked at row by row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from otelbpf.enrich.kubernetes.holders import MAPPED, NODE, POD, SERVICE, SKEW_NS, Holder, held_by
from otelbpf.native.distinct import distinct_together, words
from otelbpf.signals import names

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otelbpf.batch import Batch
    from otelbpf.enrich.kubernetes.cluster import Cluster

CLIENT = 1
TCP = 6
FIRST_OCTET, LOOPBACK_OCTET = 12, 127
LOOPBACK6 = bytes(15) + b"\x01"
EDGE_NAMES = (
    names.SERVICE_PEER_NAME,
    names.SERVICE_PEER_NAMESPACE,
    names.OTELBPF_PEER_K8S_NAMESPACE_NAME,
    names.OTELBPF_PEER_K8S_WORKLOAD_NAME,
    names.OTELBPF_PEER_K8S_WORKLOAD_KIND,
)
"""What of a peer may stand on a metric."""


class End(NamedTuple):
    """What is known of one other end."""

    holder: Holder | None = None
    """Who has the address that the socket sees."""
    behind: Holder | None = None
    """The true other end, where the address was translated."""
    is_unsure: bool = False
    """Whether somebody of the cluster may be there whom nobody has told of."""


NOBODY = End()
UNSURE = End(is_unsure=True)
OUTSIDE = Holder("external", "")
"""The true other end where it is none of the cluster's."""


class Ends(NamedTuple):
    """Row *i* has the end ``values[codes[i]]`` and, if it was translated, truly leads to
    ``nat_addresses[i]`` and ``nat_ports[i]``, else zeros."""

    codes: NDArray[np.intp]
    values: list[End]
    nat_addresses: NDArray[np.void]
    nat_ports: NDArray[np.uint16]


class Peers:
    """Rows → the other end of each."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def of(self, batch: Batch, own: frozenset[bytes]) -> Ends:
        """The other ends of a batch's rows; *own* are this node's addresses."""
        rows = batch.rows
        addresses = rows["remote_address"]
        found = distinct_together(words(addresses))
        distinct = addresses[found.rows].tolist()
        claims = [self._cluster.holders(address) for address in distinct]
        values = _Values()
        times_ns = _times_ns(batch)
        ends = [
            End(one[0]) if one else self._nobody(address, own) for address, one in zip(distinct, claims, strict=True)
        ]
        first = np.array([values.code(end) for end in ends], dtype=np.intp)
        begins_ns = np.array([one[0].begins_ns - SKEW_NS if one else 0 for one in claims], dtype=np.int64)
        codes = np.where(times_ns >= begins_ns[found.codes], first[found.codes], 0)
        several = np.array([len(one) > 1 for one in claims], dtype=bool)[found.codes]
        for row in np.flatnonzero(several).tolist() if several.any() else ():
            port = int(rows["remote_port"][row])
            codes[row] = values.code(End(held_by(claims[found.codes[row]], int(times_ns[row]), port)))
        of_nodes = [
            (address in own and not is_loopback(address)) or any(claim.kind == NODE for claim in one)
            for address, one in zip(distinct, claims, strict=True)
        ]
        self._name_node_ports(batch, np.array(of_nodes, dtype=bool)[found.codes], codes, values)
        translated = np.array([self._cluster.translates(address) for address in distinct], dtype=bool)[found.codes]
        return Ends(codes, values.ends, *self._see_through(batch, translated, codes, values, times_ns, own))

    def _nobody(self, address: bytes, own: frozenset[bytes]) -> End:
        return NOBODY if address in own or self._cluster.is_complete_for(address) else UNSURE

    def named(self, end: End, known_as: tuple[str, ...]) -> End:
        """The end, with what a service of type ExternalName says of the host *known_as*."""
        if end.holder is not None:
            return end
        holder = next((found for name in known_as if (found := self._cluster.outside(name)) is not None), None)
        return end if holder is None else end._replace(holder=holder)

    def _name_node_ports(
        self, batch: Batch, to_nodes: NDArray[np.bool_], codes: NDArray[np.intp], values: _Values
    ) -> None:
        """Clients of a service at a port that every node has for it."""
        if not to_nodes.any():
            return
        ports = batch.rows["remote_port"]
        for row in np.flatnonzero(to_nodes & (batch.rows["role"] == CLIENT)).tolist():
            holder = self._cluster.at_node_port(int(ports[row]))
            if holder is not None:
                codes[row] = values.code(End(holder))

    def _see_through(
        self,
        batch: Batch,
        translated: NDArray[np.bool_],
        codes: NDArray[np.intp],
        values: _Values,
        times_ns: NDArray[np.int64],
        own: frozenset[bytes],
    ) -> tuple[NDArray[np.void], NDArray[np.uint16]]:
        """Finds who is behind addresses that were translated; gives the true addresses and ports."""
        nat_addresses = np.zeros(len(batch), dtype="V16")
        nat_ports = np.zeros(len(batch), dtype=np.uint16)
        rows = batch.rows
        protocols = rows["transport"] if "transport" in (rows.dtype.names or ()) else None
        began_ns = _began_ns(rows) if translated.any() else np.zeros(0, dtype=np.int64)
        for row in np.flatnonzero(translated).tolist() if translated.any() else ():
            one = rows[row]
            protocol = TCP if protocols is None else int(protocols[row])
            local, remote = one["local_address"].item(), one["remote_address"].item()
            ends = (protocol, local, int(one["local_port"]), remote, int(one["remote_port"]))
            true = self._cluster.true_end(ends, int(began_ns[row])) if began_ns[row] else None
            if true is not None:
                address, port = true
                nat_addresses[row], nat_ports[row] = np.void(address), port
                holder = held_by(self._cluster.holders(address), int(times_ns[row]), port)
                seen = values.ends[codes[row]].holder
                if holder is not None or address in own:
                    end = End(seen, holder)
                elif self._cluster.is_complete_for(address):
                    end = End(seen, OUTSIDE)
                else:  # the node in whose place it is seen says nothing of it
                    end = End(seen if seen is not None and seen.kind == SERVICE else None, is_unsure=True)
                codes[row] = values.code(end)
        return nat_addresses, nat_ports


class _Values:
    """Distinct ends; code 0 is nobody."""

    def __init__(self) -> None:
        self.ends = [NOBODY]
        self._places = {NOBODY: 0}

    def code(self, end: End) -> int:
        code = self._places.setdefault(end, len(self.ends))
        if code == len(self.ends):
            self.ends.append(end)
        return code


def end_facts(end: End) -> dict[str, str]:
    """What is said of an end: the service by its address, the workload, pod and node of who truly answers."""
    seen, true = end.holder, end.behind or end.holder
    if seen is None or true is None:
        seen = true = true or seen
    if seen is None or true is None:
        return {}
    of_pod = true.kind == POD
    service = seen if seen.kind == SERVICE else true
    found = {
        names.OTELBPF_PEER_K8S_SERVICE_NAME: seen.name if seen.kind == SERVICE else _selecting(true),
        names.OTELBPF_PEER_K8S_NAMESPACE_NAME: true.namespace or seen.namespace,
        names.OTELBPF_PEER_K8S_WORKLOAD_NAME: true.workload_name,
        names.OTELBPF_PEER_K8S_WORKLOAD_KIND: true.workload_kind,
        names.OTELBPF_PEER_K8S_POD_NAME: true.name if of_pod else "",
        names.OTELBPF_PEER_K8S_POD_UID: true.uid if of_pod else "",
        names.OTELBPF_PEER_K8S_NODE_NAME: true.node,
        names.SERVICE_PEER_NAME: service.service_name,
        names.SERVICE_PEER_NAMESPACE: service.service_namespace,
    }
    return {name: value for name, value in found.items() if value}


def place_of(end: End, *, own: bool) -> str:
    """What kind of thing an end is: the service that was asked for, else whoever is truly there. Empty where nobody
    knows more than the address tells, as of most of this node's *own*."""
    seen = end.holder
    true = seen if seen is not None and seen.kind == SERVICE else end.behind or seen
    if true is None or (own and (true.kind == NODE or not (true.name or end.behind))):
        return ""
    return true.kind


def is_loopback(address: bytes) -> bool:
    """Every network namespace has these of its own."""
    return address == LOOPBACK6 or (address[:FIRST_OCTET] == MAPPED and address[FIRST_OCTET] == LOOPBACK_OCTET)


def _selecting(pod: Holder) -> str:
    """EndpointSlices tell the service of a pod, but not its workload."""
    return pod.service_name if pod.kind == POD and not pod.workload_name else ""


def _times_ns(batch: Batch) -> NDArray[np.int64]:
    """When each row's connection began, else when it happened; Unix time."""
    times_ns = batch.rows["head"]["time_ns"].astype(np.int64)
    if "start_ns" in (batch.rows.dtype.names or ()):
        start_ns = batch.rows["start_ns"].astype(np.int64)
        times_ns = np.where(start_ns > 0, start_ns, times_ns)
    result: NDArray[np.int64] = times_ns + batch.clock_offset_ns
    return result


def _began_ns(rows: NDArray[np.void]) -> NDArray[np.int64]:
    """When each row's connection began, else when its question was asked; CLOCK_BOOTTIME, which nobody sets. 0: not known,
    as of connections that are older than the agent."""
    fields = rows.dtype.names or ()
    if "start_ns" in fields:
        return rows["start_ns"].astype(np.int64)
    times_ns: NDArray[np.int64] = rows["head"]["time_ns"].astype(np.int64)
    return times_ns - rows["latency_ns"].astype(np.int64) if "latency_ns" in fields else times_ns
