"""What a record must be, whole: exact attributes, measured ones that must be there, and nothing else."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.e2e.otlp_json import Record
    from tests.e2e.processes import Owner

INFO, WARN = 9, 13
CLOSED = "otelbpf.tcp.connection.closed"
FAILED = "otelbpf.tcp.connection.failed"
LOOKUP = "otelbpf.dns.lookup"
EXEC = "otelbpf.process.exec"
EXIT = "otelbpf.process.exit"

MEASURED_OF_CONNECTION = frozenset(
    {
        "otelbpf.tcp.segments.transmit",
        "otelbpf.tcp.segments.receive",
        "otelbpf.tcp.handshake.duration",
        "otelbpf.tcp.connection.duration",
        "otelbpf.connection.id",
    }
)
OPTIONAL_OF_CONNECTION = frozenset({"otelbpf.tcp.retransmits", "otelbpf.tcp.rtt.smoothed", "otelbpf.tcp.rtt.min"})
CLIENT_REASON = {
    "normal": "fin_local", "half_close": "fin_local", "server_closes": "fin_remote",
    "client_resets": "reset_local", "server_resets": "reset_remote",
}  # fmt: skip
OTHER_END = {
    "fin_local": "fin_remote", "fin_remote": "fin_local", "reset_local": "reset_remote", "reset_remote": "reset_local",
}  # fmt: skip
CONNECT_ERROR = {"refused": "connection_refused", "abandoned": "operation_aborted", "timed_out": "timed_out"}
DNS_ERROR = {"NXDOMAIN": "host_not_found", "SERVFAIL": "try_again", "REFUSED": "no_recovery", None: "timeout"}

End = tuple[str, int]
"""Address and port."""


@dataclass(frozen=True)
class Expected:
    """One record: *exact* attributes, *measured* ones (present, above zero), *optional* ones, and no others."""

    event: str
    owner: Owner
    exact: Mapping[str, Any]
    severity: int = INFO
    measured: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    key_names: tuple[str, ...] = field(default=())
    """Attributes by which this record is told from the others of its owner."""

    @property
    def key(self) -> tuple[Any, ...]:
        return (self.event, self.owner.pid, *(self.exact.get(name) for name in self.key_names))

    def but(self, *, optional: Iterable[str] = (), without: Iterable[str] = (), **exact: Any) -> Expected:
        """The same, with attributes changed (double underscore for a dot), made optional or left out."""
        changed = {**self.exact, **{name.replace("__", "."): value for name, value in exact.items()}}
        gone = {*without, *optional}
        return replace(
            self,
            exact={name: value for name, value in changed.items() if name not in gone},
            measured=self.measured - gone,
            optional=self.optional | set(optional),
        )


ENDS = ("network.local.address", "network.local.port", "network.peer.address", "network.peer.port")


def network(owner: Owner, netns: int, transport: str, local: End, peer: End) -> dict[str, Any]:
    """The attributes of every network record; addresses without a port number leave the port out."""
    return {
        **of_process(owner),
        "network.transport": transport,
        "network.type": f"ipv{ip_address(peer[0]).version}",
        "network.local.address": local[0],
        "network.local.port": local[1],
        "network.peer.address": peer[0],
        "network.peer.port": peer[1],
        "otelbpf.netns": netns,
        "otelbpf.peer.type": "loopback" if ip_address(peer[0]).is_loopback else "external",
        "net.peer.ip": peer[0],
        "net.peer.port": peer[1],
        "net.transport": f"ip_{transport}",
    }


def of_process(owner: Owner) -> dict[str, Any]:
    """The attributes of every record."""
    return {
        "process.pid": owner.pid,
        "process.executable.name": owner.executable.name,
        "process.executable.path": str(owner.executable),
    }


def closed(
    owner: Owner, netns: int, role: str, local: End, peer: End, sent: int, received: int, reason: str
) -> Expected:
    """The end of a connection, seen from *owner*."""
    server = peer if role == "client" else local
    exact = network(owner, netns, "tcp", local, peer) | {
        "otel.event.name": CLOSED,
        "network.tcp.handshake.role": role,
        "server.address": server[0],
        "server.port": server[1],
        "otelbpf.tcp.io.transmit": sent,
        "otelbpf.tcp.io.receive": received,
        "otelbpf.tcp.close.reason": reason,
    }
    if role == "server":
        exact |= {"client.address": peer[0], "client.port": peer[1]}
    if reason.startswith("reset"):
        exact["error.type"] = "connection_reset"
    severity = WARN if "error.type" in exact else INFO
    return Expected(CLOSED, owner, exact, severity, MEASURED_OF_CONNECTION, OPTIONAL_OF_CONNECTION, ENDS)


def both_ends(
    client: Owner, server: Owner, spaces: tuple[int, int], ends: tuple[End, End], sent: int, received: int, reason: str
) -> list[Expected]:
    """The two records of one connection; *reason*, *sent* and *received* are the client's."""
    local, peer = ends
    return [
        closed(client, spaces[0], "client", local, peer, sent, received, reason),
        closed(server, spaces[1], "server", peer, local, received, sent, OTHER_END[reason]),
    ]


def failed(owner: Owner, netns: int, local: End, peer: End, error: str) -> Expected:
    """A connect that came to nothing."""
    exact = network(owner, netns, "tcp", local, peer) | {
        "otel.event.name": FAILED,
        "server.address": peer[0],
        "server.port": peer[1],
        "error.type": error,
    }
    optional = frozenset({"otelbpf.tcp.retransmits", "network.tcp.handshake.role"})
    return Expected(FAILED, owner, exact, WARN, frozenset({"otelbpf.tcp.handshake.duration"}), optional, ENDS)


def lookup(
    owner: Owner,
    netns: int,
    transport: str,
    local: End,
    resolver: End,
    name: str,
    question_type: str,
    code: str | None,
    *,
    addresses: list[str] | None = None,
    cnames: list[str] | None = None,
    ttl: int | None = None,
    answers: int = 0,
) -> Expected:
    """One lookup; a *code* of None is a timeout. A local port of 0 is not known beforehand."""
    exact = network(owner, netns, transport, local, resolver) | {
        "otel.event.name": LOOKUP,
        "dns.question.name": name,
        "otelbpf.dns.question.type": question_type,
        "otelbpf.dns.role": "client",
        "server.address": resolver[0],
        "server.port": resolver[1],
    }
    given = {
        "otelbpf.dns.response.code": code,
        "error.type": DNS_ERROR.get(code),
        "otelbpf.dns.answer.count": None if code is None else answers,
        "dns.answers": addresses,
        "otelbpf.dns.cnames": cnames,
        "otelbpf.dns.ttl": ttl,
    }
    exact |= {attribute: value for attribute, value in given.items() if value is not None}
    measured = {"otelbpf.dns.lookup.duration"}
    if not local[1]:
        del exact["network.local.port"]
        measured.add("network.local.port")
    names = (
        "network.transport",
        "network.local.port",
        "dns.question.name",
        "otelbpf.dns.question.type",
        "server.address",
    )
    severity = WARN if "error.type" in exact else INFO
    return Expected(LOOKUP, owner, exact, severity, frozenset(measured), key_names=names)


def executed(owner: Owner, parent: Owner, argument: str) -> Expected:
    """The start of a program."""
    exact = of_process(owner) | {
        "otel.event.name": EXEC,
        "process.parent_pid": parent.pid,
        "process.command": argument,
        "process.user.id": 0,
        "otelbpf.parent.executable.name": parent.executable.name,
    }
    return Expected(
        EXEC, owner, exact, INFO, frozenset({"process.creation.time"}), key_names=("process.executable.path",)
    )


def exited(owner: Owner, parent: Owner, code: int | None, signal: str | None = None) -> Expected:
    """The end of a process: by itself with a code, or by a signal."""
    exact = of_process(owner) | {"otel.event.name": EXIT, "process.parent_pid": parent.pid}
    exact |= {"process.exit.code": code} if signal is None else {"otelbpf.process.exit.signal": signal}
    severity = INFO if code == 0 else WARN
    measured = frozenset({"process.creation.time", "otelbpf.process.duration"})
    return Expected(EXIT, owner, exact, severity, measured)


def differences(expected: Iterable[Expected], records: Iterable[Record]) -> list[str]:
    """Every way in which *records* are not exactly the *expected* ones; empty when they are."""
    wanted = list(expected)
    left: list[Record] = list(records)
    found: list[str] = []
    for one in wanted:
        match = next((record for record in left if key_of(one, record) == one.key), None)
        if match is None:
            found.append(f"missing: {one.key}")
            continue
        left.remove(match)
        found += [f"{one.key}: {difference}" for difference in differs(one, match)]
    found += [f"not expected: {record.event_name} {record.attributes}" for record in left]
    return found


def key_of(expected: Expected, record: Record) -> tuple[Any, ...]:
    """What *record* would have to share with *expected*."""
    names = ((name if name in expected.exact else None) for name in expected.key_names)
    return (record.event_name, record["process.pid"], *(name and record[name] for name in names))


def differs(expected: Expected, record: Record) -> list[str]:
    """What is wrong with one record."""
    seen, found = record.attributes, []
    for name, value in expected.exact.items():
        if seen.get(name) != value:
            found.append(f"{name} is {seen.get(name)!r}, not {value!r}")
    for name in expected.measured:
        measured = seen.get(name)
        if not measured or (isinstance(measured, int | float) and measured <= 0):
            found.append(f"{name} is {measured!r}")
    surplus = seen.keys() - expected.exact.keys() - expected.measured - expected.optional
    found += [f"{name} = {seen[name]!r} should not be there" for name in sorted(surplus)]
    if record.severity != expected.severity:
        found.append(f"severity is {record.severity}, not {expected.severity}")
    if record.resource.get("service.name") != expected.owner.executable.name:
        found.append(f"service.name is {record.resource.get('service.name')!r}, not {expected.owner.executable.name!r}")
    if not record.body:
        found.append("no body")
    return found


def repeated(records: Iterable[Record]) -> list[tuple[tuple[Any, ...], int]]:
    """Records that came more than once."""
    counts = Counter((r.event_name, r.time_ns, r["process.pid"], *(r[name] for name in ENDS)) for r in records)
    return [(key, count) for key, count in counts.items() if count > 1]
