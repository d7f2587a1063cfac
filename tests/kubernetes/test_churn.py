"""Pods that come and go faster than on any node: each event has the name of whoever it was, and tables stay small."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from otelbpf.config import Kubernetes
from otelbpf.enrich.kubernetes.holders import ENDED_FOR_NS, held_by, packed
from otelbpf.enrich.kubernetes.watcher import Watcher
from tests.e2e.agent import Agent
from tests.e2e.collector import Collector
from tests.e2e.netns import Namespaces
from tests.e2e.polling import wait_for
from tests.kubernetes.churn import Churn
from tests.kubernetes.pods import Container

if TYPE_CHECKING:
    from tests.kubernetes.churn import Lived

PODS, ADDRESSES = 1000, 100
REAL_PODS = 12
PORT = 8080


def counts(watcher: Watcher) -> dict[str, int]:
    return {state.name: state.objects for state in watcher.states()}


@pytest.mark.parametrize("peers", ["pods"])
def test_a_thousand_pods_in_a_minute_keep_their_names(server, namespace, node, peers):
    settings = Kubernetes(enabled=True, kubeconfig=str(server.kubeconfig()), node_name=node, peers=peers)
    with Watcher(settings, {}, "host") as watcher:
        wait_for(lambda: all(state.answered for state in watcher.states()), "the first lists", 60)
        others = counts(watcher)["peer_pods"]
        lived = Churn(server, namespace, node, "10.77", ADDRESSES).run(PODS)
        wait_for(lambda: counts(watcher)["pods"] == 0 and counts(watcher)["peer_pods"] == others, "their ends", 60)
        assert watcher.failure is None
        assert {one.uid: named(watcher, one) for one in lived} == {one.uid: one.name for one in lived}
        assert {one.uid: held(watcher, one) for one in lived} == {one.uid: one.name for one in lived}
        after_ns = max(one.at_ns for one in lived) + 2 * ENDED_FOR_NS
        own, holders = watcher._own, watcher._holders
        assert (len(own.by_cgroup_uid), len(own._gone)) == (PODS, PODS)
        own.sweep(after_ns)
        holders.sweep(after_ns)
        assert (len(own.by_cgroup_uid), len(own._gone)) == (0, 0)
        assert not [one for one in lived if holders.of(packed(one.address) or b"")]


def named(watcher: Watcher, one: Lived) -> str:
    """Whose rows in its cgroup are."""
    pod = watcher.known.pod(one.uid)
    if pod is None or pod.containers[one.container_id].name != "app":
        return ""
    return str(pod.facts["k8s.pod.name"])


def held(watcher: Watcher, one: Lived) -> str:
    """Who had its address when it was there."""
    found = held_by(watcher.known.holders(packed(one.address) or b""), one.at_ns)
    return "" if found is None else found.name


def test_events_of_pods_that_live_a_moment_among_hundreds_of_others(tmp_path, server, objects, namespace, node):
    settings = {
        "telemetry": {"interval": "1s"},
        "kubernetes": {"enabled": True, "kubeconfig": str(server.kubeconfig()), "node_name": node, "peers": "pods"},
    }
    with Namespaces("churn") as made, Collector(tmp_path) as collector:
        clients, servers = made.add("clients"), made.add("servers")
        made.link(clients, ["10.78.0.2/24"], servers, ["10.78.0.3/24"])
        uid = objects.pod(namespace, "db-0", node)
        with (
            Container(uid, servers) as db,
            Agent(tmp_path, {"exporters": collector.exporters("grpc"), **settings}) as agent,
        ):
            objects.running(namespace, "db-0", "10.78.0.3", {"app": db.id})
            db.serve("10.78.0.3", PORT)
            churn = threading.Thread(target=Churn(server, namespace, node, "10.79", ADDRESSES).run, args=(PODS // 2,))
            churn.start()
            wanted = {}
            for number in range(REAL_PODS):
                name = f"short-{number}"
                uid = objects.pod(namespace, name, node)
                with Container(uid, clients) as container:
                    objects.running(namespace, name, "10.78.0.2", {"app": container.id})
                    container.talk("10.78.0.3", PORT)
                objects.delete_pod(namespace, name)
                wanted[container.id] = name
            churn.join()
            found = collector.wait_for_records(
                lambda record: (
                    record.event_name == "otelbpf.tcp.connection.closed"
                    and record.resource.get("container.id") in wanted
                ),
                REAL_PODS,
            )
            agent.stop()
    assert {record.resource["container.id"]: record.resource.get("k8s.pod.name") for record in found} == wanted
    assert {record.attributes.get("otelbpf.peer.k8s.pod.name") for record in found} == {"db-0"}
    assert agent.summary.events["tcp_connection"].balanced
