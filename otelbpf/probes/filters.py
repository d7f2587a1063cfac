"""What the user does not want to see: the settings `filters` → the knobs and maps of `include/filter.bpf.h`."""

from __future__ import annotations

import fnmatch
import ipaddress
import struct
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otelbpf.kernel.object import Object

INCLUDE, EXCLUDE = 1, 2
MAPPED_BITS = 96
"""The kernel side knows IPv4 addresses as ::ffff:a.b.c.d."""


def constants(config: Any) -> Mapping[str, int]:
    """The knobs that say which lists are used; `self_pid` is set by whoever knows it."""
    filters = config.filters
    return {
        "filter_ports_include": bool(filters.ports.include),
        "filter_ports_exclude": bool(filters.ports.exclude),
        "filter_addresses_include": bool(filters.addresses.include),
        "filter_addresses_exclude": bool(filters.addresses.exclude),
        "filter_cgroups_exclude": bool(filters.cgroups.exclude),
    }


def fill(loaded: Object, config: Any, cgroups: Iterable[tuple[int, str]] = ()) -> None:
    """Puts ports, addresses and those *cgroups* (id and path) that are excluded into the maps of a loaded object,
    before it is attached."""
    ports, addresses = config.filters.ports, config.filters.addresses
    for port, verdict in _verdicts(ports):
        loaded.map("filter_ports").update(struct.pack("=H", port), bytes([verdict]))
    for network, verdict in _verdicts(addresses):
        loaded.map("filter_addresses").update(prefix(network), bytes([verdict]))
    excluded = loaded.map("filter_cgroups")
    unwanted = (cgroup_id for cgroup_id, path in cgroups if cgroup_verdict(config, path) == EXCLUDE)
    for cgroup_id in islice(unwanted, excluded.max_entries):  # the line leaves out those beyond, as it does new ones
        excluded.update(struct.pack("=Q", cgroup_id), bytes([EXCLUDE]))


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
