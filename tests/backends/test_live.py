"""The page's queries on what a real agent sends: real pods' connections and lookups, named by a real API server.

shop/front ─▶ db, consul (also a port that refuses), shop.example.com; asks for a name that is not there
billing/worker ─▶ db, the API server, 203.0.113.9 without a name
data/db is on the other node: its own end is not told here, and everything outside is served in its namespace
"""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from tests.backends.questions import queries
from tests.backends.stores import HERE, Stores
from tests.e2e.agent import Agent
from tests.e2e.netns import Namespaces, ip
from tests.e2e.polling import wait_for
from tests.e2e.processes import dnsmasq
from tests.kubernetes.cluster import Objects, owned
from tests.kubernetes.pods import Container
from tests.peers.api_server import ApiServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NODE, OTHER = "live-node", "other-node"
PODS = {
    "front": ("shop", NODE, "10.245.1.2"), "worker": ("billing", NODE, "10.245.2.2"),
    "consul": ("consul", NODE, "10.245.3.2"), "db": ("data", OTHER, "10.245.0.4"),
}  # fmt: skip
DB, CONSUL = PODS["db"][2], PODS["consul"][2]
RESOLVER, PUBLIC, NAMELESS, API_SERVER = "10.245.0.53", "198.51.100.7", "203.0.113.9", "10.96.0.1"
TALKS = (
    ("front", DB, 5432), ("front", DB, 5432), ("front", CONSUL, 8500), ("front", "shop.example.com", 443),
    ("worker", DB, 5432), ("worker", API_SERVER, 443), ("worker", NAMELESS, 443),
)  # fmt: skip
FAILURES = (("front", CONSUL, 8501), ("front", "gone.example.com", 443))
ROUNDS = 2
"""A counter grows only after its first point."""
WATCHES = {"pods", "peer_pods", "services", "nodes"}
FRONT, WORKER, CONSUL_POD = (f"{pod}-7d9f-a" for pod in ("front", "worker", "consul"))
DNS_NAMES = ("shop.example.com", "gone.example.com")


def settings(stores: Stores, server: ApiServer) -> dict[str, Any]:
    """Of an agent that looks at pods only: the machine may be busy with other things."""
    return {
        "filters": {"cgroups": {"include": ["*kubepods*"]}},
        "exporters": {"otlp_http": {"endpoint": f"http://{HERE}:{stores.otlp}"}},
        "telemetry": {"interval": "1s"},
        "metrics": {"interval": "1s"},
        "kubernetes": {"enabled": True, "kubeconfig": str(server.kubeconfig()), "node_name": NODE, "peers": "pods"},
    }


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    """Stores that hold what the agent saw."""
    directory = tmp_path_factory.mktemp("live")
    with ExitStack() as open_:
        running = open_.enter_context(Stores(directory))
        server = open_.enter_context(ApiServer(directory))
        containers = open_.enter_context(cluster(server, directory))
        with Agent(directory, settings(running, server)):
            wait_for(lambda: answered(running) >= WATCHES, "the first lists", 60)
            for number in range(1, ROUNDS + 1):
                play(containers)
                wait_for(lambda rounds=number: measured(running, rounds), "a round in Prometheus", 60)
            wait_for(lambda: all_told(running), "the records in Loki", 60)
        yield running


@contextmanager
def cluster(server: ApiServer, directory: Path) -> Iterator[dict[str, Container]]:
    """Running pods with networks, as the API server has them too; what they talk to is served."""
    objects = Objects(server)
    objects.node(NODE, HERE)
    with ExitStack() as open_:
        inside = network(open_.enter_context(Namespaces("live")))
        found = {}
        for pod, (namespace, node, address) in PODS.items():
            objects.namespace(namespace)
            metadata = owned("ReplicaSet", f"{pod}-7d9f", **{"pod-template-hash": "7d9f"})
            uid = objects.pod(namespace, f"{pod}-7d9f-a", node, metadata=metadata)
            found[pod] = open_.enter_context(Container(uid, inside[pod]))
            objects.running(namespace, f"{pod}-7d9f-a", address, {"app": found[pod].id})
        for address, port in ((DB, 5432), (PUBLIC, 443), (NAMELESS, 443), (API_SERVER, 443)):
            found["db"].serve(address, port)
        found["consul"].serve(CONSUL, 8500)
        words = (
            f"listen-address={RESOLVER}",
            "bind-interfaces",
            "local=/example.com/",
            f"host-record=shop.example.com,{PUBLIC}",
        )
        open_.enter_context(dnsmasq(inside["db"], directory, *words))
        yield found


def network(spaces: Namespaces) -> dict[str, str]:
    """A network namespace for each pod; that of the database is the way to everywhere."""
    inside = {pod: spaces.add(pod) for pod in PODS}
    for pod in set(PODS) - {"db"}:
        address = PODS[pod][2]
        gateway = address.rpartition(".")[0] + ".1"
        spaces.link(inside[pod], [f"{address}/24"], inside["db"], [f"{gateway}/24"])
        ip("-n", inside[pod], "route", "add", "default", "via", gateway)
        spaces.resolver(inside[pod], RESOLVER)
    for address in (DB, RESOLVER, PUBLIC, NAMELESS, API_SERVER):
        ip("-n", inside["db"], "addr", "add", f"{address}/32", "dev", "lo")
    spaces.run(inside["db"], "sysctl", "-qw", "net.ipv4.ip_forward=1")
    return inside


def play(containers: dict[str, Container]) -> None:
    """Everything once."""
    for pod, host, port in TALKS:
        containers[pod].talk(host, port)
    for pod, host, port in FAILURES:
        with suppress(RuntimeError):
            containers[pod].talk(host, port)


def answered(stores: Stores) -> set[str]:
    """The watches of which the agent has said that they are answered: whom it does not know yet it cannot name."""
    query = 'otelbpf_agent_watch_status{otelbpf_watch_state="answered"} > 0'
    return {labels["otelbpf_watch_name"] for labels, _ in stores.promql(query, time.time_ns())}


def measured(stores: Stores, rounds: int) -> bool:
    """Whether Prometheus has all of so many rounds."""
    chosen = 'k8s_pod_name!="",network_tcp_handshake_role="client"'
    wanted = {
        f'otelbpf_tcp_connections_total{{{chosen},error_type=""}}': len(TALKS),
        f'otelbpf_tcp_connections_total{{{chosen},error_type!=""}}': 1,
        'dns_lookup_duration_seconds_count{k8s_pod_name!="",error_type=""}': 2,  # A and AAAA
        'dns_lookup_duration_seconds_count{k8s_pod_name!="",error_type!=""}': 2,
    }
    now_ns = time.time_ns()
    return all(
        sum(value for _, value in stores.promql(f"sum({one})", now_ns)) >= rounds * each for one, each in wanted.items()
    )


def told(stores: Stores, selector: str) -> int:
    """Log records of our pods' clients that *selector* picks."""
    query = f'sum(count_over_time({{k8s_namespace_name=~".+"}} | network_tcp_handshake_role!="server" {selector} [1h]))'
    return int(sum(value for _labels, value in stores.logql(query, time.time_ns())))


def all_told(stores: Stores) -> bool:
    """Whether Loki has every connection, every refusal, and the names that are not there."""
    return (
        told(stores, '| otel_event_name="otelbpf.tcp.connection.closed"') >= ROUNDS * len(TALKS)
        and told(stores, '| otel_event_name="otelbpf.tcp.connection.failed"') >= ROUNDS
        and told(stores, '| error_type="host_not_found"') >= ROUNDS
    )


KEYS: dict[tuple[str, int], tuple[tuple[str, ...], set[tuple[str, ...]]]] = {
    ("Which databases are shared between namespaces?", 1): (
        ("service_peer_namespace", "service_peer_name", "server_port"),
        {("data", "db", "5432")},
    ),
    ("Which databases are shared between namespaces?", 2): (
        ("k8s_namespace_name", "service_name"),
        {("shop", "front"), ("billing", "worker")},
    ),
    ("Where are the DNS hot spots?", 1): (
        ("k8s_namespace_name", "k8s_pod_name", "dns_question_name"),
        {("shop", FRONT, name) for name in DNS_NAMES},
    ),
    ("Where are the DNS hot spots?", 2): (
        ("k8s_namespace_name", "service_name", "dns_question_name"),
        {("shop", "front", "gone.example.com")},
    ),
    ("Where are the DNS hot spots?", 3): (("k8s_pod_name", "dns_question_name"), {(FRONT, "gone.example.com")}),
    ("Where are the DNS hot spots?", 4): (("k8s_namespace_name", "service_name"), {("shop", "front")}),
    ("Who crosses namespaces?", 1): (
        ("k8s_namespace_name", "otelbpf_peer_k8s_namespace_name"),
        {("shop", "data"), ("shop", "consul"), ("billing", "data"), ("billing", "default")},
    ),
    ("Who crosses namespaces?", 2): (
        ("k8s_pod_name", "otelbpf_peer_k8s_pod_name"),
        {(WORKER, "db-7d9f-a"), (WORKER, "")},
    ),
    ("Who crosses nodes?", 1): (("k8s_node_name", "otelbpf_peer_k8s_node_name"), {(NODE, OTHER)}),
    ("Who leaves the cluster, and where to?", 1): (
        ("k8s_namespace_name", "service_name", "server_address", "server_port"),
        {("shop", "front", "shop.example.com", "443"), ("billing", "worker", "", "443")},
    ),
    ("Who leaves the cluster, and where to?", 2): (
        ("k8s_namespace_name", "service_name", "server_address"),
        {("shop", "front", "shop.example.com"), ("billing", "worker", "")},
    ),
    ("Who leaves the cluster, and where to?", 3): (
        ("k8s_namespace_name", "service_name", "network_peer_address"),
        {("billing", "worker", NAMELESS)},
    ),
    ("Who talks to the API server?", 1): (("k8s_namespace_name", "service_name"), {("billing", "worker")}),
    ("Who talks to the API server?", 2): (("k8s_namespace_name", "k8s_pod_name"), {("billing", WORKER)}),
    ("Which pods never talk to Consul?", 1): (("k8s_namespace_name", "k8s_pod_name"), {("billing", WORKER)}),
    ("Who inside calls our own public names?", 1): (
        ("k8s_namespace_name", "service_name", "server_address"),
        {("shop", "front", "shop.example.com")},
    ),
    ("Who inside calls our own public names?", 2): (
        ("k8s_namespace_name", "service_name", "dns_question_name"),
        {("shop", "front", name) for name in DNS_NAMES},
    ),
    ("What fails?", 1): (
        ("k8s_namespace_name", "service_name", "service_peer_namespace", "service_peer_name", "error_type"),
        {("shop", "front", "consul", "consul", "connection_refused")},
    ),
}
"""Question and number → the labels to look at, and all that must come out of our pods: others of this machine, without a
namespace, may be told as well. The questions left out name things of another session."""


@pytest.mark.parametrize("query", [one for one in queries() if (one.question, one.number) in KEYS], ids=str)
def test_the_answer(stores, query):
    labels, expected = KEYS[query.question, query.number]
    ask = stores.promql if query.language == "promql" else stores.logql
    found = [one for one, value in ask(query.text, time.time_ns()) if value]
    of_pods = [one for one in found if "k8s_namespace_name" not in labels or "k8s_namespace_name" in one]
    assert {tuple(one.get(label, "") for label in labels) for one in of_pods} == expected


def test_one_connection_from_both_ends(stores):
    """Of those whose ends are both on this node: front to consul."""
    labels = ("otelbpf_connection_id", "network_tcp_handshake_role", "k8s_pod_name")
    found = stores.logql('{k8s_namespace_name=~".+"} | otelbpf_connection_id!="" | server_port="8500"', time.time_ns())
    ends = sorted(tuple(one[label] for label in labels) for one, _ in found)
    identities = {identity for identity, _role, _pod in ends}
    assert len(identities) == ROUNDS
    pods = (("client", FRONT), ("server", CONSUL_POD))
    assert ends == sorted((identity, role, pod) for identity in identities for role, pod in pods)
