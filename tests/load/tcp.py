"""TCP load: connections of known kinds, sizes and ends, and the truth of both ends joined.

    with tcp_load(Plan(count=1000, mix={"normal": 8, "refused": 1})) as load: …
    load.connections        # after the block: what really happened, connection by connection

Kinds: normal (the client closes first), server_closes, refused, client_resets, server_resets, half_close,
abandoned (the application gives up while connecting), timed_out (the kernel gives up).
"""

from __future__ import annotations

import socket
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tests.load.programs import HERE, Place, Server, counters, serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

UNANSWERED = frozenset({"refused", "abandoned", "timed_out"})
"""Kinds that never reach the server."""


class Connection(NamedTuple):
    """One connection as both ends saw it; *server_pid* is None when it never reached a server."""

    number: int
    kind: str
    local_port: int
    peer_address: str
    peer_port: int
    sent: int
    received: int
    error: int
    duration_ns: int
    server_pid: int | None


@dataclass(frozen=True)
class Plan:
    """What to generate. *rate* is connections a second, 0 as many as the machine gives.

    Connection i goes to *address* + i modulo *peers*. Sizes vary per connection by up to *spread* bytes.
    """

    count: int
    mix: Mapping[str, int] = field(default_factory=lambda: {"normal": 1})
    rate: int = 0
    threads: int = 1
    workers: int = 0
    family: Literal["4", "6", "mapped"] = "4"
    address: str = "127.0.0.1"
    peers: int = 1
    request_bytes: int = 64
    response_bytes: int = 64
    spread: int = 0
    seed: int = 0
    wait_ms: int = 200
    silent_port: int = 0
    """A port at *address* that answers nothing; 0: one is made on 127.0.0.1 when the mix needs it."""
    records: bool = True
    """Keep one line a connection; off for the highest rates."""


class TcpTruth:
    """What a load really did; filled when its block ends."""

    def __init__(self, server: Server, client: dict[str, Any]) -> None:
        self.server = server
        self.client = client
        self.connections: list[Connection] = []

    @property
    def client_pid(self) -> int:
        return int(self.client["pid"])

    @property
    def rate(self) -> float:
        """Connections a second that were reached."""
        return float(self.client["connections"] / self.client["elapsed_s"])

    @property
    def failed(self) -> int:
        return int(sum(self.client["failed"].values()))

    @property
    def established(self) -> int:
        return int(self.client["connections"]) - self.failed


@contextmanager
def full_listener() -> Iterator[int]:
    """The port of a listener on 127.0.0.1 whose queue is full, so that every further SYN is dropped."""
    with ExitStack() as open_:
        listener = open_.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        open_.enter_context(socket.create_connection(listener.getsockname()))
        yield listener.getsockname()[1]


def client_arguments(plan: Plan, port: int, full_port: int, truth: Path | None) -> list[str]:
    """The command line of tcp_client for *plan*."""
    numbers = {
        "-f": plan.family, "-a": plan.address, "-p": port, "-F": full_port, "-n": plan.count, "-r": plan.rate,
        "-t": plan.threads, "-P": plan.peers, "-q": plan.request_bytes, "-s": plan.response_bytes,
        "-d": plan.spread, "-S": plan.seed, "-w": plan.wait_ms,
        "-m": ",".join(f"{kind}={weight}" for kind, weight in plan.mix.items()),
    }  # fmt: skip
    arguments = [str(word) for pair in numbers.items() for word in pair]
    return arguments + (["-o", str(truth)] if truth else [])


def tcp_load(plan: Plan, client_place: Place = HERE, server_place: Place = HERE) -> TcpTruth:
    """Runs *plan* to its end, checks that both ends tell the same story, and returns the truth."""
    with TemporaryDirectory(prefix="otelbpf-load-") as directory, ExitStack() as open_:
        wants_full = not plan.silent_port and any(plan.mix.get(kind) for kind in ("abandoned", "timed_out"))
        full_port = open_.enter_context(full_listener()) if wants_full else plan.silent_port
        client_truth, server_truth = Path(directory, "client"), Path(directory, "server")
        arguments = [f"-{4 if plan.family == '4' else 6}", "-w", str(plan.workers), "-t", str(plan.threads)]
        arguments += ["-o", str(server_truth)] if plan.records else []
        with serving("tcp_server", arguments, server_place) as server:
            words = client_arguments(plan, server.port, full_port, client_truth if plan.records else None)
            truth = TcpTruth(server, counters("tcp_client", words, client_place))
        check(truth)
        if plan.records:
            truth.connections = join(client_truth, server_truth)
    return truth


def check(truth: TcpTruth) -> None:
    """Both ends counted for themselves; a difference means that the generator, not the agent, is wrong."""
    client, server = truth.client, truth.server.counters
    ends = (
        (truth.established, server["accepted"]),
        (client["sent"], server["received"]),
        (client["received"], server["sent"]),
    )
    if any(ours != theirs for ours, theirs in ends):
        raise RuntimeError(f"client and server disagree: {client} {server}")


def lines(truth: Path) -> Iterator[list[str]]:
    """The fields of every line of every part of a truth file."""
    for part in truth.parent.glob(f"{truth.name}*"):
        for line in part.read_text().splitlines():
            yield line.split("\t")


def join(client_truth: Path, server_truth: Path) -> list[Connection]:
    """Each client's line with the pid that served it. A port is used again after a while, but in the same order."""
    served: dict[tuple[str, str, str, str], list[int]] = {}
    for port, pid, kind, received, sent in lines(server_truth):
        served.setdefault((port, kind, received, sent), []).append(int(pid))
    connections = []
    for number, kind, port, address, peer_port, sent, received, error, duration_ns in lines(client_truth):
        server_pid = None if kind in UNANSWERED else served[port, kind, sent, received].pop(0)
        numbers = (int(sent), int(received), int(error), int(duration_ns))
        connections.append(Connection(int(number), kind, int(port), address, int(peer_port), *numbers, server_pid))
    return sorted(connections)
