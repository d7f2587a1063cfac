"""The two ends of a connection or lookup: addresses as text, what kind of place the peer is, and its name.

Made once an address (and role and name); rows carry integers. Caches are small on purpose: making an address again
costs two microseconds, keeping a hundred thousand of them a hundred megabytes.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from otelbpf.batch import Categorical, Facts
from otelbpf.enrich.distinct import distinct_together, words
from otelbpf.enrich.kubernetes.holders import NODE
from otelbpf.enrich.kubernetes.peers import EDGE_NAMES, NOBODY, End, end_facts
from otelbpf.enrich.memory import Made
from otelbpf.signals import names

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otelbpf.batch import Batch, Column
    from otelbpf.enrich.hostname import Names
    from otelbpf.enrich.kubernetes.peers import Peers
    from otelbpf.enrich.machine import Answers
    from otelbpf.enrich.memory import Counters

PEERS = 8192
OWN = 4096
EDGES = 16_384
CLIENT, SERVER = 1, 2
LOOPBACK, HOST, EXTERNAL = "loopback", "host", "external"
MAPPED = bytes(10) + b"\xff\xff"
NOWHERE = frozenset({bytes(16), MAPPED + bytes(4)})
"""What the kernel has when a connect fails before a route was found."""
DECIMAL = tuple(str(byte) for byte in range(256))
"""Half of the time that inet_ntop takes."""
LOOPBACK6 = bytes(15) + b"\x01"
LOOPBACK4 = MAPPED + b"\x7f"


class _Peer(NamedTuple):
    """All that the columns of a peer are made from."""

    address: bytes
    role: int
    known_as: Names
    end: End
    """What Kubernetes knows of it."""


class Addresses:
    """Adds the columns `local`, `remote` and `edge` (what of the peer may stand on a metric)."""

    def __init__(self, machine: Answers, peers: Peers | None = None) -> None:
        self._machine = machine
        self._cluster = peers
        self._own: frozenset[bytes] = frozenset()
        self._peers: Made[_Peer, tuple[Facts, Facts]] = Made(PEERS, self._peer)
        self._locals: Made[tuple[bytes, bool], Facts] = Made(OWN, _local)
        self._edges: Made[_Edge, Facts] = Made(EDGES, _edge)

    def columns(self, batch: Batch, name_codes: NDArray[np.intp], name_values: list[Names]) -> dict[str, Column]:
        """The three columns; *name_codes* says which of *name_values* each row's peer has."""
        own = self._machine.addresses()
        if own != self._own:
            self._own = own
            self._peers.clear()
        return {"local": self._local_column(batch), **self._peer_columns(batch, name_codes, name_values)}

    def counters(self) -> Counters:
        return self._peers.counters()

    def _local_column(self, batch: Batch) -> Categorical:
        addresses = batch.rows["local_address"]
        serving = batch.rows["role"] == SERVER
        found = distinct_together((*words(addresses), serving.astype(np.uint64)))
        keys = list(zip(addresses[found.rows].tolist(), serving[found.rows].tolist(), strict=True))
        return Categorical(found.codes, self._locals.of_all(keys))

    def _peer_columns(self, batch: Batch, name_codes: NDArray[np.intp], name_values: list[Names]) -> dict[str, Column]:
        addresses, roles = batch.rows["remote_address"], batch.rows["role"]
        mixed = name_codes.astype(np.uint64) << np.uint64(8) | roles
        columns: dict[str, Column] = {}
        if self._cluster is None:
            found = distinct_together((*words(addresses), mixed))
            ends = [NOBODY] * len(found.rows)
        else:
            known = self._cluster.of(batch, self._own)
            found = distinct_together((*words(addresses), mixed, known.codes.astype(np.uint64)))
            ends = [known.values[code] for code in known.codes[found.rows].tolist()]
            columns["nat_port"] = known.nat_ports
        named = [name_values[code] for code in name_codes[found.rows].tolist()]
        if self._cluster is not None:
            ends = [self._cluster.named(end, names) if names else end for end, names in zip(ends, named, strict=True)]
        keys = list(
            map(_Peer, addresses[found.rows].tolist(), roles[found.rows].tolist(), named, ends),
        )
        peers = self._peers.of_all(keys)
        edges: dict[Facts, int] = {}
        edge_codes = np.array([edges.setdefault(edge, len(edges)) for _, edge in peers], dtype=np.intp)
        return {
            **columns,
            "remote": Categorical(found.codes, [remote for remote, _ in peers]),
            "edge": Categorical(edge_codes[found.codes], list(edges)),
        }

    def _peer(self, key: _Peer) -> tuple[Facts, Facts]:
        address, role, known_as = key.address, key.role, key.known_as
        place = self._place(key)
        of_cluster = end_facts(key.end)
        facts: dict[str, object] = {names.NETWORK_TYPE: _family(address), names.OTELBPF_PEER_TYPE: place, **of_cluster}
        if address not in NOWHERE:
            facts[names.NETWORK_PEER_ADDRESS] = text = address_text(address)
            if role == CLIENT:
                facts[names.SERVER_ADDRESS] = known_as[0] if known_as else text
            elif role == SERVER:
                facts[names.CLIENT_ADDRESS] = text
        if key.end.nat_address:
            facts[names.OTELBPF_NAT_PEER_ADDRESS] = address_text(key.end.nat_address)
        if known_as:
            facts[names.NET_PEER_NAME] = known_as[0]
        if len(known_as) > 1:
            facts[names.OTELBPF_PEER_NAMES] = list(known_as)
        edge = tuple((name, of_cluster[name]) for name in EDGE_NAMES if name in of_cluster)
        return Facts(facts), self._edges.of(_Edge(place, known_as[0] if known_as else "", edge))

    def _place(self, key: _Peer) -> str:
        if key.address[:13] == LOOPBACK4 or key.address == LOOPBACK6:
            return LOOPBACK
        if key.address in self._own and (key.end.holder is None or key.end.holder.kind == NODE):
            return HOST
        return EXTERNAL if key.end.holder is None else key.end.holder.kind


def address_text(address: bytes) -> str:
    """Sixteen bytes as text; a mapped IPv4 address with dots."""
    if address[:12] == MAPPED:
        return f"{DECIMAL[address[12]]}.{DECIMAL[address[13]]}.{DECIMAL[address[14]]}.{DECIMAL[address[15]]}"
    return socket.inet_ntop(socket.AF_INET6, address)


def _family(address: bytes) -> str:
    return "ipv4" if address[:12] == MAPPED else "ipv6"


def _local(key: tuple[bytes, bool]) -> Facts:
    address, serving = key
    if address in NOWHERE:
        return Facts()
    text = address_text(address)
    return Facts({names.NETWORK_LOCAL_ADDRESS: text, **({names.SERVER_ADDRESS: text} if serving else {})})


class _Edge(NamedTuple):
    place: str
    name: str
    of_cluster: tuple[tuple[str, str], ...]


def _edge(key: _Edge) -> Facts:
    named: dict[str, str] = {names.SERVER_ADDRESS: key.name} if key.name else {}
    return Facts({names.OTELBPF_PEER_TYPE: key.place} | named | dict(key.of_cluster))
