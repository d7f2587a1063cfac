"""TCP connections: who talked to whom, how much, how fast, and which end ended it how. Kernel half: the `.bpf.c`."""

from __future__ import annotations

import errno
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from otelbpf.probes.connection_id import add_connection_ids, identities
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
    Totals,
    Walk,
    Way,
)
from otelbpf.probes.tcp_accounting import CLOSED, FAILED, Accounting
from otelbpf.probes.tcp_sentence import closed_sentences, failed_sentences
from otelbpf.probes.throttled import EVENTS, THROTTLED, marked
from otelbpf.signals import names

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otelbpf.batch import Batch

ROLES = {0: "unknown", 1: "client", 2: "server"}
CLIENT, SERVER = 1, 2
CLOSE_REASONS = {
    0: "unknown",
    1: "fin_local",
    2: "fin_remote",
    3: "reset_local",
    4: "reset_remote",
    5: "timeout",
}
OTHER = 0xFFFF
ERRORS = {
    errno.ECONNREFUSED: "connection_refused",
    errno.ETIMEDOUT: "timed_out",
    errno.EHOSTUNREACH: "host_unreachable",
    errno.ENETUNREACH: "network_unreachable",
    errno.ECONNRESET: "connection_reset",
    errno.EADDRNOTAVAIL: "address_not_available",
    errno.EACCES: "access_denied",
    errno.EPERM: "access_denied",
    errno.ECANCELED: "operation_aborted",
    OTHER: "_OTHER",
}
"""errno → error.type; ECANCELED is the kernel half's word for an application that gave up."""

EPHEMERAL_FROM = 32768
"""Where Linux begins to choose ports for clients: above it a port is seldom a service, and would be a series each."""
SERVICE_PORTS = (33060, 35357, 44818, 47808, 49152, 50000, 50051, 50070, 50075, 50090, 61613, 61614, 61616)
"""Services that are known above it: MySQL X, Keystone, EtherNet/IP, BACnet, libvirt, Db2 and Jenkins agents, gRPC,
Hadoop, ActiveMQ."""

_PROCESS = (
    Number(names.PROCESS_PID, "pid", absent=0),
    Known("process", (names.PROCESS_EXECUTABLE_NAME, names.PROCESS_EXECUTABLE_PATH)),
)
_REMOTE_END = Known(
    "remote",
    (
        names.NETWORK_TYPE,
        names.SERVER_ADDRESS,
        names.NET_PEER_NAME,
        names.SERVICE_PEER_NAME,
        names.SERVICE_PEER_NAMESPACE,
        names.OTELBPF_PEER_NAMES,
        names.OTELBPF_PEER_TYPE,
        names.OTELBPF_PEER_K8S_NAMESPACE_NAME,
        names.OTELBPF_PEER_K8S_WORKLOAD_NAME,
        names.OTELBPF_PEER_K8S_WORKLOAD_KIND,
        names.OTELBPF_PEER_K8S_POD_NAME,
        names.OTELBPF_PEER_K8S_POD_UID,
        names.OTELBPF_PEER_K8S_NODE_NAME,
        names.OTELBPF_PEER_K8S_SERVICE_NAME,
    ),
)
_ENDS = (
    *_PROCESS,
    Constant(names.NETWORK_TRANSPORT, "tcp"),
    Address(names.NETWORK_LOCAL_ADDRESS, "local_address"),
    Number(names.NETWORK_LOCAL_PORT, "local_port", absent=0),
    Address(names.NETWORK_PEER_ADDRESS, "remote_address"),
    Address(names.SERVER_ADDRESS, "server_address"),
    Address(names.CLIENT_ADDRESS, "client_address"),
    _REMOTE_END,
    Number(names.NETWORK_PEER_PORT, "remote_port", absent=0),
    Address(names.OTELBPF_NAT_PEER_ADDRESS, "nat_address"),
    Number(names.OTELBPF_NAT_PEER_PORT, "nat_port", absent=0),
    Number(names.SERVER_PORT, "server_port", absent=0),
    Number(names.CLIENT_PORT, "client_port", absent=0),
    Number(names.OTELBPF_NETNS, "netns"),
)
_CLOSED = Event(
    name=names.EVENT_TCP_CONNECTION_CLOSED,
    attributes=(
        Choice(names.NETWORK_TCP_HANDSHAKE_ROLE, "role", ROLES),
        *_ENDS,
        Number(names.OTELBPF_TCP_IO_TRANSMIT, "tx_bytes"),
        Number(names.OTELBPF_TCP_IO_RECEIVE, "rx_bytes"),
        Number(names.OTELBPF_TCP_SEGMENTS_TRANSMIT, "tx_segments"),
        Number(names.OTELBPF_TCP_SEGMENTS_RECEIVE, "rx_segments"),
        Number(names.OTELBPF_TCP_RETRANSMITS, "retransmits"),
        Number(names.OTELBPF_TCP_RTT_SMOOTHED, "srtt_us", scale=1e-6, absent=0),
        Number(names.OTELBPF_TCP_RTT_MIN, "min_rtt_us", scale=1e-6, absent=0),
        Number(names.OTELBPF_TCP_HANDSHAKE_DURATION, "handshake_ns", scale=1e-9, absent=0),
        Number(names.OTELBPF_TCP_CONNECTION_DURATION, "duration_ns", scale=1e-9, absent=0),
        Choice(names.OTELBPF_TCP_CLOSE_REASON, "close_reason", CLOSE_REASONS),
        Choice(names.ERROR_TYPE, "error_class", ERRORS),
        Hex(names.OTELBPF_CONNECTION_ID, "connection_id"),
        Choice(names.OTELBPF_CONNECTION_ADOPTED, "adopted", {1: True}),
    ),
    body=lambda batch: closed_sentences(batch, CLOSE_REASONS),
    setting="tcp_connection",
    when="closed",
    failed="went_wrong",
    duration_ns="duration_ns",
    trace_id="connection_id",
    identity=identities,
    complete=add_connection_ids,
)
_FAILED = Event(
    name=names.EVENT_TCP_CONNECTION_FAILED,
    attributes=(
        *_ENDS,
        Number(names.OTELBPF_TCP_RETRANSMITS, "retransmits"),
        Number(names.OTELBPF_TCP_HANDSHAKE_DURATION, "handshake_ns", scale=1e-9, absent=0),
        Choice(names.ERROR_TYPE, "error_class", ERRORS),
    ),
    body=lambda batch: failed_sentences(batch, ERRORS),
    setting="tcp_connection",
    when="failed",
    failed="failed",
    duration_ns="handshake_ns",
    identity=identities,
)

_BY_SERVICE = (  # what tells series apart where the other end would make too many
    Choice(names.NETWORK_TCP_HANDSHAKE_ROLE, "role", ROLES),
    Number(names.SERVER_PORT, "service_port", absent=0),
    Known("edge", (names.OTELBPF_PEER_TYPE,)),
)
_BY_EDGE = (  # which service talks to which: both ends, as far as few peers differ in it
    Choice(names.NETWORK_TCP_HANDSHAKE_ROLE, "role", ROLES),
    Number(names.SERVER_PORT, "service_port", absent=0),
    Known(
        "edge",
        (
            names.OTELBPF_PEER_TYPE,
            names.SERVER_ADDRESS,
            names.SERVICE_PEER_NAME,
            names.SERVICE_PEER_NAMESPACE,
            names.OTELBPF_PEER_K8S_NAMESPACE_NAME,
            names.OTELBPF_PEER_K8S_WORKLOAD_NAME,
            names.OTELBPF_PEER_K8S_WORKLOAD_KIND,
        ),
    ),
)
_TRANSMIT = Constant(names.NETWORK_IO_DIRECTION, "transmit")
_RECEIVE = Constant(names.NETWORK_IO_DIRECTION, "receive")
_METRICS = (
    Counter(
        names.METRIC_OTELBPF_TCP_CONNECTIONS,
        None,
        (*_BY_EDGE, Choice(names.ERROR_TYPE, "failure", ERRORS)),
        when="opened",
    ),
    Counter(
        names.METRIC_OTELBPF_TCP_CLOSES,
        None,
        (*_BY_SERVICE, Choice(names.OTELBPF_TCP_CLOSE_REASON, "close_reason", CLOSE_REASONS)),
        when="closed",
    ),
    Level(names.METRIC_OTELBPF_TCP_CONNECTION_ACTIVE, _BY_SERVICE),
    Counter(names.METRIC_OTELBPF_TCP_IO, "tx_bytes_new", (*_BY_EDGE, _TRANSMIT), when="transmitted"),
    Counter(names.METRIC_OTELBPF_TCP_IO, "rx_bytes_new", (*_BY_EDGE, _RECEIVE), when="received"),
    Counter(names.METRIC_OTELBPF_TCP_RETRANSMITS, "retransmits_new", _BY_EDGE, when="repeated"),
    Counter(names.METRIC_OTELBPF_TCP_RESETS, "tx_resets_new", (*_BY_SERVICE, _TRANSMIT), when="reset_transmitted"),
    Counter(names.METRIC_OTELBPF_TCP_RESETS, "rx_resets_new", (*_BY_SERVICE, _RECEIVE), when="reset_received"),
    Histogram(names.METRIC_OTELBPF_TCP_HANDSHAKE_DURATION, "handshake_ns", 1e-9, _BY_SERVICE, when="handshake_due"),
    Histogram(names.METRIC_OTELBPF_TCP_RTT, "srtt_us", 1e-6, _BY_SERVICE, when="rtt_due"),
    Histogram(names.METRIC_OTELBPF_TCP_CONNECTION_DURATION, "duration_ns", 1e-9, _BY_SERVICE, when="duration_due"),
)
_SUMMED_BY = (Choice(names.NETWORK_TCP_HANDSHAKE_ROLE, "role", ROLES), *THROTTLED)
_TOTALS = (
    Counter(
        names.METRIC_OTELBPF_TCP_CONNECTIONS, EVENTS, (*_SUMMED_BY, Choice(names.ERROR_TYPE, "error_class", ERRORS))
    ),
    Counter(
        names.METRIC_OTELBPF_TCP_CLOSES,
        EVENTS,
        (*_SUMMED_BY, Choice(names.OTELBPF_TCP_CLOSE_REASON, "how", CLOSE_REASONS)),
        when="closed",
    ),
    Counter(names.METRIC_OTELBPF_TCP_IO, "tx_bytes", (*_SUMMED_BY, _TRANSMIT), when="transmitted"),
    Counter(names.METRIC_OTELBPF_TCP_IO, "rx_bytes", (*_SUMMED_BY, _RECEIVE), when="received"),
    Counter(names.METRIC_OTELBPF_TCP_RETRANSMITS, "retransmits", _SUMMED_BY, when="repeated"),
    Counter(names.METRIC_OTELBPF_TCP_RESETS, "tx_resets", (*_SUMMED_BY, _TRANSMIT), when="reset_transmitted"),
    Counter(names.METRIC_OTELBPF_TCP_RESETS, "rx_resets", (*_SUMMED_BY, _RECEIVE), when="reset_received"),
)
_NOT_ZERO = {
    "tx_bytes_new": "transmitted",
    "rx_bytes_new": "received",
    "retransmits_new": "repeated",
    "tx_resets_new": "reset_transmitted",
    "rx_resets_new": "reset_received",
}


class TcpConnections:
    """The `prepare` of this probe: what follows from the row alone, and the accounting over rows."""

    def __init__(self, config: Any) -> None:
        self.undecodable = 0
        self.accounting = Accounting(config.probes.tcp_connection.max_tracked)

    def follow(self, config: Any) -> None:
        """Nothing here depends on what may change."""

    def __call__(self, batch: Batch) -> Batch:
        batch = self.accounting.snapshot(batch) if batch.snapshot else self.accounting.events(batch)
        _add_kinds(batch)
        _add_ports(batch)
        _add_durations(batch)
        batch.columns["nat_port"] = np.zeros(len(batch), np.uint16)  # until enrichment knows better
        batch.columns["nat_address"] = np.zeros(len(batch), "V16")
        for counter, counted in _NOT_ZERO.items():
            batch.columns[counted] = batch.number(counter) > 0
        return batch


def _add_kinds(batch: Batch) -> None:
    rows, columns = batch.rows, batch.columns
    error_class = _error_classes()[rows["error"]]
    columns["closed"] = rows["kind"] == CLOSED
    columns["failed"] = failed = rows["kind"] == FAILED
    columns["went_wrong"] = error_class > 0
    columns["error_class"] = error_class
    columns["failure"] = error_class * failed
    if failed.any():
        for name in ("tx_bytes_new", "rx_bytes_new", "tx_resets_new", "rx_resets_new"):
            batch.number(name)[failed] = 0


def _with_totals(batch: Batch) -> Batch:
    """The columns of sums of ends; one that failed and has no error is of the rest, whose errors are not told apart."""
    rows, columns = batch.rows, batch.columns
    failed = rows["kind"] == FAILED
    columns["closed"] = ~failed
    columns["error_class"] = np.where(failed & (rows["error"] == 0), OTHER, _error_classes()[rows["error"]])
    for counter, counted in _NOT_ZERO.items():
        columns[counted] = rows[counter.removesuffix("_new")] > 0
    return marked(batch)


def _add_ports(batch: Batch) -> None:
    role, local, remote = batch.rows["role"], batch.rows["local_port"], batch.rows["remote_port"]
    is_server = role == SERVER
    server_port = np.where(is_server, local, remote * (role == CLIENT))
    batch.columns["server_port"] = server_port
    batch.columns["client_port"] = remote * is_server
    batch.columns["service_port"] = server_port * (is_server | _service_ports()[remote])


@cache
def _error_classes() -> NDArray[np.uint16]:
    """errno → itself if it has a name in ERRORS, else OTHER; 0 stays 0."""
    classes = np.full(1 << 16, OTHER, np.uint16)
    classes[[0, *ERRORS]] = [0, *ERRORS]
    return classes


@cache
def _service_ports() -> NDArray[np.bool_]:
    """Port → whether it stands for a service."""
    stands = np.arange(1 << 16) < EPHEMERAL_FROM
    stands[list(SERVICE_PORTS)] = True
    return stands


def _add_durations(batch: Batch) -> None:
    rows, columns = batch.rows, batch.columns
    start_ns = rows["start_ns"].astype(np.int64)
    duration_ns = rows["head"]["time_ns"].astype(np.int64) - start_ns
    columns["duration_ns"] = np.where(start_ns > 0, duration_ns, 0)
    columns["duration_due"] = batch.number("closed") & (start_ns > 0)
    columns["handshake_due"] = batch.number("opened") & ~batch.number("failed") & (rows["handshake_ns"] > 0)


PROBE = Probe(
    name="tcp_connection",
    struct="tcp_connection",
    scope=names.SCOPE_TCP,
    summary="TCP connections: who, to whom, how much, how it ended",
    cost="2.4 to 5.3 µs of kernel time a connection with both its ends on this node; 22 ns each system call",
    ways=(
        Way(
            "tp_btf",
            programs=("tcp_state_changed", "tcp_reset_sent"),
            optional=("tcp_received", "tcp_sent", "connect_returned"),
            lost={
                "tcp_received": "the worker of a server's connection (its listener is named instead)",
                "tcp_sent": "the worker of a server that sends first (its listener is named instead)",
                "connect_returned": "connects that fail before a SYN is sent (no route, no free port, not allowed)",
            },
        ),
    ),
    prepare=TcpConnections,
    constants=lambda _config: {},
    events=(_CLOSED, _FAILED),
    metrics=_METRICS,
    totals=Totals(_with_totals, _TOTALS),
    adopt="tcp_adopt",
    snapshots=(
        Walk("tcp_snapshot", over="connections"),
        Walk(
            "tcp_snapshot_of_files",
            misses="what is alive and not open in any process (not accepted yet, closed with bytes to send), until it ends",
        ),
    ),
    tables=lambda prepare: {"tracked": prepare.accounting.fill},
)
