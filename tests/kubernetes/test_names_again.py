"""The same name for something else: containers that start again, pods made anew, addresses that change hands."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.agent import Agent
from tests.e2e.polling import wait_for
from tests.kubernetes.churn import SETTLES_S
from tests.kubernetes.cluster import owned
from tests.kubernetes.node import NodeNetwork
from tests.kubernetes.pods import Container, let_go
from tests.kubernetes.test_names import answered, collector, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.collector import Collector
    from tests.e2e.otlp_json import Record

__all__ = ["collector"]
PORT = 8080


@pytest.fixture
def network() -> Iterator[NodeNetwork]:
    with NodeNetwork() as made:
        yield made


def closed(collector: Collector, wanted: dict[str, Any]) -> Record:
    """The record of a connection whose resource and attributes say what is *wanted*."""

    def fits(record: Record) -> bool:
        return record.event_name == "otelbpf.tcp.connection.closed" and all(
            record.resource.get(name, record[name]) == value for name, value in wanted.items()
        )

    return collector.wait_for_records(fits, 1)[0]


def runs(name: str, now: str, before: str, restarts: int) -> dict[str, Any]:
    """What a kubelet says of a container that runs again."""
    ended = {"terminated": {"containerID": f"containerd://{before}", "exitCode": 137, "reason": "OOMKilled"}}
    return {
        "name": name, "containerID": f"containerd://{now}", "restartCount": restarts, "image": "shop/app:1.2",
        "imageID": "", "ready": True, "started": True, "state": {"running": {}}, "lastState": ended,
    }  # fmt: skip


def test_a_container_that_started_again(tmp_path, server, objects, namespace, node, collector, network):
    place, far = network.pod(), network.pod()
    uid = objects.pod(namespace, "web", node)
    with (
        Container(uid, place.namespace) as first,
        Container(uid, place.namespace) as second,
        Container(objects.pod(namespace, "db", node), far.namespace) as backend,
    ):
        objects.running(namespace, "web", place.ipv4, {"app": first.id})
        serving = backend.serve(far.ipv4, PORT)
        with Agent(tmp_path, settings(collector, server, node)):
            wait_for(lambda: answered(collector) >= {"pods"}, "the first list")
            first.hold(far.ipv4, PORT)
            first.end()
            objects.running(namespace, "web", place.ipv4, {}, containerStatuses=[runs("app", second.id, first.id, 1)])
            second.talk(far.ipv4, PORT)
            after = closed(collector, {"container.id": second.id})
            let_go(serving)
            late = closed(collector, {"container.id": first.id})
    names = {"k8s.pod.name": "web", "k8s.container.name": "app", "service.instance.id": f"{namespace}.web.app"}
    for record, restarts in ((late, 0), (after, 1)):
        assert {name: record.resource[name] for name in names} == names
        assert record.resource["k8s.container.restart_count"] == restarts


def test_a_pod_made_anew_under_the_same_name(tmp_path, server, objects, namespace, node, collector, network):
    """As a StatefulSet does; here with the address of the old one as well."""
    place, far = network.pod(), network.pod()
    metadata = owned("StatefulSet", "db")
    old_uid = objects.pod(namespace, "db-0", node, metadata=metadata)
    backend_uid = objects.pod(namespace, "backend", node)
    with (
        Container(old_uid, place.namespace) as old,
        Container(backend_uid, far.namespace) as backend,
        Agent(tmp_path, settings(collector, server, node)),
    ):
        objects.running(namespace, "db-0", place.ipv4, {"app": old.id})
        objects.running(namespace, "backend", far.ipv4, {"app": backend.id})
        serving = backend.serve(far.ipv4, PORT)
        wait_for(lambda: answered(collector) >= {"pods", "peer_pods"}, "the first lists")
        old.hold(far.ipv4, PORT)
        old.end()
        objects.delete_pod(namespace, "db-0")
        uid = objects.pod(namespace, "db-0", node, metadata=metadata)
        with Container(uid, place.namespace) as new:
            objects.running(namespace, "db-0", place.ipv4, {"app": new.id})
            time.sleep(SETTLES_S)
            new.talk(far.ipv4, PORT)
            after = closed(collector, {"k8s.pod.uid": uid})
            seen_after = closed(collector, {"k8s.pod.uid": backend_uid, "client.port": after["network.local.port"]})
            let_go(serving)
            late = closed(collector, {"k8s.pod.uid": old_uid})
            seen_late = closed(collector, {"k8s.pod.uid": backend_uid, "client.port": late["network.local.port"]})
    for record, container in ((late, old), (after, new)):
        assert record.resource["k8s.pod.name"] == "db-0"
        assert record.resource["k8s.statefulset.name"] == "db"
        assert record.resource["service.instance.id"] == f"{namespace}.db-0.app"
        assert record.resource["container.id"] == container.id
    assert seen_late["otelbpf.peer.k8s.pod.uid"] == old_uid
    assert seen_after["otelbpf.peer.k8s.pod.uid"] == uid


def test_an_address_that_changed_hands(tmp_path, server, objects, namespace, node, collector, network):
    """Of another node's pods nothing is known but what the API server says: who had it when the connection began."""
    place, far = network.pod(), network.pod()
    backend_uid = objects.pod(namespace, "backend", node)
    with (
        Container("0" * 8 + "-1111-2222-3333-444444444444", place.namespace) as elsewhere,
        Container(backend_uid, far.namespace) as backend,
        Agent(tmp_path, settings(collector, server, node)),
    ):
        objects.running(namespace, "backend", far.ipv4, {"app": backend.id})
        serving = backend.serve(far.ipv4, PORT)
        wait_for(lambda: answered(collector) >= {"pods", "peer_pods"}, "the first lists")
        ports, uids = [], []
        for pod in ("first", "second", "third"):
            uids.append(objects.pod(namespace, pod, "elsewhere", metadata=owned("ReplicaSet", pod)))
            objects.running(namespace, pod, place.ipv4, {"app": "0" * 64})
            time.sleep(SETTLES_S)
            elsewhere.talk(far.ipv4, PORT)
            told = {"k8s.pod.uid": backend_uid, "otelbpf.peer.k8s.pod.name": pod}
            ports.append(closed(collector, told)["client.port"])
            elsewhere.hold(far.ipv4, PORT)
            objects.delete_pod(namespace, pod)
        let_go(serving)
        records = collector.wait_for_records(
            lambda record: (
                record.resource.get("k8s.pod.uid") == backend_uid
                and record["network.tcp.handshake.role"] == "server"
                and record["client.port"] not in ports
            ),
            3,
        )
    assert sorted(str(record["otelbpf.peer.k8s.pod.uid"]) for record in records) == sorted(uids)
    assert {record["otelbpf.peer.type"] for record in records} == {"pod"}
