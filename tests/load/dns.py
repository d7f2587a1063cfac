"""DNS load: questions whose answers are known from their names, asked in the ways that programs ask.

A name's first letter is its class: a (address), c (CNAME, then address), n (NXDOMAIN), s (SERVFAIL), r (REFUSED),
d (never answered), t (truncated over UDP).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tests.load.programs import HERE, Place, Server, counters, serving
from tests.load.tcp import lines

if TYPE_CHECKING:
    from collections.abc import Mapping

RCODES = {"a": 0, "c": 0, "n": 3, "s": 2, "r": 5, "t": 0}
RCODE_NAMES = {0: "NOERROR", 2: "SERVFAIL", 3: "NXDOMAIN", 5: "REFUSED"}
QTYPES = {1: "A", 28: "AAAA"}


class Lookup(NamedTuple):
    """One question as its asker saw it; *rcode* is None when no answer came."""

    number: int
    name: str
    question_type: str
    local_port: int
    id: int
    rcode: int | None


@dataclass(frozen=True)
class Plan:
    """What to ask. *rate* is questions a second, 0 as many as the machine gives."""

    count: int
    mix: Mapping[str, int] = field(default_factory=lambda: {"a": 1})
    way: Literal["socket", "window", "mmsg", "tcp"] = "socket"
    rate: int = 0
    names: int = 997
    window: int = 32
    wait_ms: int = 1000
    seed: int = 0
    family: Literal["4", "6"] = "4"
    address: str = "127.0.0.1"
    port: int = 0
    both_types: bool = False
    """Every second question is for AAAA."""
    records: bool = True
    """Keep one line a question; off for the highest rates."""


class DnsTruth:
    """What a load really did."""

    def __init__(self, server: Server, client: dict[str, Any], lookups: list[Lookup]) -> None:
        self.server = server
        self.client = client
        self.lookups = lookups

    @property
    def client_pid(self) -> int:
        return int(self.client["pid"])

    @property
    def rate(self) -> float:
        """Questions a second that were reached."""
        return float(self.client["questions"] / self.client["elapsed_s"])

    @property
    def unanswered(self) -> int:
        return int(sum(counts["unanswered"] for counts in self.client["by_class"].values()))

    @property
    def answered(self) -> dict[tuple[str, int], int]:
        """(class, answer code) → answers."""
        return {
            (letter, int(key)): count
            for letter, counts in self.client["by_class"].items()
            for key, count in counts.items()
            if key.isdigit()
        }


def address_of(name: str, question_type: str) -> str:
    """The address with which the server answers *name*: the same hash as in dns_server.c."""
    value = 2166136261
    for label in name.split("."):
        for byte in (len(label), *label.encode()):
            value = (value ^ byte) * 16777619 & 0xFFFFFFFF
    value = value * 16777619 & 0xFFFFFFFF  # the root label
    low = value.to_bytes(4, "little")
    if question_type == "AAAA":
        return str(IPv6Address(bytes([0xFD]) + bytes(11) + low))
    return str(IPv4Address(bytes([10]) + low[1:]))


def client_arguments(plan: Plan, port: int, truth: Path | None) -> list[str]:
    """The command line of dns_client for *plan*."""
    numbers = {
        "-a": plan.address, "-p": port, "-n": plan.count, "-r": plan.rate, "-N": plan.names, "-S": plan.seed,
        "-m": ",".join(f"{letter}={weight}" for letter, weight in plan.mix.items()),
        "-x": plan.way, "-w": plan.window, "-W": plan.wait_ms,
    }  # fmt: skip
    arguments = [f"-{plan.family}", *(str(word) for pair in numbers.items() for word in pair)]
    return arguments + ["-D"] * plan.both_types + (["-o", str(truth)] if truth else [])


def dns_load(plan: Plan, client_place: Place = HERE, server_place: Place = HERE) -> DnsTruth:
    """Runs *plan* to its end, checks that both ends tell the same story, and returns the truth."""
    with TemporaryDirectory(prefix="otelbpf-load-") as directory:
        truth = Path(directory, "client") if plan.records else None
        arguments = [f"-{plan.family}", "-a", plan.address, "-p", str(plan.port)]
        with serving("dns_server", arguments, server_place) as server:
            client = counters("dns_client", client_arguments(plan, server.port, truth), client_place)
        result = DnsTruth(server, client, read_lookups(truth) if truth else [])
    check(result, plan.way)
    return result


def check(truth: DnsTruth, way: str) -> None:
    """Every question reached the server, every answer its asker, and only class d went unanswered."""
    served = truth.server.counters["tcp" if way == "tcp" else "udp"]
    for letter, counts in truth.client["by_class"].items():
        answers = {int(key): count for key, count in counts.items() if key.isdigit()}
        expected = {} if letter == "d" or not counts["sent"] else {RCODES[letter]: counts["sent"]}
        if served["by_class"][letter] != counts["sent"] or answers != expected:
            raise RuntimeError(f"client and server disagree: {truth.client} {served}")


def read_lookups(truth: Path) -> list[Lookup]:
    """The lines of a truth file."""
    return sorted(
        Lookup(int(number), name, QTYPES[int(kind)], int(port), int(id_), int(rcode) if int(rcode) >= 0 else None)
        for number, name, kind, port, id_, rcode in lines(truth)
    )
