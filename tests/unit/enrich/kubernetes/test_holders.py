"""Who had an address when."""

from __future__ import annotations

import msgspec
import pytest

from otelbpf.enrich.kubernetes import objects
from otelbpf.enrich.kubernetes.holders import ENDED_FOR_NS, NS_PER_S, SKEW_NS, Holder, Holders, held_by, packed
from otelbpf.enrich.kubernetes.tables import PeerPods, Services

ADDRESS = packed("10.0.0.1")
S = NS_PER_S


def holder(name, begins_s=0, ends_s=0, **more):
    return Holder("pod", name, begins_ns=begins_s * S, ends_ns=ends_s * S, **more)


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
    ],
)
def test_who_had_it(claims, at_s, wanted):
    found = held_by(claims, at_s * S)
    assert (found.name if found else None) == wanted


def test_services_that_share_an_address_are_told_apart_by_port():
    claims = [holder("web", 1, ports=(80, 443)), holder("mail", 2, ports=(25,))]
    assert held_by(claims, 100 * S, 443).name == "web"
    assert held_by(claims, 100 * S, 25).name == "mail"


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
    assert services.by_external_name["db.example.org"].name == "web"
    assert holders.of(packed("10.96.0.1"))[0].ends_ns == 2 * S
    services.gone("s", 3 * S)
    assert services.by_external_name == {}


def test_text_that_is_no_address():
    assert packed("None") is packed("") is packed(None) is packed("300.1.1.1") is packed("a::g") is None
    assert SKEW_NS < ENDED_FOR_NS
