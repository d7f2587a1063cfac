"""What the tests of tcp_connection share: a watched kernel, connections to make, records to compare whole."""

from __future__ import annotations

import ipaddress
import os
import socket
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from otelbpf.config import Config
from otelbpf.kernel.attach import attach
from otelbpf.probes import filters
from otelbpf.probes.tcp_connection import PROBE
from tests.kernel.feed import Feed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otelbpf.probes.probe import Walk

CLOSED, FAILED, SNAPSHOT = 1, 2, 3
CLIENT, SERVER = 1, 2
FIN_LOCAL, FIN_REMOTE, RESET_LOCAL, RESET_REMOTE, TIMEOUT = 1, 2, 3, 4, 5
NOT_COMPARED = {
    *("time_ns", "start_ns", "handshake_ns", "cookie", "srtt_us", "min_rtt_us", "tx_segments", "rx_segments"),
    *("client_isn", "server_isn"),
}
"""Checked for plausibility instead."""


class Watch(Feed):
    """The probe, attached, and what it said of this thread's namespace and of *namespaces*."""

    namespaces: tuple[int, ...] = ()

    def ended(self, port: int, count: int = 1) -> list[dict[str, Any]]:
        """The records of connections with *port* at either end, clients first."""
        return sorted((record(row) for row in self.ended_rows(port, count)), key=lambda found: found["role"])

    def ended_rows(self, port: int, count: int) -> np.ndarray:
        """The same as they came, once there are *count*."""
        return self.where(lambda rows: (rows["local_port"] == port) | (rows["remote_port"] == port), count)

    def rows(self) -> np.ndarray:
        """Those of the test's own namespaces: other tests may use the same ports meanwhile."""
        rows = super().rows()
        return rows[np.isin(rows["head"]["netns"], [own_netns(), *self.namespaces])]

    def nothing_but(self, port: int, count: int) -> list[dict[str, Any]]:
        """The same, after a moment in which a record too many would have come."""
        self.ended(port, count)
        time.sleep(0.1)
        return self.ended(port, count)

    def snapshot(self) -> np.ndarray:
        return np.frombuffer(self.attached.snapshot(), self.attached.struct)


@contextmanager
def watching(*, adopt: bool = False, walk: Walk | None = None, **chosen: Any) -> Iterator[Watch]:
    """The probe under default settings, but for *chosen* filters, and with no other *walk* than that one."""
    probe = PROBE if walk is None else replace(PROBE, snapshots=(walk,))
    config = configuration(**chosen)
    knobs = {"self_pid": os.getpid() if config.filters.exclude_self else 0}
    with attach(probe, config, knobs=knobs, before_attach=lambda loaded: filters.fill(loaded, config)) as attached:
        assert attached.state == "attached", [str(refusal) for refusal in attached.refused]
        if adopt:
            attached.adopt()
        yield Watch(attached)


def configuration(*, exclude_self: bool = False, **chosen: Any) -> Config:
    return msgspec.convert({"filters": {"exclude_self": exclude_self, **chosen}}, Config)


def record(row: np.void) -> dict[str, Any]:
    """A record as a dictionary, its numbers plausible, without those that differ from run to run."""
    found = {name: row["head"][name].item() for name in row["head"].dtype.names}
    found |= {name: row[name].item() for name in row.dtype.names if name != "head"}
    now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert found["start_ns"] <= found["time_ns"] <= now_ns
    assert found["handshake_ns"] < 60e9
    for end in ("local_address", "remote_address"):
        address = ipaddress.IPv6Address(found[end])
        found[end] = str(address.ipv4_mapped or address)
    return {name: value for name, value in found.items() if name not in NOT_COMPARED}


def expected(**differences: Any) -> dict[str, Any]:
    """The record of a connection on loopback of this process that ended well, but for *differences*."""
    usual = {
        "pid": os.getpid(),
        "comm": Path("/proc/self/comm").read_bytes().strip(),
        "cgroup_id": own_cgroup_id(),
        "executable": executable_id("/proc/self/exe"),
        "netns": own_netns(),
        "tx_bytes": 0,
        "rx_bytes": 0,
        "retransmits": 0,
        "tx_bytes_before": 0,
        "rx_bytes_before": 0,
        "retransmits_before": 0,
        "local_address": "127.0.0.1",
        "remote_address": "127.0.0.1",
        "error": 0,
        "family": 4,
        "kind": CLOSED,
        "close_reason": 0,
        "adopted": 0,
        "tx_resets": 0,
        "rx_resets": 0,
    }
    return usual | differences


@dataclass
class Connection:
    """Both ends of one connection, and their ports."""

    client: socket.socket
    server: socket.socket

    def __post_init__(self) -> None:
        self.client_port = self.client.getsockname()[1]
        self.server_port = self.server.getsockname()[1]

    def ends(self, client: dict[str, Any], server: dict[str, Any]) -> list[dict[str, Any]]:
        """The two records that are expected of it, but for these differences."""
        ports = {"local_port": self.client_port, "remote_port": self.server_port}
        mirrored = {"local_port": self.server_port, "remote_port": self.client_port}
        return [expected(role=CLIENT, **ports | client), expected(role=SERVER, **mirrored | server)]


@contextmanager
def listening(address: str = "127.0.0.1", family: socket.AddressFamily = socket.AF_INET) -> Iterator[socket.socket]:
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((address, 0))
        listener.listen()
        yield listener


def connected(listener: socket.socket, address: str = "127.0.0.1") -> Connection:
    client = socket.create_connection((address, listener.getsockname()[1]))
    return Connection(client, listener.accept()[0])


@contextmanager
def connection(address: str = "127.0.0.1") -> Iterator[Connection]:
    """A connection on loopback; whatever is still open is closed at the end."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with listening("::" if ":" in address else address, family) as listener:
        made = connected(listener, address)
        with made.client, made.server:
            yield made


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def receive(end: socket.socket, count: int) -> None:
    while count:
        data = end.recv(min(count, 1 << 20))
        assert data
        count -= len(data)


@contextmanager
def child(action: Any) -> Iterator[int]:
    """A process that does *action* and exits; its pid. Waited for at the end."""
    pid = os.fork()
    if not pid:
        try:
            action()
            os._exit(0)
        finally:
            os._exit(1)
    try:
        yield pid
    finally:
        assert os.waitpid(pid, 0)[1] == 0


def own_netns() -> int:
    return Path("/proc/thread-self/ns/net").stat().st_ino


def executable_id(path: str | Path) -> int:
    status = Path(path).stat()
    device = os.major(status.st_dev) << 20 | os.minor(status.st_dev)
    return (device << 40 ^ status.st_ino) & (1 << 64) - 1


def own_cgroup_id() -> int:
    from tests.kernel.test_process import own_cgroup_id as found  # noqa: PLC0415

    return found()
