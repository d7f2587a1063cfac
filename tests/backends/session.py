"""The scripted session: a small cluster on two nodes, and everything its pods do for two minutes.

shop/front-7d9f-a (node-1) ─▶ shop/cart, consul, api.partner.net; asks for cart with its search domains
shop/front-7d9f-b (node-2) ─▶ shop/cart (refused), shop.example.com: our own public name
shop/cart-5c4b-a  (node-2) ─▶ data/db by way of the mesh's proxy there, consul, itself by its own service
billing/worker-1  (node-1) ─▶ data/db past the proxy, the API server, 203.0.113.9 without a name; never consul
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.backends import otlp

STEP_S, STEPS = 10, 12
"""Metrics are sent so often, so many times."""
CLOSED, FAILED, LOOKUP = "otelbpf.tcp.connection.closed", "otelbpf.tcp.connection.failed", "otelbpf.dns.lookup"


class Pod(NamedTuple):
    """A pod of a Deployment, or one of its containers: the usual one has the name of its workload."""

    namespace: str
    workload: str
    name: str
    node: str
    address: str
    sidecar: str = ""

    @property
    def container(self) -> str:
        return self.sidecar or self.workload

    @property
    def resource(self) -> dict[str, Any]:
        return {
            "host.name": self.node,
            "service.name": self.workload,
            "service.namespace": self.namespace,
            "service.instance.id": f"{self.namespace}.{self.name}.{self.container}",
            "k8s.cluster.name": "test",
            "k8s.node.name": self.node,
            "k8s.namespace.name": self.namespace,
            "k8s.pod.name": self.name,
            "k8s.deployment.name": self.workload,
            "k8s.container.name": self.container,
        }


FRONT_A = Pod("shop", "front", "front-7d9f-a", "node-1", "10.1.1.1")
FRONT_B = Pod("shop", "front", "front-7d9f-b", "node-2", "10.1.2.1")
CART = Pod("shop", "cart", "cart-5c4b-a", "node-2", "10.1.2.2")
WORKER = Pod("billing", "worker", "worker-1", "node-1", "10.1.1.2")
DB = Pod("data", "db", "db-0", "node-2", "10.1.2.3")
DB_PROXY = DB._replace(sidecar="istio-proxy")
CONSUL = Pod("consul", "consul", "consul-0", "node-1", "10.1.1.3")
PODS = (FRONT_A, FRONT_B, CART, WORKER, DB, DB_PROXY, CONSUL)


class Target(NamedTuple):
    """Another end as a client sees it: attributes of edges (metrics), more of records."""

    port: int
    edge: dict[str, Any]
    more: dict[str, Any]


def service(pod: Pod, port: int) -> Target:
    """The service in front of *pod*, whose backend is known."""
    edge = {
        "otelbpf.peer.type": "service",
        "service.peer.name": pod.workload,
        "service.peer.namespace": pod.namespace,
        "otelbpf.peer.k8s.namespace.name": pod.namespace,
        "otelbpf.peer.k8s.workload.name": pod.workload,
        "otelbpf.peer.k8s.workload.kind": "Deployment",
        "server.address": f"{pod.workload}.{pod.namespace}.svc.cluster.local",
    }
    more = {
        "otelbpf.peer.k8s.pod.name": pod.name,
        "otelbpf.peer.k8s.node.name": pod.node,
        "network.peer.address": "10.96.0.9",
    }
    return Target(port, edge, more)


def outside(address: str, name: str | None) -> Target:
    """A host outside of the cluster."""
    edge: dict[str, Any] = {"otelbpf.peer.type": "external"}
    more: dict[str, Any] = {"network.peer.address": address, "server.address": name or address}
    return Target(443, edge | ({"server.address": name} if name else {}), more)


API_SERVER = Target(
    443,
    {
        "otelbpf.peer.type": "service", "service.peer.name": "kubernetes", "service.peer.namespace": "default",
        "server.address": "kubernetes.default.svc",
    },
    {"network.peer.address": "10.96.0.1"},
)  # fmt: skip
PARTNER = outside("198.51.100.7", "api.partner.net")
PUBLIC = outside("192.0.2.10", "shop.example.com")
NAMELESS = outside("203.0.113.9", None)


class Talk(NamedTuple):
    """*count* connections of *client*, each with so many bytes; *error*: what each failed with; *sidecar*: who takes
    them at the other end in place of the usual container."""

    client: Pod
    target: Target
    count: int
    sent: int = 1000
    received: int = 5000
    error: str = ""
    sidecar: str = ""

    def is_served_by(self, pod: Pod) -> bool:
        """Whether *pod* has its other end."""
        reached = self.target.more.get("otelbpf.peer.k8s.pod.name") == pod.name and self.sidecar == pod.sidecar
        return reached and not self.error


class Asking(NamedTuple):
    """*count* lookups of one name."""

    client: Pod
    name: str
    count: int
    code: str = "NOERROR"
    seconds: float = 0.004


TALKS = (
    Talk(FRONT_A, service(CART, 8080), 120),
    Talk(FRONT_A, service(CONSUL, 8500), 12),
    Talk(FRONT_A, PARTNER, 24, sent=2000),
    Talk(FRONT_B, service(CART, 8080), 36, error="connection_refused"),
    Talk(FRONT_B, PUBLIC, 48),
    Talk(CART, service(DB, 5432), 240, sidecar="istio-proxy"),
    Talk(CART, service(CART, 8080), 6),
    Talk(CART, service(CONSUL, 8500), 12),
    Talk(WORKER, service(DB, 5432), 60),
    Talk(WORKER, API_SERVER, 12, received=100_000),
    Talk(WORKER, NAMELESS, 12, sent=3000),
)
SEARCHED = "cart.shop.svc.cluster.local.shop.svc.cluster.local"
ASKINGS = (
    Asking(FRONT_A, "cart.shop.svc.cluster.local", 120),
    Asking(FRONT_A, SEARCHED, 240, code="NXDOMAIN"),
    Asking(FRONT_A, "api.partner.net", 24, seconds=0.04),
    Asking(FRONT_B, "Shop.Example.com", 48),
    Asking(WORKER, "gone.billing.svc.cluster.local", 36, code="NXDOMAIN"),
    Asking(CART, "db.data.svc.cluster.local", 12),
)
CONNECTION_ID = f"{1:032x}"
"""Of the first connection of front to cart, which both ends tell."""


@dataclass
class Session:
    """The requests, oldest first; it ends at *end_ns* (Unix time)."""

    end_ns: int
    logs: list[Any] = field(default_factory=list)
    metrics: list[Any] = field(default_factory=list)

    def play(self) -> Session:
        """Makes all requests."""
        start_ns = self.end_ns - STEPS * STEP_S * 10**9
        for step in range(STEPS + 1):
            now_ns = start_ns + step * STEP_S * 10**9
            for pod in PODS:
                self.metrics.append(otlp.metrics_request(pod.resource, _metrics(pod, step, start_ns, now_ns)))
        for pod in PODS:
            records = [*_connections(pod, start_ns), *_lookups(pod, start_ns)]
            for first in range(0, len(records), 500):
                self.logs.append(otlp.logs_request(pod.resource, records[first : first + 500]))
        return self


def _metrics(pod: Pod, step: int, start_ns: int, now_ns: int) -> list[Any]:
    """What the pod's totals are after *step* of STEPS."""
    connections, transferred, lookups = [], [], []
    for talk in TALKS:
        done = talk.count * step // STEPS
        if talk.client is pod:
            edge = {"network.tcp.handshake.role": "client", "server.port": talk.target.port, **talk.target.edge}
            failed = {"error.type": talk.error} if talk.error else {}
            connections.append((edge | failed, done))
            if not talk.error:
                transferred.append((edge | {"network.io.direction": "transmit"}, done * talk.sent))
                transferred.append((edge | {"network.io.direction": "receive"}, done * talk.received))
        if talk.is_served_by(pod):
            connections.append((_as_server(talk), done))
    for asked in ASKINGS:
        if asked.client is pod:
            failed = {"error.type": "host_not_found"} if asked.code == "NXDOMAIN" else {}
            lookups.append(({"dns.question.name": asked.name, **failed}, asked.count * step // STEPS, asked.seconds))
    return [
        otlp.counter("otelbpf.tcp.connections", connections, start_ns, now_ns),
        otlp.counter("otelbpf.tcp.io", transferred, start_ns, now_ns),
        otlp.histogram("dns.lookup.duration", lookups, start_ns, now_ns),
    ]


def _as_server(talk: Talk) -> dict[str, Any]:
    return {
        "network.tcp.handshake.role": "server",
        "server.port": talk.target.port,
        "otelbpf.peer.type": "pod",
        "otelbpf.peer.k8s.namespace.name": talk.client.namespace,
        "otelbpf.peer.k8s.workload.name": talk.client.workload,
        "otelbpf.peer.k8s.workload.kind": "Deployment",
    }


def _connections(pod: Pod, start_ns: int) -> list[Any]:
    records = []
    for number, talk in enumerate(TALKS):
        for index in range(talk.count):
            time_ns = start_ns + index * STEPS * STEP_S * 10**9 // talk.count + number
            identity = {
                "otelbpf.connection.id": CONNECTION_ID if number == index == 0 else f"{number + 1:016x}{index:016x}"
            }
            if talk.client is pod and talk.error:
                records.append(otlp.record(FAILED, time_ns, _client(talk) | {"error.type": talk.error}))
            elif talk.client is pod:
                counted = {"otelbpf.tcp.io.transmit": talk.sent, "otelbpf.tcp.io.receive": talk.received}
                role = {"network.tcp.handshake.role": "client"}
                records.append(otlp.record(CLOSED, time_ns, role | _client(talk) | counted | identity))
            if talk.is_served_by(pod):
                counted = {"otelbpf.tcp.io.transmit": talk.received, "otelbpf.tcp.io.receive": talk.sent}
                peer = {"otelbpf.peer.k8s.pod.name": talk.client.name, "otelbpf.peer.k8s.node.name": talk.client.node}
                ends = {"network.peer.address": talk.client.address, "network.local.address": pod.address}
                records.append(otlp.record(CLOSED, time_ns, _as_server(talk) | peer | ends | counted | identity))
    return records


def _client(talk: Talk) -> dict[str, Any]:
    return {
        "network.local.address": talk.client.address,
        "network.peer.port": talk.target.port,
        "server.port": talk.target.port,
        **talk.target.edge,
        **talk.target.more,
    }


def _lookups(pod: Pod, start_ns: int) -> list[Any]:
    records = []
    for number, asked in enumerate(ASKINGS):
        for index in range(asked.count if asked.client is pod else 0):
            time_ns = start_ns + index * STEPS * STEP_S * 10**9 // asked.count + 100 + number
            failed = {"error.type": "host_not_found"} if asked.code == "NXDOMAIN" else {}
            attributes = {
                "dns.question.name": asked.name, "otelbpf.dns.question.type": "A", "otelbpf.dns.role": "client",
                "otelbpf.dns.response.code": asked.code, "otelbpf.dns.lookup.duration": asked.seconds, **failed,
            }  # fmt: skip
            records.append(otlp.record(LOOKUP, time_ns, attributes))
    return records
