"""Who had an address when."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import msgspec
import pytest

from otelbpf.config import Kubernetes
from otelbpf.enrich.kubernetes import objects
from otelbpf.enrich.kubernetes.cluster import Known
from otelbpf.enrich.kubernetes.conntrack import Conntrack
from otelbpf.enrich.kubernetes.holders import (
    ENDED_FOR_NS,
    NS_PER_S,
    POD,
    SKEW_NS,
    Holder,
    Holders,
    held_by,
    may_be_of_pods,
    network,
    packed,
)  # fmt: skip
from otelbpf.enrich.kubernetes.tables import Nodes, OwnPods, PeerPods, Services, Slices

ADDRESS = packed("10.0.0.1")
S = NS_PER_S


def holder(name, begins_s=0, ends_s=0, told_s=0, **more):
    return Holder("pod", name, begins_ns=begins_s * S, ends_ns=ends_s * S, told_ns=told_s * S, **more)


@pytest.mark.parametrize(
    ("claims", "at_s", "wanted"),
    [
        ([], 100, None),
        ([holder("a", 50)], 100, "a"),
        ([holder("a", 150)], 100, None),
        ([holder("a", 105)], 100, "a"),  # clocks differ
        ([holder("a", 50, 90)], 100, "a"),  # it has just ended, and nobody else has it
        ([holder("a", 50, 120), holder("b", 99)], 100, "a"),  # b was made before a had let it go
        ([holder("a", 50, 120), holder("b", 99)], 121, "b"),
        ([holder("a", 50, 70), holder("b", 60, 90), holder("c", 80)], 75, "b"),
        ([holder("a", 50), holder("b", 60)], 100, "b"),
        (
            [holder("a", 50, 120, told_s=55), holder("b", 60, told_s=90)],
            100,
            "b",
        ),  # a was deleted long after it had ended
        ([holder("a", 50, 120, told_s=55), holder("b", 60, told_s=90)], 80, "a"),
        ([holder("a", 50, 70, told_s=71), holder("b", 60, told_s=90)], 65, "a"),  # told of late, both
        ([holder("b", 60, told_s=90), holder("a", 50, told_s=90)], 95, "b"),  # one list told of both
    ],
)
def test_who_had_it(claims, at_s, wanted):
    found = held_by(claims, at_s * S)
    assert (found.name if found else None) == wanted


def outage(*, uids=("1", "2"), **both):
    """A was heard of until 100 s; at 300 s the API told that it is gone, and that B, made at 200 s, has its address."""
    first = Holder(POD, "a", uid=uids[0], begins_ns=50 * S, told_ns=51 * S, ends_ns=300 * S, seen_ns=100 * S, **both)
    return first, Holder(POD, "b", uid=uids[1], begins_ns=200 * S, told_ns=300 * S, **both)


@pytest.mark.parametrize(
    ("at_s", "wanted"),
    [(60, "a"), (100, "a"), (150, "a"), (189, "a"), (190, ""), (250, ""), (299, ""), (300, "b"), (400, "b")],
)
def test_an_address_that_changed_hands_while_the_server_was_away(at_s, wanted):
    """B cannot have had it before it was made (clocks may differ by 10 s); from then on until it is told, either may."""
    for claims in permutations(outage(namespace="shop")):
        found = held_by(claims, at_s * S)
        assert (found.kind, found.name, found.namespace) == (POD, wanted, "shop")


def test_what_both_say_is_true_whoever_of_them_it_was():
    common = {"node": "n1", "workload_kind": "Deployment", "workload_name": "web", "service_name": "web"}
    found = held_by(outage(**common), 250 * S)
    assert {field: getattr(found, field) for field in ("name", "uid", *common)} == {"name": "", "uid": "", **common}
    first, second = outage(**common)
    second.workload_kind, second.service_namespace = "StatefulSet", "other"
    found = held_by((first, second), 250 * S)
    assert (found.workload_kind, found.workload_name, found.service_name, found.node) == ("", "", "", "n1")


def test_one_pod_of_which_two_tell_is_known_and_two_kinds_of_thing_have_nothing_in_common():
    assert held_by(outage(uids=("1", "1")), 250 * S).uid == "1"
    first, second = outage()
    second.kind = "service"
    assert held_by((first, second), 250 * S) is None


def test_services_that_share_an_address_are_told_apart_by_port():
    claims = [holder("web", 1, ports=(80, 443)), holder("mail", 2, ports=(25,))]
    assert held_by(claims, 100 * S, 443).name == "web"
    assert held_by(claims, 100 * S, 25).name == "mail"


def test_a_pod_behind_several_services_is_of_the_one_with_that_port_else_of_the_first_by_name():
    claims = [
        Holder(POD, "p", uid="u", service_name=name, begins_ns=begins * S, told_ns=S, ports=ports)
        for name, begins, ports in (("web", 1, (8080,)), ("api", 2, (8080,)), ("metrics", 3, (9090,)))
    ]
    for order in permutations(claims):
        assert [held_by(order, 9 * S, port).service_name for port in (8080, 9090, 22)] == ["api", "metrics", "api"]


def test_the_ports_of_a_slice_are_those_of_its_endpoints():
    holders = Holders()
    endpoint = {"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "name": "p", "namespace": "shop", "uid": "u"}}
    told = {"metadata": {"name": "s", "uid": "s"}, "endpoints": [endpoint], "ports": [{"port": 8080}, {}]}
    Slices(holders).put(msgspec.convert(told, objects.SliceObject), S)
    assert [found.ports for found in holders.of(ADDRESS)] == [(8080,)]


def pod(name, uid, address, spec=None, **status):
    made = {
        "name": name,
        "namespace": "shop",
        "uid": uid,
        "resourceVersion": "5",
        "creationTimestamp": "2026-11-20T00:00:00Z",
    }
    whole = {"metadata": made, "spec": spec or {}, "status": {"podIP": address, **status}}
    return msgspec.convert(whole, objects.PeerPodObject)


def test_an_address_that_changes_hands():
    holders, made_ns = Holders(), 1_795_132_800 * S
    pods = PeerPods(holders)
    pods.put(pod("a", "1", "10.0.0.1"), made_ns)
    first = holders.of(ADDRESS)[0]
    pods.put(pod("a", "1", "10.0.0.1", phase="Running"), made_ns + S)
    assert holders.of(ADDRESS) == (first,)  # nothing else is said of it
    pods.gone("1", made_ns + 60 * S)
    pods.put(pod("b", "2", "10.0.0.1"), made_ns + 61 * S)
    names = [held_by(holders.of(ADDRESS), made_ns + at * S).name for at in (30, 59, 60, 90)]
    assert names == ["a", "a", "b", "b"]
    holders.sweep(made_ns + 61 * S + ENDED_FOR_NS)
    assert [one.name for one in holders.of(ADDRESS)] == ["b"]
    pods.gone("2", made_ns + 500 * S)
    holders.sweep(made_ns + 501 * S + ENDED_FOR_NS)
    assert len(holders) == 0


def test_a_pod_has_no_address_before_its_kubelet_knows_of_it():
    holders, made_ns = Holders(), 1_795_132_800 * S
    pods = PeerPods(holders)
    pods.put(pod("a", "1", None), made_ns)
    pods.put(pod("a", "1", "10.0.0.1", startTime="2026-11-20T00:01:00Z"), made_ns + 90 * S)
    assert holders.of(ADDRESS)[0].begins_ns == made_ns + 60 * S


@pytest.mark.parametrize("kind", ["pods", "slices"])
def test_what_is_told_after_an_outage_may_have_happened_during_it(kind):
    holders, made_ns = Holders(), 1_795_132_800 * S
    table = PeerPods(holders) if kind == "pods" else Slices(holders)

    def tell(name, address, at_ns):
        if kind == "pods":
            return table.put(pod(name, name, address), at_ns)
        target = {"kind": "Pod", "name": name, "namespace": "shop", "uid": name}
        told = {"metadata": {"name": "s", "uid": "s"}, "endpoints": [{"addresses": [address], "targetRef": target}]}
        return table.put(msgspec.convert(told, objects.SliceObject), at_ns)

    tell("a", "10.0.0.1", made_ns + 5 * S)
    table.heard_ns = made_ns + 60 * S
    tell("a", "10.0.0.9", made_ns + 300 * S)
    if kind == "slices":
        tell("b", "10.0.0.1", made_ns + 300 * S)
        (_, second) = holders.of(ADDRESS)
        assert second.begins_ns == made_ns + 60 * S
    first, new = holders.of(ADDRESS)[0], holders.of(packed("10.0.0.9"))[0]
    assert (first.name, first.seen_ns, first.ends_ns) == ("a", made_ns + 60 * S, made_ns + 300 * S)
    assert (new.begins_ns, new.told_ns) == (made_ns + 60 * S, made_ns + 300 * S)


def test_a_finished_pod_has_given_its_address_back_and_one_on_the_hosts_network_never_had_it():
    holders = Holders()
    pods = PeerPods(holders)
    pods.put(pod("a", "1", "10.0.0.1"), S)
    pods.put(pod("a", "1", "10.0.0.1", phase="Succeeded"), 2 * S)
    assert holders.of(ADDRESS)[0].ends_ns == 2 * S
    pods.put(pod("a", "1", "10.0.0.1", phase="Succeeded"), 3 * S)
    assert holders.of(ADDRESS)[0].ends_ns == 2 * S
    pods.put(pod("h", "3", "10.0.0.9", spec={"hostNetwork": True}), S)
    assert holders.of(packed("10.0.0.9")) == ()


def test_a_service_that_changes_its_ways():
    holders = Holders()
    services = Services(holders)
    made = {
        "metadata": {"name": "web", "namespace": "shop", "uid": "s"},
        "spec": {
            "clusterIP": "10.96.0.1",
            "clusterIPs": ["10.96.0.1", "fd00::1"],
            "ports": [{"port": 80, "nodePort": 30080}],
        },
    }
    services.put(msgspec.convert(made, objects.ServiceObject), S)
    assert holders.of(packed("fd00::1"))[0].name == "web"
    assert services.by_node_port[30080].name == "web"
    made["spec"] = {"type": "ExternalName", "externalName": "db.example.org.", "clusterIP": "None"}
    services.put(msgspec.convert(made, objects.ServiceObject), 2 * S)
    assert services.by_node_port == {}
    assert [one.name for one in services.by_host_name["db.example.org"]] == ["web"]
    assert [one.name for one in services.by_host_name["web.shop.svc"]] == ["web"]
    assert holders.of(packed("10.96.0.1"))[0].ends_ns == 2 * S
    services.gone("s", 3 * S)
    assert services.by_host_name == {}


def service(uid, name, **spec):
    metadata = {"name": name, "namespace": "shop", "uid": uid}
    whole = {"metadata": metadata, "status": spec.pop("status", {}), "spec": spec}
    return msgspec.convert(whole, objects.ServiceObject)


def test_a_node_port_that_goes_to_another_service_before_the_first_is_known_to_be_gone():
    services = Services(Holders())
    for uid in ("a", "b"):
        services.put(service(uid, uid, clusterIP="None", ports=[{"port": 80, "nodePort": 30080}]), S)
    assert services.by_node_port[30080].name == "b"
    services.gone("b", 2 * S)
    services.gone("a", 3 * S)
    assert services.by_node_port == {}


def test_a_name_that_only_begins_like_a_host_that_a_service_stands_for():
    services = Services(Holders())
    known = Known(Kubernetes(), OwnPods(Kubernetes()), Holders(), services, Conntrack(Path("/nowhere")))
    services.put(service("a", "partner", type="ExternalName", externalName="db.example.com"), S)
    for name in ("db.example.com", "partner.shop.svc.cluster.local", "partner.shop.svc"):
        assert known.outside(name).name == "partner", name
    for name in ("db.example.com.elsewhere.org", "partner.shop", "partner.shop.svcs.org", "db.example", ""):
        assert known.outside(name) is None, name


def test_a_host_name_that_two_services_stand_for_names_neither():
    services = Services(Holders())
    known = Known(Kubernetes(), OwnPods(Kubernetes()), Holders(), services, Conntrack(Path("/nowhere")))
    for name in ("a", "b"):
        services.put(service(name, name, type="ExternalName", externalName="db.example.org"), S)
    assert known.outside("db.example.org") is None
    assert known.outside("b.shop.svc.cluster.local").name == "b"
    services.gone("a", 2 * S)
    assert known.outside("db.example.org").name == "b"
    balanced = {"loadBalancer": {"ingress": [{"hostname": "LB-1.Example.com"}]}}
    services.put(service("c", "c", clusterIP="10.96.0.9", status=balanced), 3 * S)
    assert known.outside("lb-1.example.com").name == "c"


def test_an_address_that_only_the_network_of_a_nodes_pods_tells_of():
    holders = Holders()
    nodes, pods = Nodes(holders), PeerPods(holders)
    told = {"metadata": {"name": "n2", "uid": "n"}, "spec": {"podCIDRs": ["10.244.2.0/24", "fd00:2::/64", "oops"]}}
    nodes.put(msgspec.convert(told, objects.NodeObject), S)
    for text in ("10.244.2.7", "fd00:2::7"):
        (found,) = holders.of(packed(text))
        assert (found.kind, found.name, found.node) == ("pod", "", "n2")
    assert holders.of(packed("10.244.3.7")) == ()
    pods.put(pod("a", "1", "10.244.2.7"), S)
    assert [one.name for one in holders.of(packed("10.244.2.7"))] == ["a"]
    told["spec"] = {"podCIDR": "10.244.3.0/24"}
    nodes.put(msgspec.convert(told, objects.NodeObject), 2 * S)
    assert holders.of(packed("10.244.2.8")) == ()
    assert holders.of(packed("10.244.3.7"))[0].node == "n2"
    nodes.gone("n", 3 * S)
    assert holders.of(packed("10.244.3.7")) == ()


def test_a_nodes_address_is_the_nodes_whichever_pod_is_told_to_have_it():
    holders = Holders()
    on_host = {"addresses": ["10.0.0.1"], "nodeName": "n1", "targetRef": {"kind": "Pod", "name": "proxy-x", "uid": "p"}}
    told = {"metadata": {"name": "proxy-1", "uid": "s"}, "endpoints": [on_host]}
    node = {"metadata": {"name": "n1", "uid": "n"}, "status": {"addresses": [{"address": "10.0.0.1"}]}}
    Nodes(holders).put(msgspec.convert(node, objects.NodeObject), S)
    Slices(holders).put(msgspec.convert(told, objects.SliceObject), 2 * S)
    assert held_by(holders.of(ADDRESS), 100 * S).name == "n1"


def own_pod(uid, name, claimed=""):
    notes = {"kubernetes.io/config.mirror": claimed} if claimed else {}
    made = {"name": name, "namespace": "shop", "uid": uid, "annotations": notes}
    return msgspec.convert({"metadata": made}, objects.PodObject)


def test_nobody_can_take_the_place_of_another_pod():
    """Whoever may make pods may write annotations."""
    own = OwnPods(Kubernetes())
    own.put(own_pod("u1", "real"), S)
    own.put(own_pod("x", "liar", claimed="u1"), 2 * S)
    assert own.by_cgroup_uid["u1"].uid == "u1"
    own.put(own_pod("y", "early", claimed="u2"), 3 * S)
    own.put(own_pod("u2", "real"), 4 * S)
    assert own.by_cgroup_uid["u2"].uid == "u2"
    own.put(own_pod("z", "static", claimed="hash"), 5 * S)
    assert own.by_cgroup_uid["hash"].uid == "z"
    own.put(own_pod("w", "late", claimed="hash"), 6 * S)
    assert own.by_cgroup_uid["hash"].uid == "z"


def test_the_next_mirror_of_a_static_pod_may_be_told_of_before_the_last_is_gone():
    own = OwnPods(Kubernetes())
    own.put(own_pod("a", "kube-apiserver-n1", claimed="hash"), S)
    own.put(own_pod("b", "kube-apiserver-n1", claimed="hash"), 2 * S)
    assert own.by_cgroup_uid["hash"].uid == "a"
    own.gone("a", 3 * S)
    assert own.by_cgroup_uid["hash"].uid == "b"
    own.sweep(10_000 * S)
    assert own.by_cgroup_uid["hash"].uid == "b"
    own.gone("b", 10_001 * S)
    assert own.by_cgroup_uid["hash"].uid == "b"
    own.sweep(20_000 * S)
    assert "hash" not in own.by_cgroup_uid


@pytest.mark.parametrize(
    ("address", "may"),
    [
        ("10.0.0.1", True), ("11.0.0.1", False), ("172.31.255.255", True), ("172.32.0.0", False), ("192.168.0.1", True),
        ("100.127.0.1", True), ("100.128.0.1", False), ("169.254.1.1", True), ("8.8.8.8", False), ("2001:db8::1", True),
    ],
)  # fmt: skip
def test_addresses_that_pods_may_have(address, may):
    assert may_be_of_pods(packed(address)) is may


def test_text_that_is_no_address():
    assert network("10.0.0.0") is network("10.0.0.0/99") is network("a/8") is network("10.0.0.0/x") is None
    assert packed("None") is packed("") is packed(None) is packed("300.1.1.1") is packed("a::g") is None
    assert SKEW_NS < ENDED_FOR_NS
