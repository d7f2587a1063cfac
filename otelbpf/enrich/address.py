"""The two ends of a connection or lookup: what kind of place the peer is, and its name.

Of a connection every address may be new, so none has Facts of its own: addresses stay columns of bytes, and Facts say
only what few peers differ in. The ends of lookups are few: their Facts hold the addresses as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from otelbpf.address_text import is_mapped, raw_addresses, texts
from otelbpf.batch import Categorical, Facts
from otelbpf.enrich.caches import Made
from otelbpf.enrich.hostname import NO_NAMES
from otelbpf.enrich.kubernetes.peers import EDGE_NAMES, NOBODY, End, end_facts, place_of
from otelbpf.native.distinct import distinct, distinct_together, words
from otelbpf.signals import names

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otelbpf.batch import Batch, Column
    from otelbpf.enrich.caches import Counters
    from otelbpf.enrich.hostname import Names
    from otelbpf.enrich.kubernetes.peers import Ends, Peers
    from otelbpf.enrich.machine import Answers

PEERS = 16_384
ENDS = 4096
CLIENT, SERVER = 1, 2
EXTERNAL, HOST, LOOPBACK = "external", "host", "loopback"
KINDS = [(family, place) for family in ("ipv6", "ipv4") for place in (EXTERNAL, HOST, LOOPBACK)]
"""A peer's kind is its place in this list."""
FIRST_OCTET, LOOPBACK_OCTET = 12, 127
LOOPBACK6 = bytes(15) + b"\x01"


class _Peer(NamedTuple):
    """All that is said of a connection's peer is made from."""

    kind: int
    known_as: Names
    end: End = NOBODY
    """What Kubernetes knows of it."""


class _Resolver(NamedTuple):
    """The same of a lookup's."""

    kind: int
    address: str
    role: int
    end: End = NOBODY


class Addresses:
    """Adds the columns `remote` and `edge` (what of the peer may stand on a metric), and who is server and client."""

    def __init__(self, machine: Answers, peers: Peers | None = None) -> None:
        self._machine = machine
        self._cluster = peers
        self._peers: Made[_Peer, tuple[Facts, Facts]] = Made(PEERS, _peer)
        self._resolvers: Made[_Resolver, Facts] = Made(ENDS, _resolver)
        self._locals: Made[tuple[str, int], Facts] = Made(ENDS, _local)

    def of_connections(self, batch: Batch, name_codes: NDArray[np.intp], name_values: list[Names]) -> dict[str, Column]:
        """`remote`, `edge`, and the addresses `server_address` (of a server without a name) and `client_address`.

        *name_codes* says which of *name_values* each row's peer has; code 0 is no name.
        """
        role, local, remote = (batch.rows[name] for name in ("role", "local_address", "remote_address"))
        serving, nameless = role == SERVER, (role == CLIENT) & (name_codes == 0)
        server, client = np.zeros((2, len(batch)), remote.dtype)
        server[serving], client[serving] = local[serving], remote[serving]
        server[nameless] = remote[nameless]
        kinds = self._kinds(remote)
        known = self._ends(batch)
        mixed = (name_codes * len(KINDS) + kinds).astype(np.uint64)
        found = distinct_together((mixed, known.codes.astype(np.uint64))) if known is not None else distinct(mixed)
        named = [name_values[code] for code in name_codes[found.rows].tolist()]
        ends = _of_rows(known, found.rows)
        if self._cluster is not None:
            ends = [self._cluster.named(end, known_as) for end, known_as in zip(ends, named, strict=True)]
        peers = self._peers.of_all(list(map(_Peer, kinds[found.rows].tolist(), named, ends)))
        return {
            **_translated(known),
            "remote": Categorical(found.codes, [peer for peer, _ in peers]),
            "edge": Categorical(found.codes, [edge for _, edge in peers]),
            "server_address": server,
            "client_address": client,
        }

    def of_lookups(self, batch: Batch) -> dict[str, Column]:
        """`local`, `remote` and `edge`: a resolver goes by its address."""
        role, local, remote = (batch.rows[name] for name in ("role", "local_address", "remote_address"))
        here = distinct_together((*words(local), role.astype(np.uint64)))
        known = self._ends(batch)
        codes = () if known is None else (known.codes.astype(np.uint64),)
        there = distinct_together((*words(remote), role.astype(np.uint64), *codes))
        ends = _of_rows(known, there.rows)
        kinds = self._kinds(remote[there.rows]).tolist()
        far = map(_Resolver, kinds, texts(remote[there.rows]), role[there.rows].tolist(), ends)
        near = zip(texts(local[here.rows]), role[here.rows].tolist(), strict=True)
        edges = [
            edge
            for _, edge in self._peers.of_all(
                [_Peer(kind, NO_NAMES, end) for kind, end in zip(kinds, ends, strict=True)]
            )
        ]
        return {
            **_translated(known),
            "local": Categorical(here.codes, self._locals.of_all(list(near))),
            "remote": Categorical(there.codes, self._resolvers.of_all(list(far))),
            "edge": Categorical(there.codes, edges),
        }

    def counters(self) -> Counters:
        return self._peers.counters()

    def _ends(self, batch: Batch) -> Ends | None:
        return None if self._cluster is None else self._cluster.of(batch, self._machine.addresses())

    def _kinds(self, addresses: NDArray[np.void]) -> NDArray[np.intp]:
        """Which of KINDS each address is of."""
        mapped = is_mapped(addresses)
        first_octets = raw_addresses(addresses)[:, FIRST_OCTET]
        loopback = np.where(mapped, first_octets == LOOPBACK_OCTET, addresses == np.void(LOOPBACK6))
        own = self._machine.addresses()
        places = loopback * 2
        elsewhere = np.flatnonzero(~loopback)
        if own and len(elsewhere):
            places[elsewhere] = [address in own for address in addresses[elsewhere].tolist()]
        kinds: NDArray[np.intp] = places + 3 * mapped
        return kinds


def _of_rows(known: Ends | None, rows: NDArray[np.intp]) -> list[End]:
    return [NOBODY] * len(rows) if known is None else [known.values[code] for code in known.codes[rows].tolist()]


def _translated(known: Ends | None) -> dict[str, Column]:
    """Where connections truly lead; without Kubernetes nobody asks."""
    return {} if known is None else {"nat_port": known.nat_ports, "nat_address": known.nat_addresses}


def _said(kind: int, end: End) -> dict[str, object]:
    family, place = KINDS[kind]
    if place != LOOPBACK:
        place = place_of(end, own=place == HOST) or ("" if end.is_unsure else place)
    told: dict[str, object] = {names.NETWORK_TYPE: family}
    if place:
        told[names.OTELBPF_PEER_TYPE] = place
    return told | end_facts(end)


def _peer(key: _Peer) -> tuple[Facts, Facts]:
    """What is known of a connection's peer, and its edge."""
    known_as = key.known_as
    facts = _said(key.kind, key.end)
    edge: dict[str, object] = {name: facts[name] for name in (names.OTELBPF_PEER_TYPE, *EDGE_NAMES) if name in facts}
    if known_as:
        facts[names.SERVER_ADDRESS] = facts[names.NET_PEER_NAME] = edge[names.SERVER_ADDRESS] = known_as[0]
    if len(known_as) > 1:
        facts[names.OTELBPF_PEER_NAMES] = list(known_as)
    return Facts(facts), Facts(edge)


def _resolver(key: _Resolver) -> Facts:
    told = {CLIENT: [names.SERVER_ADDRESS], SERVER: [names.CLIENT_ADDRESS]}.get(key.role, [])
    addresses = dict.fromkeys([names.NETWORK_PEER_ADDRESS, *told], key.address) if key.address else {}
    return Facts(_said(key.kind, key.end) | addresses)


def _local(key: tuple[str, int]) -> Facts:
    text, role = key
    told = [names.NETWORK_LOCAL_ADDRESS, *[names.SERVER_ADDRESS] * (role == SERVER)]
    return Facts(dict.fromkeys(told, text) if text else {})
