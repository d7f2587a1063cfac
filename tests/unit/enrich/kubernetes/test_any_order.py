"""Objects as the API allows them, in whatever order they come, change and go: tables hold those that are there."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from otelbpf.enrich.kubernetes.holders import ENDED_FOR_NS
from otelbpf.enrich.kubernetes.tables import OwnPods, Services
from tests.unit.enrich.kubernetes.test_garbage import tell, watches

LONG_AFTER_NS = 1 << 62
ADDRESSES = ("10.0.0.1", "10.0.0.2", "fd00::1")
HOSTS = ("db.example.com", "DB.example.com.", "lb.example.com")


def some(*of: str) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(of), max_size=2)


def about(**fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    """An object with any of *fields*."""
    return st.fixed_dictionaries({}, optional=fields)


def each(key: str, *of: Any) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.fixed_dictionaries({key: st.sampled_from(of)}), max_size=2)


MIRRORS = {"u2": "u1", "u3": "static"}
"""What pods say that they are mirrors of, for their whole life: the API lets nobody change it."""


def metadata(name: str, uid: str, namespace: str) -> dict[str, Any]:
    notes = {"kubernetes.io/config.mirror": MIRRORS[uid]} if uid in MIRRORS else {}
    return {"name": name, "uid": uid, "namespace": namespace, "annotations": notes}


METADATA = st.builds(metadata, st.sampled_from("ab"), st.sampled_from(("u1", *MIRRORS)), st.sampled_from("xy"))
OBJECTS = st.fixed_dictionaries(
    {"metadata": METADATA},
    optional={
        "spec": about(
            nodeName=st.sampled_from(("n1", "n2")), hostNetwork=st.booleans(),
            podCIDR=st.sampled_from(("10.1.0.0/24", "fd00:1::/64")), podCIDRs=some("10.1.0.0/24", "10.2.0.0/24"),
            type=st.sampled_from(("ClusterIP", "ExternalName")), externalName=st.sampled_from(HOSTS),
            clusterIP=st.sampled_from((*ADDRESSES, "None")), externalIPs=some(*ADDRESSES),
            ports=each("nodePort", 30080, 30081),
        ),
        "status": about(
            phase=st.sampled_from(("Running", "Failed")), podIP=st.sampled_from(ADDRESSES), podIPs=each("ip", *ADDRESSES),
            addresses=each("address", *ADDRESSES),
            loadBalancer=about(ingress=each("hostname", *HOSTS) | each("ip", *ADDRESSES)),
        ),
        "endpoints": st.lists(
            st.fixed_dictionaries(
                {"addresses": some(*ADDRESSES)},
                optional={"targetRef": st.just({"kind": "Pod", "name": "a", "uid": "p"}), "nodeName": st.just("n1")},
            ),
            max_size=3,
        ),
    },
)  # fmt: skip
EVENTS = st.lists(st.tuples(st.sampled_from(("ADDED", "MODIFIED", "DELETED")), OBJECTS), max_size=12)


@given(EVENTS)
def test_what_is_there_is_held_and_nothing_else_is_left(events):
    there: set[str] = set()
    for kind, told in events:
        (there.discard if kind == "DELETED" else there.add)(told["metadata"]["uid"])
    lines = [json.dumps({"type": kind, "object": told}).encode() for kind, told in events]
    for watch in watches():
        tell(watch, *lines)
        table: Any = watch.table
        assert (watch.health.undecodable, set(table.uids())) == (0, there)
        for uid in there:
            table.gone(uid, LONG_AFTER_NS)
        left = table if isinstance(table, OwnPods) else table._holders
        left.sweep(LONG_AFTER_NS + ENDED_FOR_NS + 1)
        assert not (table.by_cgroup_uid if isinstance(table, OwnPods) else len(left) or left.networks)
        if isinstance(table, Services):
            assert not table.by_node_port
            assert not table.by_host_name
