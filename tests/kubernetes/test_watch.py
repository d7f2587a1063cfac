"""The watcher alone, against a real API server that denies, vanishes and forgets."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from otelbpf.config import Kubernetes
from otelbpf.enrich.kubernetes.holders import NS_PER_S, held_by, packed
from otelbpf.enrich.kubernetes.watcher import Watcher
from tests.e2e.polling import wait_for
from tests.kubernetes.cluster import NODES, SERVICES, SLICES, Objects, owned
from tests.kubernetes.roles import let_in
from tests.peers.api_server import AGENT, ApiServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[ApiServer, Objects]]:
    """A server that a test may kill."""
    with ApiServer(tmp_path) as running:
        objects = Objects(running)
        objects.namespace("shop")
        yield running, objects


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[tuple[ApiServer, Objects]]:
    """One that refuses to stream lists, as those before 1.32 do."""
    with ApiServer(tmp_path, "--feature-gates=WatchList=false") as running:
        objects = Objects(running)
        objects.namespace("shop")
        yield running, objects


def settings(server: ApiServer, **chosen: Any) -> Kubernetes:
    return Kubernetes(
        **{"enabled": True, "kubeconfig": str(server.kubeconfig()), "node_name": "n1", "peers": "pods"} | chosen
    )


def pod_name(watcher: Watcher, uid: str) -> str:
    pod = watcher.known.pod(uid)
    return "" if pod is None else pod.facts["k8s.pod.name"]


def holder(watcher: Watcher, address: str) -> str:
    found = held_by(watcher.known.holders(packed(address) or b""), time.time_ns())
    return "" if found is None else found.name


def test_denied_then_let_in(own):
    server, objects = own
    uid = objects.pod("shop", "web", "n1")
    with Watcher(settings(server, kubeconfig=str(server.kubeconfig(AGENT))), {}, "host") as watcher:
        wait_for(lambda: len([s for s in watcher.states() if "forbidden" in s.reason]) == 4, "four refusals")
        assert {state.answered for state in watcher.states()} == {False}
        assert all(state.since_ns for state in watcher.states())
        let_in(objects, {"kind": "User", "name": "agent"})
        wait_for(lambda: pod_name(watcher, uid) == "web", "the pod", 40)
        wait_for(lambda: all(state.answered for state in watcher.states()), "all answered", 40)
    told = [sentence for sentence in watcher.sentences if sentence.startswith("kubernetes: pods:")]
    assert len(told) == 2
    assert "forbidden" in told[0]
    assert "answered again" in told[1]


def test_a_server_that_goes_and_comes_back(own):
    server, objects = own
    stays = objects.pod("shop", "stays", "n1")
    goes = objects.pod("shop", "goes", "n1")
    objects.running("shop", "goes", "10.0.0.9", {"app": "a" * 64})
    with Watcher(settings(server), {}, "host") as watcher:
        assert watcher.wait(20)
        wait_for(lambda: holder(watcher, "10.0.0.9") == "goes", "its address")
        server.server.kill()
        wait_for(lambda: not any(state.answered for state in watcher.states()), "all down")
        assert pod_name(watcher, goes) == "goes"  # what was known still is
        server.server.start()
        objects.delete_pod("shop", "goes")
        comes = objects.pod("shop", "comes", "n1")
        objects.running("shop", "comes", "10.0.0.9", {"app": "b" * 64})
        wait_for(lambda: pod_name(watcher, comes) == "comes", "the new pod", 40)
        wait_for(lambda: holder(watcher, "10.0.0.9") == "comes", "the new holder", 40)
        assert pod_name(watcher, stays) == "stays"
        assert pod_name(watcher, goes) == "goes"  # for some minutes
        states = {state.name: state for state in watcher.states()}
        assert states["pods"].objects == 2


def test_a_version_that_the_server_has_forgotten(own):
    server, objects = own
    goes = objects.pod("shop", "goes", "n1")
    with Watcher(settings(server), {}, "host") as watcher:
        assert watcher.wait(20)
        watch = watcher._own_watch
        assert watch is not None
        lists = watch.health.lists
        server.server.kill()
        wait_for(lambda: watch.health.down_since_ns, "down")
        watch._version = "1"  # as if it had been away while etcd was compacted
        server.server.start()
        objects.delete_pod("shop", "goes")
        comes = objects.pod("shop", "comes", "n1")
        wait_for(lambda: pod_name(watcher, comes), "the new pod", 40)
        wait_for(lambda: "goes" not in [pod for pod in watch.table.uids() if pod == goes], "the old one's end", 40)
        assert watch.health.lists == lists + 1
        assert list(watch.table.uids()) == [comes]


def test_a_server_that_does_not_stream_lists(plain):
    server, objects = plain
    uids = [objects.pod("shop", f"web-{number}", "n1") for number in range(3)]
    with Watcher(settings(server), {}, "host") as watcher:
        assert watcher.wait(20)
        wait_for(lambda: all(state.answered for state in watcher.states()), "all answered")
        later = objects.pod("shop", "later", "n1")
        wait_for(lambda: pod_name(watcher, later), "a change")
        assert [pod_name(watcher, uid) for uid in uids] == ["web-0", "web-1", "web-2"]
        assert not any(watch._can_stream for watch in watcher._all())


def test_more_pods_than_wanted_are_named_by_their_endpoint_slices(own):
    server, objects = own
    for number in range(3):
        objects.pod("shop", f"web-{number}", "n2")
    with Watcher(settings(server, peers="auto", max_peer_pods=2), {}, "host") as watcher:
        wait_for(lambda: "endpoint_slices" in {s.name for s in watcher.states() if s.answered}, "slices")
        assert "peer_pods" not in {state.name for state in watcher.states()}
    assert len([sentence for sentence in watcher.sentences if "max_peer_pods" in sentence]) == 1


def test_services_nodes_and_the_node_of_our_own_pod(own):
    server, objects = own
    objects.call("POST", "/api/v1/nodes", {"metadata": {"name": "n7"}})
    objects.patch_status("/api/v1/nodes/n7", {"addresses": [{"type": "InternalIP", "address": "192.0.2.7"}]})
    address = objects.service("shop", "cart", type="NodePort", ports=[{"port": 80, "nodePort": 30080}])["spec"][
        "clusterIP"
    ]
    objects.service("shop", "outside", type="ExternalName", externalName="db.example.org")
    objects.service("shop", "headless", clusterIP="None")
    objects.pod("shop", "agent-x", "n7", metadata=owned("DaemonSet", "agent"))
    environ = {"POD_NAME": "agent-x", "POD_NAMESPACE": "shop"}
    with Watcher(settings(server, node_name=""), environ, "not-a-node") as watcher:
        assert watcher.wait(20)
        assert watcher.known.node_name == "n7"
        wait_for(lambda: all(state.answered for state in watcher.states()), "all answered")
        assert holder(watcher, address) == "cart"
        assert holder(watcher, "192.0.2.7") == "n7"
        assert watcher.known.at_node_port(30080).name == "cart"
        assert watcher.known.outside("db.example.org").name == "outside"
        objects.call("DELETE", "/api/v1/namespaces/shop/services/cart")
        wait_for(lambda: watcher.known.at_node_port(30080) is None, "its end")


def test_an_endpoint_has_its_address_since_the_slice_says_so_not_since_we_watch(own):
    """A connection that is older than the watch, as the server was away, has a name all the same."""
    server, objects = own
    target = {"kind": "Pod", "name": "cart-a", "namespace": "shop", "uid": "u"}
    body = {"metadata": {"name": "cart-x", "labels": {"kubernetes.io/service-name": "cart"}}, "addressType": "IPv4"}
    before_ns = time.time_ns()
    objects.call(
        "POST", SLICES.format("shop"), body | {"endpoints": [{"addresses": ["10.0.0.7"], "targetRef": target}]}
    )
    made_ns = time.time_ns()
    with Watcher(settings(server, peers="endpoints"), {}, "host") as watcher:
        wait_for(lambda: holder(watcher, "10.0.0.7") == "cart-a", "the endpoint")
        (found,) = watcher.known.holders(packed("10.0.0.7") or b"")
        assert before_ns - NS_PER_S <= found.begins_ns <= made_ns < found.told_ns
        changed = body["metadata"] | {"annotations": {"note": "another"}}
        objects.call("PATCH", f"{SLICES.format('shop')}/cart-x", {"metadata": changed}, "application/merge-patch+json")
        objects.call("PATCH", f"{SLICES.format('shop')}/cart-x", {"endpoints": []}, "application/merge-patch+json")
        wait_for(lambda: found.ends_ns, "its end")
        assert before_ns - NS_PER_S <= found.begins_ns <= made_ns


@pytest.mark.parametrize("peers", ["pods", "endpoints"])
def test_every_kind_of_object_may_go_again_however_little_it_says(own, peers):
    server, objects = own
    objects.call("POST", "/api/v1/nodes", {"metadata": {"name": "n8"}})
    objects.service("shop", "cart")
    objects.pod("shop", "web", "n1")
    body = {"metadata": {"name": "cart-x"}, "addressType": "IPv4", "endpoints": [], "ports": []}
    objects.call("POST", SLICES.format("shop"), body)
    with Watcher(settings(server, peers=peers), {}, "host") as watcher:
        wait_for(lambda: all(state.answered for state in watcher.states()), "all answered")
        before = {state.name: state.objects for state in watcher.states()}
        objects.delete_pod("shop", "web")
        for path in (f"{NODES}/n8", f"{SERVICES.format('shop')}/cart", f"{SLICES.format('shop')}/cart-x"):
            objects.call("DELETE", path)
        fewer = {name: count - 1 for name, count in before.items()}
        wait_for(lambda: {state.name: state.objects for state in watcher.states()} == fewer, "one less of each")
        assert all(state.answered for state in watcher.states())
        assert watcher.failure is None
