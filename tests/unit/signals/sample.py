"""A probe made up for the tests of the engines: the shape of tcp_connection, every kind of attribute, random rows."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from otelbpf.batch import Batch, Categorical, Facts
from otelbpf.config.settings import Config
from otelbpf.probes.probe import (
    Address,
    Choice,
    Constant,
    Counter,
    Event,
    Hex,
    Histogram,
    Known,
    Level,
    Number,
    Probe,
    Way,
)
from otelbpf.signals import names

ROW = np.dtype(
    [
        ("head", [("time_ns", "<u8"), ("pid", "<u4"), ("netns", "<u4")]),
        *((name, "<u8") for name in ("handshake_ns", "duration_ns", "tx_bytes", "rx_bytes")),
        *((name, "<u4") for name in ("tx_segments", "rx_segments", "retransmits", "srtt_us", "min_rtt_us")),
        *((name, "<u2") for name in ("local_port", "remote_port", "server_port", "client_port", "error")),
        *((name, "<u1") for name in ("family", "role", "kind", "close_reason", "adopted", "tx_resets", "rx_resets")),
    ]
)
CLOSED, FAILED, SNAPSHOT = 1, 2, 3
ROLE = Choice(names.NETWORK_TCP_HANDSHAKE_ROLE, "role", {0: "unknown", 1: "client", 2: "server"})
ERROR = Choice(names.ERROR_TYPE, "error", {104: "connection_reset", 110: "timed_out", 111: "connection_refused"})
REASONS = {
    0: "unknown",
    1: "fin_local",
    2: "fin_remote",
    3: "reset_local",
    4: "reset_remote",
    5: "timeout",
}
REASON = Choice(names.OTELBPF_TCP_CLOSE_REASON, "close_reason", REASONS)
PROCESS = Known("process", (names.PROCESS_EXECUTABLE_NAME, names.PROCESS_EXECUTABLE_PATH))
LOCAL = Address(names.NETWORK_LOCAL_ADDRESS, "local_address")
CLIENT = Address(names.CLIENT_ADDRESS, "client_address")
REMOTE = Known(
    "remote",
    (
        names.SERVER_ADDRESS,
        names.NETWORK_PEER_ADDRESS,
        names.NETWORK_TYPE,
        names.OTELBPF_PEER_TYPE,
        names.OTELBPF_PEER_NAMES,
        names.NET_PEER_NAME,
    ),
)
EDGE = Known("edge", (names.SERVER_ADDRESS, names.SERVICE_PEER_NAME, names.OTELBPF_PEER_K8S_NAMESPACE_NAME))
PEER_TYPE = Known("edge", (names.OTELBPF_PEER_TYPE,))
SERVER_PORT = Number(names.SERVER_PORT, "server_port", absent=0)
ADDRESSES = (
    Constant(names.NETWORK_TRANSPORT, "tcp"),
    Number(names.PROCESS_PID, "pid"),
    Number(names.OTELBPF_NETNS, "netns"),
    Number(names.NETWORK_LOCAL_PORT, "local_port"),
    Number(names.NETWORK_PEER_PORT, "remote_port"),
    SERVER_PORT,
    Number(names.CLIENT_PORT, "client_port", absent=0),
    ROLE,
    ERROR,
    PROCESS,
    LOCAL,
    CLIENT,
    REMOTE,
    Number(names.OTELBPF_TCP_RETRANSMITS, "retransmits"),
    Number(names.OTELBPF_TCP_HANDSHAKE_DURATION, "handshake_ns", 1e-9, absent=0),
)
CLOSED_ATTRIBUTES = (
    *ADDRESSES,
    REASON,
    Choice(names.OTELBPF_CONNECTION_ADOPTED, "adopted", {1: True}),
    Hex(names.OTELBPF_CONNECTION_ID, "connection_id"),
    Number(names.OTELBPF_TCP_IO_TRANSMIT, "tx_bytes"),
    Number(names.OTELBPF_TCP_IO_RECEIVE, "rx_bytes"),
    Number(names.OTELBPF_TCP_SEGMENTS_TRANSMIT, "tx_segments"),
    Number(names.OTELBPF_TCP_SEGMENTS_RECEIVE, "rx_segments"),
    Number(names.OTELBPF_TCP_RTT_SMOOTHED, "srtt_us", 1e-6, absent=0),
    Number(names.OTELBPF_TCP_RTT_MIN, "min_rtt_us", 1e-6, absent=0),
    Number(names.OTELBPF_TCP_CONNECTION_DURATION, "duration_ns", 1e-9, absent=0),
)


def body(batch: Batch) -> list[str]:
    """One line a row, as cheap as one with a few numbers can be."""
    remote = batch.things("remote")
    addresses = [facts.get(names.SERVER_ADDRESS, "?") for facts in remote.values]
    return [
        f"tcp -> {addresses[code]}:{port} tx={sent} rx={received}"
        for code, port, sent, received in zip(
            remote.codes.tolist(),
            batch.number("remote_port").tolist(),
            batch.number("tx_bytes").tolist(),
            batch.number("rx_bytes").tolist(),
            strict=True,
        )
    ]


W = (ROLE, SERVER_PORT, PEER_TYPE)
E = (*W, EDGE)
TRANSMIT = Constant(names.NETWORK_IO_DIRECTION, "transmit")
RECEIVE = Constant(names.NETWORK_IO_DIRECTION, "receive")
METRICS = (
    Counter(names.METRIC_OTELBPF_TCP_CONNECTIONS, None, (*E, ERROR), when="ended"),
    Counter(names.METRIC_OTELBPF_TCP_CLOSES, None, (*W, REASON), when="closed"),
    Level(names.METRIC_OTELBPF_TCP_CONNECTION_ACTIVE, W, when="alive"),
    Counter(names.METRIC_OTELBPF_TCP_IO, "tx_bytes", (*E, TRANSMIT)),
    Counter(names.METRIC_OTELBPF_TCP_IO, "rx_bytes", (*E, RECEIVE)),
    Counter(names.METRIC_OTELBPF_TCP_RETRANSMITS, "retransmits", E),
    Counter(names.METRIC_OTELBPF_TCP_RESETS, "tx_resets", (*W, TRANSMIT)),
    Counter(names.METRIC_OTELBPF_TCP_RESETS, "rx_resets", (*W, RECEIVE)),
    Histogram(names.METRIC_OTELBPF_TCP_HANDSHAKE_DURATION, "handshake_ns", 1e-9, W, when="handshake_seen"),
    Histogram(names.METRIC_OTELBPF_TCP_RTT, "srtt_us", 1e-6, W, when="rtt_seen"),
    Histogram(names.METRIC_OTELBPF_TCP_CONNECTION_DURATION, "duration_ns", 1e-9, W, when="closed"),
)
PROBE = Probe(
    name="sample",
    struct="sample",
    scope=names.SCOPE_TCP,
    summary="made up",
    ways=(Way("none", ()),),
    prepare=lambda _config: lambda batch: batch,  # type: ignore[arg-type,return-value]
    constants=lambda _config: {},
    events=(
        Event(
            names.EVENT_TCP_CONNECTION_CLOSED,
            CLOSED_ATTRIBUTES,
            body,
            "tcp_connection",
            when="closed",
            failed="reset",
            error="out_of_memory",
            duration_ns="duration_ns",
            trace_id="connection_id",
        ),
        Event(
            names.EVENT_TCP_CONNECTION_FAILED,
            ADDRESSES,
            body,
            "tcp_connection",
            when="failed",
            failed="failed",
            duration_ns="handshake_ns",
        ),
    ),
    metrics=METRICS,
)


def config(**changes: Any) -> Config:
    """The default configuration; *changes* are `group_key=value`."""
    result = Config()
    for path, value in changes.items():
        group, key = path.split("_", 1)
        result = msgspec.structs.replace(
            result, **{group: msgspec.structs.replace(getattr(result, group), **{key: value})}
        )
    return result


def resource(number: int) -> Facts:
    return Facts(
        {
            "service.name": f"shop-{number}",
            "service.namespace": "shop",
            "service.instance.id": f"shop.shop-{number}-abcde.main",
            "host.name": "node-1",
            "host.id": "0123456789abcdef0123456789abcdef",
            "telemetry.distro.name": "otelbpf",
            "telemetry.distro.version": "0.1.0",
            "k8s.namespace.name": "shop",
            "k8s.pod.name": f"shop-{number}-abcde",
            "k8s.pod.uid": f"c0ffee00-0000-0000-0000-{number:012}",
            "k8s.container.name": "main",
            "k8s.deployment.name": f"shop-{number}",
            "container.id": f"{number:064x}",
            "container.runtime.name": "containerd",
            "container.image.tags": ["1.2.3"],
        }
    )


def remote(number: int) -> Facts:
    facts: dict[str, Any] = {
        "network.peer.address": f"10.0.{number >> 8}.{number & 255}",
        "network.type": "ipv4",
        "otelbpf.peer.type": "pod",
        "server.address": f"db-{number}.shop.svc.cluster.local",
    }
    if number % 3 == 0:
        facts["net.peer.name"] = facts["server.address"]
    if number % 5 == 0:
        facts["otelbpf.peer.names"] = [facts["server.address"], "db.example"]
    return Facts(facts)


def edge(number: int) -> Facts:
    return Facts(
        {
            "server.address": f"db-{number}.shop.svc.cluster.local",
            "otelbpf.peer.type": "pod",
            "service.peer.name": f"db-{number}",
            "otelbpf.peer.k8s.namespace.name": "shop",
        }
    )


def process(number: int) -> Facts:
    return Facts({"process.executable.name": f"java{number}", "process.executable.path": f"/opt/é/bin/java{number}"})


class Things:
    """The interned things that rows point at; keep it from batch to batch, as enrichment does."""

    def __init__(self, resources: int = 5, peers: int = 20) -> None:
        self.resources = [resource(number) for number in range(resources)]
        self.remotes = [remote(number) for number in range(peers)]
        self.edges = [edge(number) for number in range(peers)]
        self.processes = [process(number) for number in range(7)]
        self.locals = [Facts({"network.local.address": f"10.1.0.{number}"}) for number in range(3)]


def addresses(random: np.random.Generator, rows: int) -> np.ndarray:
    """IPv4 of all lengths, IPv6, and both that are none."""
    octets = random.integers(0, 256, (rows, 16), np.uint8)
    octets[:, 12:] >>= random.integers(0, 8, (rows, 4), np.uint8)
    octets[random.random(rows) < 0.8, :12] = np.frombuffer(bytes(10) + b"\xff\xff", np.uint8)
    octets[random.random(rows) < 0.1, 12:] = 0
    octets[random.random(rows) < 0.1] = 0
    return octets.view("V16").ravel()


def batch(
    rows: int, seed: int = 0, things: Things | None = None, *, snapshot: bool = False, optional: bool = True
) -> Batch:
    """Random rows. *optional*: some optional numbers are absent."""
    random = np.random.default_rng(seed)
    things = things or Things()
    made = np.zeros(rows, ROW)
    made["head"]["time_ns"] = 5_000_000_000 + np.arange(rows) * 1000
    made["head"]["pid"] = random.integers(1, 1 << 22, rows)
    made["head"]["netns"] = 4026531840
    for name in ("handshake_ns", "duration_ns"):
        made[name] = random.lognormal(15, 3, rows).astype(np.uint64) + 1
    for name in ("tx_bytes", "rx_bytes"):
        made[name] = random.lognormal(8, 3, rows).astype(np.uint64)
    for name in ("tx_segments", "rx_segments"):
        made[name] = random.integers(1, 1000, rows)
    made["retransmits"] = random.integers(0, 3, rows)
    for name in ("srtt_us", "min_rtt_us"):
        made[name] = random.integers(10, 100000, rows)
    made["local_port"] = random.integers(32768, 61000, rows)
    made["remote_port"] = random.choice([443, 5432, 6379, 80, 9092], rows)
    made["role"] = random.integers(0, 3, rows)
    made["server_port"] = np.where(made["role"] == 1, made["remote_port"], 0)
    made["client_port"] = np.where(made["role"] == 2, made["remote_port"], 0)
    made["close_reason"] = random.integers(0, 7, rows)  # 6 has no text
    made["kind"] = SNAPSHOT if snapshot else random.choice([CLOSED, CLOSED, CLOSED, FAILED], rows)
    made["error"] = np.where(random.random(rows) < 0.1, random.choice([104, 110, 111, 5], rows), 0)
    made["adopted"] = random.random(rows) < 0.05
    made["tx_resets"] = random.random(rows) < 0.02
    if optional:
        for name in ("handshake_ns", "duration_ns", "srtt_us", "min_rtt_us"):
            made[name][random.random(rows) < 0.1] = 0
    connection_id = random.integers(0, 256, (rows, 16), np.uint8)
    if optional:
        connection_id[random.random(rows) < 0.05] = 0
    peers = random.integers(0, len(things.remotes), rows)
    closed = made["kind"] == CLOSED
    failed = made["kind"] == FAILED
    columns = {
        "resource": Categorical(random.integers(0, len(things.resources), rows), things.resources),
        "process": Categorical(random.integers(0, len(things.processes), rows), things.processes),
        "local_address": addresses(random, rows),
        "client_address": addresses(random, rows),
        "remote": Categorical(peers, things.remotes),
        "edge": Categorical(peers.copy(), things.edges),
        "connection_id": connection_id,
        "closed": closed,
        "failed": failed,
        "ended": closed | failed,
        "alive": made["kind"] == SNAPSHOT,
        "reset": made["error"] == 104,
        "out_of_memory": random.random(rows) < 0.01,
        "handshake_seen": made["handshake_ns"] != 0,
        "rtt_seen": made["srtt_us"] != 0,
    }
    return Batch("sample", made, 1_700_000_000_000_000_000, columns, snapshot)
