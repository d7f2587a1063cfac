"""What a real agent sends of real pods, named by a real API server, carries the labels that the page's queries ask for."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.backends.questions import queries
from tests.backends.stores import HERE, Stores
from tests.e2e.agent import Agent
from tests.e2e.netns import Namespaces, ip
from tests.e2e.polling import wait_for
from tests.kubernetes.cluster import Objects, owned
from tests.kubernetes.pods import Container
from tests.peers.api_server import ApiServer

if TYPE_CHECKING:
    from collections.abc import Iterator

NODE = "live-node"
ADDRESSES = {"front": "10.245.1.2", "worker": "10.245.2.2", "db": "10.245.0.4"}
NAMESPACES = {"front": "shop", "worker": "billing", "db": "data"}
TALKS = {"front": 3, "worker": 2}
PORT = 5432


def settings(stores: Stores, server: ApiServer) -> dict[str, Any]:
    return {
        "exporters": {"otlp_http": {"endpoint": f"http://{HERE}:{stores.otlp}"}},
        "telemetry": {"enabled": False},
        "metrics": {"interval": "1s"},
        "kubernetes": {"enabled": True, "kubeconfig": str(server.kubeconfig()), "node_name": NODE, "peers": "pods"},
    }


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    """Stores that hold what an agent saw: front and worker, of two namespaces, talk to the database of a third."""
    directory = tmp_path_factory.mktemp("live")
    with ExitStack() as open_:
        running = open_.enter_context(Stores(directory))
        server = open_.enter_context(ApiServer(directory))
        spaces = open_.enter_context(Namespaces("live"))
        made = containers(open_, server, network(spaces))
        made["db"].serve(ADDRESSES["db"], PORT)
        with Agent(directory, settings(running, server)):
            for pod, count in TALKS.items():
                for _ in range(count):
                    made[pod].talk(ADDRESSES["db"], PORT)
            wait_for(lambda: seen(running) == sum(TALKS.values()), "both ends of every connection in Loki", 60)
        yield running


def network(spaces: Namespaces) -> dict[str, str]:
    """A network namespace for each pod; the clients have a way to the database."""
    inside = {pod: spaces.add(pod) for pod in ADDRESSES}
    for pod in TALKS:
        gateway = ADDRESSES[pod].rpartition(".")[0] + ".1"
        spaces.link(inside[pod], [f"{ADDRESSES[pod]}/24"], inside["db"], [f"{gateway}/24"])
        ip("-n", inside[pod], "route", "add", ADDRESSES["db"], "via", gateway)
    ip("-n", inside["db"], "addr", "add", f"{ADDRESSES['db']}/32", "dev", "lo")
    return inside


def containers(open_: ExitStack, server: ApiServer, inside: dict[str, str]) -> dict[str, Container]:
    """Running pods, as the API server has them too."""
    objects = Objects(server)
    objects.node(NODE, HERE)
    found = {}
    for pod, namespace in NAMESPACES.items():
        objects.namespace(namespace)
        labels = {"pod-template-hash": "7d9f"}
        uid = objects.pod(namespace, f"{pod}-7d9f-a", NODE, metadata=owned("ReplicaSet", f"{pod}-7d9f", **labels))
        found[pod] = open_.enter_context(Container(uid, inside[pod]))
        objects.running(namespace, f"{pod}-7d9f-a", ADDRESSES[pod], {"app": found[pod].id})
    return found


def seen(stores: Stores) -> int:
    """Connections that both ends have told."""
    query = (
        'sum by (role) (count_over_time({k8s_namespace_name=~".+"} | otel_event_name="otelbpf.tcp.connection.closed"'
    )
    query += " | label_format role=`{{ .network_tcp_handshake_role }}` [1h]))"
    counts = {labels.get("role"): value for labels, value in stores.logql(query, time.time_ns())}
    return int(min(counts.get("client", 0), counts.get("server", 0)))


def answer(stores: Stores, question: str, number: int, *labels: str) -> dict[tuple[str, ...], float]:
    (query,) = (one for one in queries() if (one.question, one.number) == (question, number))
    ask = stores.promql if query.language == "promql" else stores.logql
    found: dict[tuple[str, ...], float] = {}
    for metric, value in ask(query.text, time.time_ns()):
        key = tuple(metric.get(label, "") for label in labels)
        found[key] = found.get(key, 0) + value
    return found


def test_shared_databases(stores):
    labels = ("service_peer_namespace", "service_peer_name", "server_port")
    found = answer(stores, "Which databases are shared between namespaces?", 1, *labels)
    assert found == {("data", "db", str(PORT)): 2}


def test_who_crosses_namespaces(stores):
    pairs = ("k8s_namespace_name", "otelbpf_peer_k8s_namespace_name")
    found = answer(stores, "Who crosses namespaces?", 1, *pairs)
    assert found == {("shop", "data"): TALKS["front"], ("billing", "data"): TALKS["worker"]}


def test_their_pods(stores):
    found = answer(stores, "Who crosses namespaces?", 2, "k8s_pod_name", "otelbpf_peer_k8s_pod_name")
    assert found == {("worker-7d9f-a", "db-7d9f-a"): TALKS["worker"]}


def test_who_never_talks_to_consul(stores):
    found = answer(stores, "Which pods never talk to Consul?", 1, "k8s_namespace_name", "k8s_pod_name")
    assert found == {("shop", "front-7d9f-a"): 1, ("billing", "worker-7d9f-a"): 1}


def test_one_connection_from_both_ends(stores):
    labels = ("otelbpf_connection_id", "network_tcp_handshake_role")
    lines = stores.logql('{k8s_namespace_name=~".+"} | otelbpf_connection_id!=""', time.time_ns())
    ends = [tuple(one[label] for label in labels) for one, _ in lines]
    identities = {identity for identity, _role in ends}
    assert len(identities) == sum(TALKS.values())
    assert sorted(ends) == sorted((identity, role) for identity in identities for role in ("client", "server"))
