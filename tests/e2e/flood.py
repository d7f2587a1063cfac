"""One container that floods and ten that do little, each with both ends of its traffic; and what each of them did."""

from __future__ import annotations

import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.e2e.netns import Namespaces, ip
from tests.kernel.cgroups import Cgroup, cgroup
from tests.load import dns, tcp
from tests.load.programs import Place

if TYPE_CHECKING:
    from collections.abc import Iterator

NEIGHBOURS = 10
NETWORK = "10.231.0.0/24"
MIX = {"normal": 5, "refused": 2, "server_resets": 1, "client_resets": 1, "server_closes": 1}
ASKED = {"a": 4, "n": 1, "r": 1}
CLIENT, SERVER = "client", "server"
LIMITS = {"rate": 100, "burst": 100}
"""So many events of a kind a neighbour may have in a round and all are told, however slow the machine."""
SCRIPT = "i=0; while [ $i -lt {count} ]; do /bin/true; /bin/false; i=$((i+1)); done; kill -9 $$"

Key = tuple[str, ...]


@dataclass
class Container:
    """One of them: where it runs, and what it has done so far, as points of metrics would say it."""

    cgroup: Cgroup
    place: Place
    address: str
    caused: Counter[Key] = field(default_factory=Counter)
    connections: list[tcp.Connection] = field(default_factory=list)
    lookups: list[dns.Lookup] = field(default_factory=list)

    @property
    def id(self) -> str:
        return self.cgroup.container_id

    def connect(self, count: int) -> None:
        truth = tcp.tcp_load(tcp.Plan(count, MIX, address=self.address, spread=500), self.place, self.place)
        client, done = truth.client, self.caused
        self.connections += truth.connections
        for role, sent, received in ((CLIENT, "sent", "received"), (SERVER, "received", "sent")):
            done["connections", role, ""] += truth.established
            done["io", role, "transmit"] += client[sent]
            done["io", role, "receive"] += client[received]
        done["connections", CLIENT, "connection_refused"] += truth.failed
        kinds = client["by_kind"]
        for end, kind in ((CLIENT, "client_resets"), (SERVER, "server_resets")):
            other = CLIENT if end == SERVER else SERVER
            done["resets", end, "transmit"] += kinds[kind]
            done["resets", other, "receive"] += kinds[kind]
            done["closes", end, "reset_local"] += kinds[kind]
            done["closes", other, "reset_remote"] += kinds[kind]
        for end, kind in ((CLIENT, "normal"), (SERVER, "server_closes")):
            other = CLIENT if end == SERVER else SERVER
            done["closes", end, "fin_local"] += kinds[kind]
            done["closes", other, "fin_remote"] += kinds[kind]

    def ask(self, count: int) -> None:
        plan = dns.Plan(count, ASKED, address=self.address, port=53)
        truth = dns.dns_load(plan, self.place, self.place)
        self.lookups += truth.lookups
        for (_, code), answers in truth.answered.items():
            for role in (CLIENT, SERVER):
                self.caused["queries", role, dns.RCODE_NAMES[code]] += answers

    def fork(self, count: int) -> None:
        """The shell itself is executed in here too, and killed."""
        subprocess.run([*self.cgroup.words(), "sh", "-c", SCRIPT.format(count=count)], check=False)
        self.caused["execs", ""] += 2 * count + 1
        self.caused["exits", "ok"] += count
        self.caused["exits", "error"] += count
        self.caused["exits", "signal"] += 1


@dataclass
class Street:
    """The flooder and its neighbours: those with traffic, and those that only start processes."""

    flooder: Container
    neighbours: list[Container]
    forker: Container
    quiet: list[Container]

    @property
    def all(self) -> list[Container]:
        return [self.flooder, *self.neighbours, self.forker, *self.quiet]

    def round(self) -> None:
        """A flood of each kind, while every neighbour does a little of the same."""
        with ThreadPoolExecutor(2 + NEIGHBOURS) as pool:
            floods = [pool.submit(self._flood), pool.submit(self.forker.fork, 250)]
            for one, other in zip(self.neighbours, self.quiet, strict=True):
                pool.submit(one.connect, 10).result()
                pool.submit(one.ask, 10).result()
                pool.submit(other.fork, 5).result()
            for flood in floods:
                flood.result()

    def _flood(self) -> None:
        self.flooder.connect(3000)
        self.flooder.ask(2000)


@contextmanager
def street() -> Iterator[Street]:
    """All of them in one network namespace, a container and an address each."""
    with ExitStack() as open_:
        namespace = open_.enter_context(Namespaces("flood")).add("street")

        def container(number: int) -> Container:
            address = f"10.231.0.{number + 1}"
            ip("-n", namespace, "address", "add", f"{address}/32", "dev", "lo")
            made = open_.enter_context(cgroup())
            return Container(made, Place(namespace, cgroup=made.words()), address)

        made = [container(number) for number in range(2 * NEIGHBOURS + 2)]
        yield Street(made[0], made[1 : NEIGHBOURS + 1], made[NEIGHBOURS + 1], made[NEIGHBOURS + 2 :])


METRICS = {
    "otelbpf.tcp.connections": ("connections", "network.tcp.handshake.role", "error.type"),
    "otelbpf.tcp.closes": ("closes", "network.tcp.handshake.role", "otelbpf.tcp.close.reason"),
    "otelbpf.tcp.io": ("io", "network.tcp.handshake.role", "network.io.direction"),
    "otelbpf.tcp.resets": ("resets", "network.tcp.handshake.role", "network.io.direction"),
    "otelbpf.dns.queries": ("queries", "otelbpf.dns.role", "otelbpf.dns.response.code"),
    "otelbpf.process.execs": ("execs", ""),
    "otelbpf.process.exits": ("exits", "otelbpf.process.exit.class"),
}


def counted(points: list[Any]) -> dict[str, Counter[Key]]:
    """Container → what the newest points of counters say of it (of delta points, all of them together)."""
    newest: dict[Any, Any] = {}
    for number, point in enumerate(points):
        newest[point.series if point.cumulative else number] = point
    found: dict[str, Counter[Key]] = {}
    for point in newest.values():
        if point.metric in METRICS:
            title, *by = METRICS[point.metric]
            key = (title, *(str(point.attributes.get(name, "")) for name in by))
            found.setdefault(str(point.resource.get("service.instance.id")), Counter())[key] += int(point.value)
    return found
