"""What the user does not want to see: the settings `filters` → the maps and the switch of `include/filter.bpf.h`."""

from __future__ import annotations

import fnmatch
import ipaddress
import struct
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otelbpf.kernel.maps import Map
    from otelbpf.kernel.object import Object

INCLUDE, EXCLUDE = 1, 2
PORTS_INCLUDE, PORTS_EXCLUDE, ADDRESSES_INCLUDE, ADDRESSES_EXCLUDE, CGROUPS_EXCLUDE = 1, 2, 4, 8, 16
MAPPED_BITS = 96
"""The kernel side knows IPv4 addresses as ::ffff:a.b.c.d."""


def lists_used(config: Any) -> int:
    """The lists that the kernel looks at."""
    ports, addresses, cgroups = config.filters.ports, config.filters.addresses, config.filters.cgroups
    lists = (
        (PORTS_INCLUDE, ports.include),
        (PORTS_EXCLUDE, ports.exclude),
        (ADDRESSES_INCLUDE, addresses.include),
        (ADDRESSES_EXCLUDE, addresses.exclude),
        (CGROUPS_EXCLUDE, cgroups.exclude),
    )
    return sum(switch for switch, entries in lists if entries)


def fill(loaded: Object, config: Any, cgroups: Iterable[tuple[int, str]] = ()) -> None:
    """Makes the filters of a loaded object those of *config*: ports, addresses, and which of *cgroups* (id and path) are
    excluded. Its programs may run: what both the former lists and these want is never left out meanwhile.

    Raises OtelbpfError when the kernel does not take an entry.
    """
    room = loaded.map("filter_cgroups").max_entries // 2
    unwanted = (cgroup_id for cgroup_id, path in cgroups if cgroup_verdict(config, path) == EXCLUDE)
    wanted = {
        "filter_ports": {struct.pack("=H", port): verdict for port, verdict in _verdicts(config.filters.ports)},
        "filter_addresses": {prefix(network): verdict for network, verdict in _verdicts(config.filters.addresses)},
        # The line leaves out those beyond, as it does new ones.
        "filter_cgroups": {struct.pack("=Q", cgroup_id): EXCLUDE for cgroup_id in islice(unwanted, room)},
    }
    for name, entries in wanted.items():
        for key, verdict in entries.items():
            loaded.map(name).update(key, bytes([verdict]))
    loaded.set("filter_lists", lists_used(config))
    for name, entries in wanted.items():
        _forget_others(loaded.map(name), entries)


def _forget_others(kept: Map, entries: Mapping[bytes, int]) -> None:
    for key in [key for key in kept if key not in entries]:
        kept.delete(key)


def cgroup_verdict(config: Any, path: str) -> int:
    """INCLUDE, EXCLUDE (which wins) or 0. A pattern holds for what is below the cgroup that it names, too."""
    verdict = 0
    for pattern, verdict_of_list in _verdicts(config.filters.cgroups):
        if fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(path, pattern.rstrip("/") + "/*"):
            verdict = verdict_of_list
    return verdict


def prefix(network: str) -> bytes:
    """A network as the key of the kernel's prefix tree."""
    parsed = ipaddress.ip_network(network, strict=False)
    if isinstance(parsed, ipaddress.IPv4Network):
        return (
            struct.pack("=I", parsed.prefixlen + MAPPED_BITS) + b"\0" * 10 + b"\xff\xff" + parsed.network_address.packed
        )
    return struct.pack("=I", parsed.prefixlen) + parsed.network_address.packed


def _verdicts(chosen: Any) -> Iterable[tuple[Any, int]]:
    """Exclusions last: they win."""
    yield from ((entry, INCLUDE) for entry in chosen.include)
    yield from ((entry, EXCLUDE) for entry in chosen.exclude)
