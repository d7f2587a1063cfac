"""Real connections of fake pods, named from a real API server, at a real collector."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.e2e.agent import Agent
from tests.e2e.collector import Collector
from tests.e2e.netns import Namespaces
from tests.e2e.polling import wait_for
from tests.kubernetes.cluster import SLICES, owned
from tests.kubernetes.pods import CONTAINERD_CGROUPFS, CRIO_SYSTEMD, Container

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PORT = 8080
NETWORKS = itertools.count(1)


def settings(collector: Collector, server: Any, node: str, **kubernetes: Any) -> dict[str, Any]:
    """Of an agent that looks at pods only: the machine may be busy with other things."""
    return {
        "filters": {"cgroups": {"include": ["*kubepods*"]}},
        "logs": {"process": "off"},
        "exporters": collector.exporters("grpc"),
        "telemetry": {"interval": "1s"},
        "metrics": {"interval": "1s"},
        "kubernetes": {
            "enabled": True,
            "kubeconfig": str(server.kubeconfig()),
            "node_name": node,
            "cluster_name": "test",
            "peers": "pods",
            **kubernetes,
        },
    }


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    with Collector(tmp_path) as running:
        yield running


class Network(NamedTuple):
    """Two network, and the address of each: no two tests have the same, as their pods stay in the API server."""

    client_namespace: str
    server_namespace: str
    client: str
    server: str


@pytest.fixture
def network() -> Iterator[Network]:
    with Namespaces("k8s") as made:
        subnet = f"10.244.{next(NETWORKS)}"
        found = Network(made.add("client"), made.add("server"), f"{subnet}.2", f"{subnet}.3")
        made.link(found[0], [f"{found.client}/24"], found[1], [f"{found.server}/24"])
        yield found


def ends(collector: Collector, client_id: str, server_id: str) -> tuple[Any, Any]:
    """The records of both ends of the connection."""
    found = collector.wait_for_records(
        lambda record: (
            record.event_name == "otelbpf.tcp.connection.closed"
            and record.resource.get("container.id") in (client_id, server_id)
        ),
        2,
    )
    by_id = {record.resource["container.id"]: record for record in found}
    return by_id[client_id], by_id[server_id]


WATCHES = {"pods": "peer_pods", "endpoints": "endpoint_slices"}


def answered(collector: Collector) -> set[Any]:
    """The watches of which the agent has said that they are answered."""
    points = [point for point in collector.own_points() if point.metric == "otelbpf.agent.watch.status"]
    wanted = [point for point in points if point.attributes["otelbpf.watch.state"] == "answered"]
    return {point.attributes["otelbpf.watch.name"] for point in wanted}


def of(found: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """What is said under the wanted names."""
    return {name: found.get(name) for name in wanted}


@pytest.mark.parametrize("form", [CONTAINERD_CGROUPFS, CRIO_SYSTEMD])
def test_both_ends_of_a_connection_have_names(tmp_path, server, objects, namespace, node, collector, network, form):
    client_uid = objects.pod(
        namespace,
        "checkout-7d9f-x",
        node,
        metadata=owned("ReplicaSet", "checkout-7d9f", **{"pod-template-hash": "7d9f"}),
    )
    server_uid = objects.pod(
        namespace, "db-0", node, metadata=owned("StatefulSet", "db", **{"app.kubernetes.io/name": "postgres"})
    )
    with (
        Container(client_uid, network.client_namespace, form) as client,
        Container(server_uid, network.server_namespace, form) as backend,
        Agent(tmp_path, settings(collector, server, node)),
    ):
        wait_for(lambda: answered(collector) >= {"pods", "peer_pods"}, "the first lists")
        objects.running(namespace, "checkout-7d9f-x", network.client, {"app": client.id})
        objects.running(namespace, "db-0", network.server, {"app": backend.id})
        backend.serve(network.server, PORT)
        client.talk(network.server, PORT)
        at_client, at_server = ends(collector, client.id, backend.id)
    wanted = {
        "k8s.cluster.name": "test",
        "k8s.node.name": node,
        "k8s.namespace.name": namespace,
        "k8s.pod.name": "checkout-7d9f-x",
        "k8s.pod.uid": client_uid,
        "k8s.container.name": "app",
        "k8s.container.restart_count": 0,
        "k8s.deployment.name": "checkout",
        "k8s.replicaset.name": "checkout-7d9f",
        "service.name": "checkout",
        "service.namespace": namespace,
        "service.version": "1.2",
        "service.instance.id": f"{namespace}.checkout-7d9f-x.app",
        "container.id": client.id,
        "container.image.name": "shop/app",
        "container.image.tags": ["1.2"],
    }
    assert of(at_client.resource, wanted) == wanted
    assert at_server.resource["service.name"] == "postgres"
    assert at_server.resource["k8s.statefulset.name"] == "db"
    wanted = {
        "otelbpf.peer.type": "pod",
        "otelbpf.peer.k8s.namespace.name": namespace,
        "otelbpf.peer.k8s.workload.name": "db",
        "otelbpf.peer.k8s.workload.kind": "StatefulSet",
        "otelbpf.peer.k8s.pod.name": "db-0",
        "otelbpf.peer.k8s.pod.uid": server_uid,
        "otelbpf.peer.k8s.node.name": node,
        "service.peer.name": "postgres",
        "service.peer.namespace": namespace,
    }
    assert of(at_client.attributes, wanted) == wanted
    assert at_server["otelbpf.peer.k8s.workload.name"] == "checkout"
    assert at_server["service.peer.name"] == "checkout"


def test_a_pod_that_the_api_server_tells_of_after_its_first_connection(
    tmp_path, server, objects, namespace, node, collector, network
):
    uid = "11111111-2222-3333-4444-555555555555"
    with (
        Container(uid, network.client_namespace) as client,
        Container(uid.replace("5", "6"), network.server_namespace) as backend,
        Agent(tmp_path, settings(collector, server, node, hold="10s")) as agent,
    ):
        backend.serve(network.server, PORT)
        client.talk(network.server, PORT)
        # a uid cannot be chosen, so a static pod stands for one whose uid was known before
        for name, container, asked in (("late", client, uid), ("later", backend, uid.replace("5", "6"))):
            notes = {"kubernetes.io/config.hash": asked, "kubernetes.io/config.mirror": asked}
            objects.pod(namespace, name, node, metadata={"annotations": notes})
            objects.running(namespace, name, network.client, {"app": container.id})
        at_client, at_server = ends(collector, client.id, backend.id)
        agent.stop()
    assert at_client.resource["k8s.pod.name"] == "late"
    assert at_server.resource["k8s.pod.name"] == "later"
    assert agent.summary.events["tcp_connection"].balanced


def test_a_pod_that_nobody_tells_of_goes_out_with_what_is_known(
    tmp_path, server, objects, namespace, node, collector, network
):
    uid = "11111111-2222-3333-4444-777777777777"
    with (
        Container(uid, network.client_namespace) as client,
        Container(uid, network.server_namespace) as backend,
        Agent(tmp_path, settings(collector, server, node, hold="1s")) as agent,
    ):
        backend.serve(network.server, PORT)
        client.talk(network.server, PORT)
        at_client, _ = ends(collector, client.id, backend.id)
        agent.stop()
    assert at_client.resource["k8s.pod.uid"] == uid
    assert "k8s.pod.name" not in at_client.resource

    def nameless() -> float:
        points = [one for one in collector.own_points() if one.metric == "otelbpf.agent.hold.rows"]
        return max((one.value for one in points if one.attributes["otelbpf.hold.outcome"] == "nameless"), default=0)

    wait_for(lambda: nameless() >= 2, "the rows that waited in vain")


@pytest.mark.parametrize("peers", ["pods", "endpoints"])
def test_a_pod_that_was_deleted_before_its_connection_ended(
    tmp_path, server, objects, namespace, node, collector, network, peers
):
    client_uid = objects.pod(namespace, "web-1", node)
    server_uid = objects.pod(namespace, "db-1", node)
    target = {"kind": "Pod", "name": "db-1", "namespace": namespace, "uid": server_uid}
    labels = {"kubernetes.io/service-name": "db"}
    endpoint = {"addresses": [network.server], "nodeName": node, "targetRef": target, "conditions": {"ready": True}}
    body = {"metadata": {"name": "db-x", "labels": labels}, "addressType": "IPv4", "endpoints": [endpoint], "ports": []}
    objects.call("POST", SLICES.format(namespace), body)
    with (
        Container(client_uid, network.client_namespace) as client,
        Container(server_uid, network.server_namespace) as backend,
    ):
        objects.running(namespace, "web-1", network.client, {"app": client.id})
        objects.running(namespace, "db-1", network.server, {"app": backend.id})
        with Agent(tmp_path, settings(collector, server, node, peers=peers)) as agent:
            backend.serve(network.server, PORT)
            wait_for(lambda: answered(collector) >= {"pods", WATCHES[peers]}, "the first lists")
            objects.delete_pod(namespace, "web-1")
            objects.delete_pod(namespace, "db-1")
            objects.call("DELETE", f"{SLICES.format(namespace)}/db-x")
            client.talk(network.server, PORT)
            at_client, at_server = ends(collector, client.id, backend.id)
            assert len(agent.lines) == 1, agent.text
    assert at_client.resource["k8s.pod.name"] == "web-1"
    assert at_server.resource["k8s.pod.name"] == "db-1"
    assert at_client["otelbpf.peer.k8s.pod.name"] == "db-1"
    assert at_client["otelbpf.peer.type"] == "pod"
    assert at_client["service.peer.name"] == ("db-1" if peers == "pods" else "db")
