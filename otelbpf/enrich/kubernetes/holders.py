"""Who holds an address, and who held it when: pods, services and nodes.

The API tells of changes a moment after they happen, but an address is given to the next pod only after the last one
has let it go. So of two who claim one for the same moment, one of whom the API had told by then that it has it is right,
the one made last if it had of both; else the earlier as long as it is known to have ended later, else the one made last.
After an outage of the API server nobody knows when one let an address go and the next got it: for the time in which
either may have had it, only what is true of both is said.
"""

from __future__ import annotations

from collections import deque
from socket import AF_INET, AF_INET6, inet_pton
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NS_PER_S = 10**9
SKEW_NS = 10 * NS_PER_S
"""Clocks of the API server and of this node may differ so much; times of making are in whole seconds besides."""
ENDED_FOR_NS = 300 * NS_PER_S
"""Connections to a pod that is gone still end for some minutes."""
ENDED_HOLDERS = 65_536
"""Remembered at most: thirteen thousand ends a minute, in the whole cluster."""
HOLDERS_OF_ADDRESS = 32
"""A thousand pods a minute on a node with 250 addresses are twenty of each in five minutes."""
MAPPED = bytes(10) + b"\xff\xff"
ADDRESS_BITS, MAPPED_BITS = 128, 96
POD, SERVICE, NODE = "pod", "service", "node"
Network = tuple[int, int]
"""The leading bits of its addresses as a number, and how many they are."""


class Holder(Struct, eq=False, gc=False):
    """Something that has addresses. Compared by identity: what is said of it never changes, only when it ended."""

    kind: str
    name: str
    namespace: str = ""
    uid: str = ""
    node: str = ""
    workload_kind: str = ""
    workload_name: str = ""
    service_name: str = ""
    service_namespace: str = ""
    begins_ns: int = 0
    """Unix time at which it was made; 0: not known."""
    ends_ns: int = 0
    """Unix time at which it was seen to have ended; 0: it is there."""
    ports: tuple[int, ...] = ()
    """Of a service, or of a pod behind one: to tell several that share an address apart."""
    told_ns: int = 0
    """Unix time at which the API said first that it has its addresses."""
    seen_ns: int = 0
    """Unix time until which it certainly had them, where that is long before it was seen to have ended; 0: it is not."""

    def same(self, other: Holder) -> bool:
        """Whether the same is said of both."""
        return self.said() == other.said()

    def said(self) -> tuple[object, ...]:
        return tuple(getattr(self, field) for field in _SAID)

    def held(self, time_ns: int) -> bool:
        return self.begins_ns - SKEW_NS <= time_ns and (not self.ends_ns or time_ns < self.ends_ns)

    def surely(self, time_ns: int) -> bool:
        """Of one that held at *time_ns* as far as is known: whether the API was heard then."""
        return 0 < self.told_ns <= time_ns and (not self.seen_ns or time_ns <= self.seen_ns)


_SAID = tuple(field for field in Holder.__struct_fields__ if field not in ("ends_ns", "told_ns", "seen_ns"))


class Holders:
    """Address → who holds it or held it. Changed by one thread, read by others: what is read is never changed."""

    def __init__(self) -> None:
        self._of: dict[bytes, tuple[Holder, ...]] = {}
        self._ended: deque[tuple[int, Holder, tuple[bytes, ...]]] = deque()
        self.networks: dict[Network, Holder] = {}
        """The addresses that a node gives to its pods. Replaced as a whole when they change."""
        self.lengths: tuple[int, ...] = ()
        """Of these networks, longest first."""

    def __len__(self) -> int:
        return len(self._of)

    def of(self, address: bytes) -> tuple[Holder, ...]:
        """All who claim or claimed *address*, the newest last; of one that nobody does the node whose pods have such."""
        return self._of.get(address) or (self._around(address) if self.lengths else ())

    def _around(self, address: bytes) -> tuple[Holder, ...]:
        number = int.from_bytes(address, "big")
        for length in self.lengths:
            found = self.networks.get((number >> (ADDRESS_BITS - length), length))
            if found is not None:
                return (found,)
        return ()

    def add(self, holder: Holder, addresses: Iterable[bytes]) -> None:
        """*holder* has *addresses* from now on."""
        for address in addresses:
            claims = self._of.get(address)
            if claims is not None:
                others = tuple(claim for claim in claims if claim is not holder)
                self._of[address] = (*others, holder)[-HOLDERS_OF_ADDRESS:]
            else:
                self._of[address] = (holder,)

    def end(self, holder: Holder, addresses: Sequence[bytes], now_ns: int, seen_ns: int = 0) -> None:
        """*holder* has lost *addresses* at *now_ns*, or since *seen_ns* if that is not 0; before, they were its."""
        holder.ends_ns, holder.seen_ns = now_ns, seen_ns
        self._ended.append((now_ns, holder, tuple(addresses)))
        if len(self._ended) > ENDED_HOLDERS:
            self._forget_oldest()

    def replace(self, old: Holder, new: Holder, addresses: Iterable[bytes]) -> None:
        """*new* is another description of *old*, for all times."""
        for address in addresses:
            claims = self._of.get(address, ())
            if old in claims:
                self._of[address] = tuple(new if claim is old else claim for claim in claims)

    def drop(self, holder: Holder, addresses: Iterable[bytes]) -> None:
        """*holder* never had *addresses*, as far as anyone will ask."""
        for address in addresses:
            left = tuple(claim for claim in self._of.get(address, ()) if claim is not holder)
            if left:
                self._of[address] = left
            else:
                self._of.pop(address, None)

    def forget_ended(self) -> None:
        """Forgets all who have ended, now."""
        self.sweep(self._ended[-1][0] + ENDED_FOR_NS + 1 if self._ended else 0)

    def sweep(self, now_ns: int) -> None:
        """Forgets those who ended long ago."""
        while self._ended and self._ended[0][0] + ENDED_FOR_NS < now_ns:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        _, holder, addresses = self._ended.popleft()
        self.drop(holder, addresses)


def held_by(claims: Sequence[Holder], time_ns: int, port: int = 0) -> Holder | None:
    """Who of *claims* had the address at *time_ns* (Unix time); *port* tells services that share one apart."""
    holding = [claim for claim in claims if claim.held(time_ns)]
    holding = [claim for claim in holding if claim.kind == NODE] or holding  # a node shares its address with some pods
    if port and len(holding) > 1:
        holding = [claim for claim in holding if port in claim.ports] or holding
    if len(holding) > 1:
        holding = _by_one_service(holding)
    told = [claim for claim in holding if 0 < claim.told_ns <= time_ns]
    sure = [claim for claim in told if claim.surely(time_ns)]
    if told and not sure and len({claim.uid for claim in holding}) > 1:
        return _in_common(holding)
    if told:
        return max(sure or told, key=lambda claim: claim.begins_ns)
    ended = [claim for claim in holding if claim.ends_ns]
    if ended:
        return min(ended, key=lambda claim: claim.ends_ns)
    if holding:
        return max(holding, key=lambda claim: claim.begins_ns)
    before = [claim for claim in claims if claim.ends_ns and claim.ends_ns <= time_ns]
    return max(before, key=lambda claim: claim.ends_ns, default=None)


def _in_common(holding: Sequence[Holder]) -> Holder | None:
    """What is true whoever of *holding* it is: the pods of a deployment follow each other, and a node has its addresses."""
    first, *others = holding

    def same(*fields: str) -> list[str]:
        values = [getattr(first, field) for field in fields]
        alike = all([getattr(other, field) for field in fields] == values for other in others)
        return values if alike else [""] * len(fields)

    if not any(same("kind")):
        return None
    (name,), (namespace,), (uid,), (node,) = (same(field) for field in ("name", "namespace", "uid", "node"))
    workload_kind, workload_name = same("workload_kind", "workload_name")
    service_name, service_namespace = same("service_name", "service_namespace")
    return Holder(first.kind, name, namespace, uid, node, workload_kind, workload_name, service_name, service_namespace)


def _by_one_service(holding: Sequence[Holder]) -> list[Holder]:
    """What is behind several services, which nothing tells apart, is said to be of the first by name, so that every node
    says the same."""
    pods = [(claim.uid, claim.namespace, claim.name) for claim in holding]
    first = dict(sorted(((pod, claim.service_name) for pod, claim in zip(pods, holding, strict=True)), reverse=True))
    return [claim for pod, claim in zip(pods, holding, strict=True) if claim.service_name == first[pod]]


def packed(text: str | None) -> bytes | None:
    """An address as the kernel side writes it, 16 bytes; None for what is none."""
    try:
        if not text:
            return None
        return inet_pton(AF_INET6, text) if ":" in text else MAPPED + inet_pton(AF_INET, text)
    except OSError:
        return None


def may_be_of_pods(address: bytes) -> bool:
    """Whether pods are given such addresses: IPv6, and the private ones of IPv4."""
    if not address.startswith(MAPPED):
        return True
    number = int.from_bytes(address, "big")
    return any(number >> (ADDRESS_BITS - length) == bits for bits, length in _PRIVATE)


def network(text: str) -> Network | None:
    """A network such as 10.244.1.0/24; None for what is none."""
    address, slash, bits = text.partition("/")
    base = packed(address)
    if base is None or not slash or not bits.isdecimal():
        return None
    length = int(bits) + (0 if ":" in address else MAPPED_BITS)
    return (int.from_bytes(base, "big") >> (ADDRESS_BITS - length), length) if length <= ADDRESS_BITS else None


def packed_all(texts: Iterable[str | None]) -> tuple[bytes, ...]:
    """The addresses among *texts*, each once, in order."""
    return tuple(dict.fromkeys(filter(None, map(packed, texts))))


_PRIVATE = tuple(
    found
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16")
    if (found := network(text)) is not None
)
"""RFC 1918, RFC 6598, RFC 3927."""
