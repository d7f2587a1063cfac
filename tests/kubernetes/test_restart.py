"""An agent that is started again while connections live: whoever it can know of has its names from the first record on."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.e2e.agent import Agent
from tests.e2e.polling import wait_for
from tests.kubernetes.cluster import owned
from tests.kubernetes.pods import Container, let_go
from tests.kubernetes.test_names import PORT, answered, collector, network, of, settings
from tests.peers.slow_proxy import SlowProxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from subprocess import Popen

    from tests.e2e.collector import Collector
    from tests.e2e.otlp_json import Record
    from tests.kubernetes.cluster import Objects

__all__ = ["collector", "network"]
CLIENTS = 12
HOLD = "60s"
"""Longer than any list takes here: what goes out without names goes out because nobody can know them."""


class Scene(NamedTuple):
    """Pods on this node, each with a connection to the backend that lives until it is let go."""

    clients: dict[str, Container]
    backend: Container
    serving: Popen[bytes]
    names: dict[str, dict[str, Any]]
    """Container's id → what is known of its pod."""
    deleted: Container
    """Of a pod that the API server has forgotten; it runs on for a moment."""


@pytest.fixture
def scene(objects: Objects, namespace: str, node: str, network: Any) -> Iterator[Scene]:
    with ExitStack() as open_:
        uids = {
            f"web-7d9f-{n}": objects.pod(namespace, f"web-7d9f-{n}", node, metadata=metadata()) for n in range(CLIENTS)
        }
        backend_uid = objects.pod(namespace, "db-0", node, metadata=owned("StatefulSet", "db"))
        deleted_uid = objects.pod(namespace, "gone", node)
        clients = {name: open_.enter_context(Container(uid, network.client_namespace)) for name, uid in uids.items()}
        backend = open_.enter_context(Container(backend_uid, network.server_namespace))
        deleted = open_.enter_context(Container(deleted_uid, network.client_namespace))
        for name, container in clients.items():
            objects.running(namespace, name, "", {"app": container.id}, podIPs=[])
        objects.running(namespace, "db-0", network.server, {"app": backend.id})
        objects.running(namespace, "gone", "", {"app": deleted.id}, podIPs=[])
        serving = backend.serve(network.server, PORT)
        for container in (*clients.values(), deleted):
            container.hold(network.server, PORT)
        names = {
            container.id: {"k8s.pod.name": name, "k8s.pod.uid": uids[name], "k8s.deployment.name": "web"}
            for name, container in clients.items()
        }
        names[backend.id] = {"k8s.pod.name": "db-0", "k8s.pod.uid": backend_uid, "k8s.statefulset.name": "db"}
        yield Scene(clients, backend, serving, names, deleted)


def metadata() -> dict[str, Any]:
    return owned("ReplicaSet", "web-7d9f", **{"pod-template-hash": "7d9f"})


def told(collector: Collector, scene: Scene) -> list[Record]:
    """All that was said of the scene's containers."""
    ids = {*scene.names, scene.deleted.id}
    return [record for record in collector.records() if record.resource.get("container.id") in ids]


def check(records: list[Record], scene: Scene, network: Any, *, peers: bool) -> None:
    """Each record has the names of its own pod, and of the backend where it is the other end."""
    for record in records:
        container = record.resource["container.id"]
        if container == scene.deleted.id:
            assert "k8s.pod.name" not in record.resource
            continue
        assert of(record.resource, scene.names[container]) == scene.names[container]
        if peers and record["network.peer.address"] == network.server:
            assert record["otelbpf.peer.k8s.pod.name"] == "db-0"


def test_everything_has_its_names_again(tmp_path, server, objects, namespace, node, collector, network, scene):
    chosen = settings(collector, server, node, hold=HOLD)
    with Agent(tmp_path, chosen):
        wait_for(lambda: answered(collector) >= {"pods", "peer_pods"}, "the first lists")
        next(iter(scene.clients.values())).talk(network.server, PORT)
        wait_for(lambda: told(collector, scene), "a record of the first agent")
    objects.delete_pod(namespace, "gone")
    before = len(told(collector, scene))
    with Agent(tmp_path, chosen):
        for container in scene.clients.values():
            container.talk(network.server, PORT)
        let_go(scene.serving)
        # each lived through the restart and has ended, and each has made another since: seen from both its ends
        wait_for(lambda: len(told(collector, scene)) >= before + 4 * CLIENTS, "the records of the second agent")
    after = told(collector, scene)[before:]
    assert {record.resource["container.id"] for record in after} == {*scene.names, scene.deleted.id}
    check(after, scene, network, peers=True)


def test_what_is_seen_before_the_server_answers_waits_for_its_names(
    tmp_path, server, objects, namespace, node, collector, network, scene
):
    """The API server is away when the agent starts again: rows are held, and go out with the names of the first list."""
    with SlowProxy(server.port, 1 << 16, 0.0) as proxy:
        file = server.kubeconfig_of("restart", {"token": "admin-token"}, server=f"https://127.0.0.1:{proxy.port}")
        chosen = settings(collector, server, node, hold=HOLD, kubeconfig=str(file))
        with Agent(tmp_path, chosen):
            wait_for(lambda: answered(collector) >= {"pods", "peer_pods"}, "the first lists")
        proxy.cut()
        objects.delete_pod(namespace, "gone")
        with Agent(tmp_path, chosen) as agent:
            wait_for(lambda: "kubernetes: pods: not answered" in agent.text, "its sentence")
            for container in scene.clients.values():
                container.talk(network.server, PORT)
            early = told(collector, scene)
            proxy.mend()
            wait_for(lambda: "kubernetes: peer_pods: answered again" in agent.text, "the lists", 90)
            wait_for(lambda: len(told(collector, scene)) >= 2 * CLIENTS, "the rows that were held")
            held = len(told(collector, scene))
            let_go(scene.serving)
            wait_for(lambda: len(told(collector, scene)) >= held + 2 * CLIENTS, "what lived all the time")
    assert early == []
    check(told(collector, scene)[:held], scene, network, peers=False)
    check(told(collector, scene)[held:], scene, network, peers=True)
