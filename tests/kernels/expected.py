"""What each kernel must give: the hook of each probe, what is lost, and the records of the scenes, whole."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.e2e import expect
from tests.e2e.processes import Owner
from tests.kernels.guest import scenes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.kernels.guest.forked import Truth

PYTHON = Path("/usr/bin/python3.11")


@dataclass(frozen=True)
class Kernel:
    """One of those that the tests run, and in what it differs."""

    name: str
    exit_code: int
    refused: Mapping[str, str]
    """Programs of tcp_connection that it cannot have."""
    lost: tuple[str, ...]
    worker_is_seen: bool


KERNELS = (
    Kernel(
        name="6.1",
        exit_code=1,
        refused={
            "tcp_received": "this kernel has no sock_recv_length",
            "tcp_sent": "this kernel has no sock_send_length",
        },
        lost=(
            "the worker of a server's connection (its listener is named instead)",
            "the worker of a server that sends first (its listener is named instead)",
        ),
        worker_is_seen=False,
    ),
    Kernel(name="6.12", exit_code=0, refused={}, lost=(), worker_is_seen=True),
)

WAYS = {"cgroup": "tp_btf", "dns_lookup": "cgroup_skb", "process": "tp_btf_by_count", "tcp_connection": "tp_btf"}


def probes(kernel: Kernel) -> list[dict[str, Any]]:
    """The probes of `otelbpf check --json`, without what is measured."""
    return [
        {
            "name": name,
            "state": "degraded" if kernel.lost and name == "tcp_connection" else "ok",
            "way": way,
            "lost": list(kernel.lost) if name == "tcp_connection" else [],
            "refused": dict(kernel.refused) if name == "tcp_connection" else {},
            "instead": "",
        }
        for name, way in WAYS.items()
    ]


class Records:
    """The records that the scenes must have made, but for those of the two containers."""

    def __init__(self, truth: Truth, kernel: Kernel) -> None:
        self._truth = truth
        self._kernel = kernel
        self._netns: int = truth["netns"]
        self._main = Owner(truth["pid"], PYTHON)

    def all(self) -> Iterator[expect.Expected]:
        """Of a process that has executed nothing only its name is known when it ends before anybody could look at it."""
        for record in self._whole():
            gone = record.owner.executable == PYTHON
            yield record.but(optional=("process.executable.path",)) if gone else record

    def _whole(self) -> Iterator[expect.Expected]:
        for name in ("plain", "prefork", "ipv6", "reset"):
            yield from self._connection(self._truth[name])
        yield from self._refused(self._truth["refused"])
        yield from self._lookups()
        yield from self._programs(self._truth["programs"])
        yield from self._children()

    def _connection(self, scene: Truth) -> Iterator[expect.Expected]:
        """Who closes a connection is known everywhere; who has read from one that is reset, or written, is not."""
        client, server = scene["client"], scene["server"]
        worker = server.get("worker", server)
        hidden = scene["reset"] and not self._kernel.worker_is_seen
        yield from self._ends(scene, server["pid"] if hidden else worker["pid"], client["sent"], client["received"])

    def _ends(self, scene: Truth, server_pid: int, sent: int, received: int) -> list[expect.Expected]:
        client = scene["client"]
        return expect.both_ends(
            Owner(client["pid"], PYTHON),
            Owner(server_pid, PYTHON),
            (self._netns, self._netns),
            ((client["local"][0], client["local"][1]), (scene["peer"][0], scene["peer"][1])),
            sent,
            received,
            "reset_local" if scene["reset"] else "fin_remote",
        )

    def _refused(self, scene: Truth) -> Iterator[expect.Expected]:
        peer = (scene["peer"][0], scene["peer"][1])
        record = expect.failed(
            Owner(scene["client"]["pid"], PYTHON), self._netns, (peer[0], 0), peer, "connection_refused"
        )
        yield record.but(optional=("network.local.port",))

    def _lookups(self) -> Iterator[expect.Expected]:
        for transport in ("udp", "tcp"):
            scene = self._truth[f"lookup_{transport}"]
            client = scene["client"]
            yield expect.lookup(
                Owner(client["pid"], PYTHON),
                self._netns,
                transport,
                (client["local"][0], client["local"][1]),
                ("127.0.0.1", 53),
                "db.shop.test",
                "A",
                "NOERROR",
                addresses=[scenes.ADDRESS],
                ttl=scenes.TTL_S,
                answers=1,
            )
        yield from self._ends(scene, scene["server"]["pid"], client["sent"], client["received"])

    def _programs(self, scene: Truth) -> Iterator[expect.Expected]:
        for one in scene.values():
            owner = Owner(one["pid"], Path(one["executable"]))
            yield expect.executed(owner, self._main, one["executable"])
            code = one["exit"]
            yield (
                expect.exited(owner, self._main, code)
                if code >= 0
                else expect.exited(owner, self._main, None, signal.Signals(-code).name)
            )

    def _children(self) -> Iterator[expect.Expected]:
        """Every process that was forked has ended."""
        for name in ("plain", "prefork", "ipv6", "reset", "refused", "lookup_udp", "lookup_tcp", "filtered"):
            scene = self._truth[name]
            for child in (scene.get("client"), scene.get("server"), None if "client" in scene else scene):
                if child is None:
                    continue
                owner = Owner(child["pid"], PYTHON)
                yield expect.exited(owner, self._main, 0)
                if "worker" in child:
                    yield expect.exited(Owner(child["worker"]["pid"], PYTHON), owner, 0)
