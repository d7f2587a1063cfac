"""Real connections while the API server is away: before it answers, after it was killed, and when it is back."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.e2e.agent import Agent
from tests.e2e.polling import wait_for
from tests.kubernetes.cluster import Objects, owned
from tests.kubernetes.pods import Container, let_go
from tests.kubernetes.roles import bind, let_in, unbind
from tests.kubernetes.test_check import configured, rows
from tests.kubernetes.test_names import PORT, Network, answered, collector, ends, network, of, settings
from tests.peers.api_server import AGENT, ApiServer
from tests.peers.program import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


__all__ = ["collector", "network"]
NODE = "away-node"
AS_AGENT = {"kind": "User", "name": "agent"}
UNKNOWN = "11111111-2222-3333-4444-999999999999"


@pytest.fixture
def own(tmp_path: Path) -> Iterator[ApiServer]:
    """A server that the test may kill."""
    with ApiServer(tmp_path) as running:
        yield running


class Pods(NamedTuple):
    """Two that talk to each other, as the API server has them and as they run."""

    client: Container
    backend: Container
    uids: tuple[str, str]

    @property
    def client_names(self) -> dict[str, Any]:
        return {"k8s.pod.name": "web-7d9f-a", "k8s.pod.uid": self.uids[0], "k8s.deployment.name": "web"}


def pair(objects: Objects, network: Network, open_: ExitStack) -> Pods:
    objects.namespace("shop")
    of_deployment = owned("ReplicaSet", "web-7d9f", **{"pod-template-hash": "7d9f"})
    uids = objects.pod("shop", "web-7d9f-a", NODE, metadata=of_deployment), objects.pod("shop", "db-0", NODE)
    client = open_.enter_context(Container(uids[0], network.client_namespace))
    backend = open_.enter_context(Container(uids[1], network.server_namespace))
    objects.running("shop", "web-7d9f-a", network.client, {"app": client.id})
    objects.running("shop", "db-0", network.server, {"app": backend.id})
    backend.serve(network.server, PORT)
    return Pods(client, backend, uids)


def test_an_agent_that_starts_before_the_server_names_everything_when_it_is_there(tmp_path, own, collector, network):
    with ExitStack() as open_:
        pods = pair(Objects(own), network, open_)
        own.server.kill()
        agent = open_.enter_context(Agent(tmp_path, settings(collector, own, NODE, hold="1s")))
        lasting = pods.backend.serve(network.server, PORT + 1)
        pods.client.hold(network.server, PORT + 1)
        pods.client.talk(network.server, PORT)
        for record, uid, container in zip(
            ends(collector, pods.client.id, pods.backend.id), pods.uids, (pods.client, pods.backend), strict=True
        ):
            assert record.resource["k8s.pod.uid"] == uid
            assert record.resource["container.id"] == container.id
            assert "k8s.pod.name" not in record.resource
            assert "otelbpf.peer.type" not in record.attributes
        own.server.start()
        wait_for(lambda: answered(collector) >= {"pods", "peer_pods"}, "the first lists", 90)
        let_go(lasting)
        after = collector.wait_for_records(
            lambda record: record.resource.get("container.id") == pods.client.id and record["server.port"] == PORT + 1,
            1,
        )
        agent.stop()
    (named,) = after
    assert of(named.resource, pods.client_names) == pods.client_names
    assert named["otelbpf.peer.k8s.pod.name"] == "db-0"
    assert named["otelbpf.peer.type"] == "pod"
    assert agent.summary.events["tcp_connection"].balanced


def test_a_server_that_is_killed_takes_no_name_away_and_brings_new_ones_when_it_is_back(
    tmp_path, own, collector, network
):
    objects = Objects(own)
    with ExitStack() as open_:
        pods = pair(objects, network, open_)
        agent = open_.enter_context(Agent(tmp_path, settings(collector, own, NODE, hold="1s")))
        wait_for(lambda: answered(collector) >= {"pods", "peer_pods"}, "the first lists")
        own.server.kill()
        wait_for(lambda: "kubernetes: peer_pods: not answered" in agent.text, "its sentence")
        pods.client.talk(network.server, PORT)
        at_client, at_server = ends(collector, pods.client.id, pods.backend.id)
        assert of(at_client.resource, pods.client_names) == pods.client_names
        assert at_client["otelbpf.peer.k8s.pod.name"] == "db-0"
        assert at_server["otelbpf.peer.k8s.workload.name"] == "web"

        stranger = open_.enter_context(Container(UNKNOWN, network.client_namespace))
        stranger.talk(network.server, PORT)
        (nameless,) = collector.wait_for_records(lambda record: record.resource.get("container.id") == stranger.id, 1)
        assert nameless.resource["k8s.pod.uid"] == UNKNOWN
        assert "k8s.pod.name" not in nameless.resource
        assert nameless["otelbpf.peer.k8s.pod.name"] == "db-0"

        own.server.start()
        objects.delete_pod("shop", "web-7d9f-a")
        late = open_.enter_context(Container(objects.pod("shop", "late", NODE), network.client_namespace))
        objects.running("shop", "late", network.client, {"app": late.id})
        wait_for(lambda: "kubernetes: peer_pods: answered again" in agent.text, "its return", 90)
        wait_for(lambda: "kubernetes: pods: answered again" in agent.text, "its return", 90)
        late.talk(network.server, PORT)
        (record,) = collector.wait_for_records(lambda record: record.resource.get("container.id") == late.id, 1)
        agent.stop()
    assert record.resource["k8s.pod.name"] == "late"
    assert record["otelbpf.peer.k8s.pod.name"] == "db-0"
    assert agent.summary.events["tcp_connection"].balanced


def test_rights_that_are_taken_away_take_no_name_away(tmp_path, own, collector, network):
    objects = Objects(own)
    let_in(objects, AS_AGENT)
    endpoint = f"127.0.0.1:{free_ports(1)[0]}"
    told = settings(collector, own, NODE, hold="1s", kubeconfig=str(own.kubeconfig(AGENT)))
    with ExitStack() as open_:
        pods = pair(objects, network, open_)
        agent = open_.enter_context(Agent(tmp_path, told | {"health": {"endpoint": endpoint}}))
        wait_for(lambda: answered(collector) >= {"pods", "peer_pods"}, "the first lists")
        unbind(objects)
        own.server.kill()  # a watch that is open stays allowed
        own.server.start()
        config = configured(own.kubeconfig(AGENT), endpoint)
        kinds = {"agent's pods", "agent's peer_pods", "agent's services", "agent's nodes"}
        wait_for(lambda: {row.subject for row in rows(config) if "HTTP 403" in row.what} >= kinds, "all refused", 90)
        pods.client.talk(network.server, PORT)
        at_client, at_server = ends(collector, pods.client.id, pods.backend.id)
        assert of(at_client.resource, pods.client_names) == pods.client_names
        assert at_client["otelbpf.peer.k8s.pod.name"] == "db-0"
        assert at_server["otelbpf.peer.k8s.workload.name"] == "web"

        bind(objects, AS_AGENT)
        late = open_.enter_context(Container(objects.pod("shop", "late", NODE), network.client_namespace))
        objects.running("shop", "late", network.client, {"app": late.id})
        for watch in ("pods", "peer_pods"):
            wait_for(lambda watch=watch: f"kubernetes: {watch}: answered again" in agent.text, "its return", 90)
        late.talk(network.server, PORT)
        (record,) = collector.wait_for_records(lambda record: record.resource.get("container.id") == late.id, 1)
        agent.stop()
    assert record.resource["k8s.pod.name"] == "late"
    assert agent.summary.events["tcp_connection"].balanced
