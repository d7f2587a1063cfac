"""Where the session happens, what was caused there, and what arrived."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.e2e.collector import Protocol, latest
from tests.e2e.netns import Namespaces, inode, ip
from tests.e2e.processes import copy_program
from tests.load.programs import Place, program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e import expect
    from tests.e2e.agent import Summary
    from tests.e2e.otlp_json import Point, Record


CLIENT, SERVER, RESOLVER, SILENT = "10.211.0.2", "10.211.0.1", "10.211.0.3", "10.211.0.4"
CLIENT6, SERVER6 = "fd11::2", "fd11::1"
SILENT_PORT = 81
REFUSED_BY_ROUTE = {"10.98.0.1": "unreachable", "10.98.0.2": "prohibit"}
"""Destinations that the client's own routes refuse, before any packet is made."""


@dataclass
class Session:
    """What was caused (*expected*, *totals*) and what arrived."""

    agent_pid: int = 0
    expected: list[expect.Expected] = field(default_factory=list)
    processes: list[expect.Expected] = field(default_factory=list)
    rounds: list[tuple[float, float]] = field(default_factory=list)
    """Bytes of a living connection at some moments: caused, and as the metrics had them."""
    records: dict[Protocol, list[Record]] = field(default_factory=dict)
    points: dict[Protocol, list[Point]] = field(default_factory=dict)
    netns: frozenset[int] = frozenset()
    services: frozenset[str] = frozenset()
    summary: Summary | None = None
    exit_code: int | None = None
    began_ns: int = 0
    ended_ns: int = 0

    def network_records(self, protocol: Protocol) -> list[Record]:
        """The network records of our namespaces, but for the TCP connections that carried DNS."""
        return [
            record
            for record in self.records[protocol]
            if record["otelbpf.netns"] in self.netns and not is_dns_connection(record)
        ]

    def process_records(self, protocol: Protocol) -> list[Record]:
        """The records of the processes that were started for their own sake."""
        pids = {one.owner.pid for one in self.processes}
        return [
            record for record in self.records[protocol] if record["process.pid"] in pids and "process" in record.scope
        ]

    def total(self, protocol: Protocol, metric: str, **attributes: Any) -> Counter[tuple[Any, ...]]:
        """The sums of *metric* at the end, by service and the attributes named (double underscore for a dot)."""
        names = [name.replace("__", ".") for name, wanted in attributes.items() if wanted]
        sums: Counter[tuple[Any, ...]] = Counter()
        for point in latest(self.points[protocol]):
            if point.metric == metric and point.resource.get("service.name") in self.services:
                key = (point.resource["service.name"], *(point.attributes.get(name) for name in names))
                sums[key] += point.count if point.kind == "histogram" else int(point.value)
        return sums


def is_dns_connection(record: Record) -> bool:
    """Whether this is a TCP connection made for a lookup: its bytes are checked against its other end instead."""
    return "tcp" in record.scope and 53 in (record["network.peer.port"], record["network.local.port"])


@dataclass
class Stage:
    """Where the session happens: two namespaces and a link, the processes, the collector, the notes."""

    directory: Path
    client: str
    server: str
    session: Session

    @property
    def netns(self) -> tuple[int, int]:
        return inode(self.client), inode(self.server)

    def place(self, namespace: str, name: str, role: str) -> Place:
        """Program *name* under the name of its *role*."""
        path = self.directory / role
        return Place(namespace, path if path.exists() else copy_program(program(name), self.directory, role))


@contextmanager
def stage(directory: Path) -> Iterator[Stage]:
    """Two namespaces, IPv4 and IPv6, a silent port, addresses for three resolvers."""
    with Namespaces("e2e") as spaces:
        client, server = spaces.add("client"), spaces.add("server")
        addresses = [f"{SERVER}/24", f"{RESOLVER}/24", f"{SILENT}/24", f"{SERVER6}/64"]
        spaces.link(client, [f"{CLIENT}/24", f"{CLIENT6}/64"], server, addresses)
        spaces.resolver(client, SERVER)
        for address, kind in REFUSED_BY_ROUTE.items():
            ip("-n", client, "route", "add", kind, address)
        for words in ("add table inet silence", "add chain inet silence in { type filter hook input priority 0; }"):
            spaces.run(server, "nft", *words.split())
        spaces.run(server, "nft", *f"add rule inet silence in tcp dport {SILENT_PORT} drop".split())
        session = Session(netns=frozenset({inode(client), inode(server)}))
        yield Stage(directory, client, server, session)
