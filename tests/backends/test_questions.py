"""Each query of docs/questions.md gives the right answer about the scripted session, in the stores that it is for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.backends.questions import queries
from tests.backends.session import CONNECTION_ID, SEARCHED, Session
from tests.backends.stores import NS, Refused, Stores

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.backends.questions import Query

EXTRAPOLATION = 0.1
"""increase() and rate() guess what happened before the first and after the last point."""
Answers = dict[tuple[str, ...], float]


@pytest.fixture(scope="module")
def session() -> Session:
    return Session(end_ns=time.time_ns() // NS * NS).play()


@pytest.fixture(scope="module")
def stores(session: Session, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    with Stores(tmp_path_factory.mktemp("stores")) as running:
        running.take(session)
        yield running


ANSWERS: dict[tuple[str, int], tuple[tuple[str, ...], Answers]] = {
    ("Which databases are shared between namespaces?", 1): (
        ("service_peer_namespace", "service_peer_name", "server_port"),
        {("data", "db", "5432"): 2},
    ),
    ("Which databases are shared between namespaces?", 2): (
        ("k8s_namespace_name", "service_name"),
        {("shop", "cart"): 240, ("billing", "worker"): 60},
    ),
    ("Where are the DNS hot spots?", 1): (
        ("k8s_namespace_name", "k8s_pod_name", "dns_question_name"),
        {
            ("shop", "front-7d9f-a", SEARCHED): 240 / 300,
            ("shop", "front-7d9f-a", "cart.shop.svc.cluster.local"): 120 / 300,
            ("shop", "front-7d9f-b", "Shop.Example.com"): 48 / 300,
            ("billing", "worker-1", "gone.billing.svc.cluster.local"): 36 / 300,
            ("shop", "front-7d9f-a", "api.partner.net"): 24 / 300,
        },
    ),
    ("Where are the DNS hot spots?", 2): (
        ("k8s_namespace_name", "service_name", "dns_question_name"),
        {("shop", "front", SEARCHED): 240, ("billing", "worker", "gone.billing.svc.cluster.local"): 36},
    ),
    ("Where are the DNS hot spots?", 3): (
        ("k8s_pod_name", "dns_question_name"),
        {("front-7d9f-a", SEARCHED): 240, ("worker-1", "gone.billing.svc.cluster.local"): 36},
    ),
    ("Where are the DNS hot spots?", 4): (
        ("k8s_namespace_name", "service_name"),
        {("shop", "front"): 0.0276, ("shop", "cart"): 0.0049, ("billing", "worker"): 0.0049},
    ),
    ("Who crosses namespaces?", 1): (
        ("k8s_namespace_name", "otelbpf_peer_k8s_namespace_name"),
        {("shop", "consul"): 24, ("shop", "data"): 240, ("billing", "data"): 60},
    ),
    ("Who crosses namespaces?", 2): (("k8s_pod_name", "otelbpf_peer_k8s_pod_name"), {("worker-1", "db-0"): 60}),
    ("Who crosses nodes?", 1): (
        ("k8s_node_name", "otelbpf_peer_k8s_node_name"),
        {("node-1", "node-2"): 120_000 + 60_000, ("node-2", "node-1"): 12_000},
    ),
    ("Who leaves the cluster, and where to?", 1): (
        ("k8s_namespace_name", "service_name", "server_address", "server_port"),
        {
            ("shop", "front", "api.partner.net", "443"): 24,
            ("shop", "front", "shop.example.com", "443"): 48,
            ("billing", "worker", "", "443"): 12,
        },
    ),
    ("Who leaves the cluster, and where to?", 2): (
        ("k8s_namespace_name", "service_name", "server_address"),
        {
            ("shop", "front", "api.partner.net"): 48_000,
            ("shop", "front", "shop.example.com"): 48_000,
            ("billing", "worker", ""): 36_000,
        },
    ),
    ("Who leaves the cluster, and where to?", 3): (
        ("k8s_namespace_name", "service_name", "network_peer_address"),
        {("billing", "worker", "203.0.113.9"): 12},
    ),
    ("Who talks to the API server?", 1): (("k8s_namespace_name", "service_name"), {("billing", "worker"): 12}),
    ("Who talks to the API server?", 2): (
        ("k8s_namespace_name", "k8s_pod_name"),
        {("billing", "worker-1"): 12 * 100_000 / 300},
    ),
    ("Who bypasses the mesh?", 1): (
        (
            "k8s_namespace_name",
            "service_name",
            "server_port",
            "otelbpf_peer_k8s_namespace_name",
            "otelbpf_peer_k8s_workload_name",
        ),
        {("data", "db", "5432", "billing", "worker"): 60},
    ),
    ("Who calls itself by its own service?", 1): (
        ("k8s_namespace_name", "k8s_pod_name", "service_peer_name"),
        {("shop", "cart-5c4b-a", "cart"): 6},
    ),
    ("Which pods never talk to Consul?", 1): (
        ("k8s_namespace_name", "k8s_pod_name"),
        {("shop", "front-7d9f-b"): 1, ("billing", "worker-1"): 1},
    ),
    ("Who inside calls our own public names?", 1): (
        ("k8s_namespace_name", "service_name", "server_address"),
        {("shop", "front", "shop.example.com"): 48},
    ),
    ("Who inside calls our own public names?", 2): (
        ("k8s_namespace_name", "service_name", "dns_question_name"),
        {("shop", "front", "Shop.Example.com"): 48},
    ),
    ("What fails?", 1): (
        (
            "k8s_namespace_name",
            "service_name",
            "service_peer_namespace",
            "service_peer_name",
            "server_port",
            "error_type",
        ),
        {("shop", "front", "shop", "cart", "8080", "connection_refused"): 36},
    ),
    ("What fails?", 2): (("k8s_pod_name", "error_type"), {("front-7d9f-b", "connection_refused"): 36}),
    ("Which connection is this, seen from the other end?", 1): (
        ("k8s_pod_name", "network_tcp_handshake_role"),
        {("front-7d9f-a", "client"): 1, ("cart-5c4b-a", "server"): 1},
    ),
}
"""Question and number → the labels to look at, and their values with what is to come out."""


def test_every_query_has_an_answer_here():
    assert {(query.question, query.number) for query in queries()} == set(ANSWERS)


@pytest.mark.parametrize("query", queries(), ids=str)
def test_the_answer(stores: Stores, session: Session, query: Query):
    labels, expected = ANSWERS[query.question, query.number]
    ask = stores.promql if query.language == "promql" else stores.logql
    found: Answers = {}
    for metric, value in ask(query.text, session.end_ns):
        key = tuple(metric.get(label, "") for label in labels)
        found[key] = found.get(key, 0) + value
    exact = query.language == "logql"
    assert found == pytest.approx(expected, rel=1e-9 if exact else EXTRAPOLATION)


@pytest.mark.parametrize("language", ["promql", "logql"])
def test_a_mistake_would_be_seen(stores, session, language):
    with pytest.raises(Refused):
        getattr(stores, language)("sum by (x) (count_over_time(", session.end_ns)


def test_the_connection_of_the_page_is_in_the_session():
    (query,) = (one for one in queries() if "otelbpf_connection_id" in one.text)
    assert CONNECTION_ID in query.text
