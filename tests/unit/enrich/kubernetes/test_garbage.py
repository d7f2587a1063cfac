"""Whatever a server says, a watch goes on, keeps no more than its bound, and holds nothing that a row could stumble on."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelbpf.config import Kubernetes
from otelbpf.enrich.kubernetes.access import Access
from otelbpf.enrich.kubernetes.api import Api
from otelbpf.enrich.kubernetes.holders import NS_PER_S, Holders, packed
from otelbpf.enrich.kubernetes.identity import container_facts
from otelbpf.enrich.kubernetes.listing import Resource
from otelbpf.enrich.kubernetes.refusals import ApiError
from otelbpf.enrich.kubernetes.tables import Nodes, OwnPods, PeerPods, Services, Slices
from otelbpf.enrich.kubernetes.watch import Watch

NAMES = (
    "metadata", "name", "namespace", "uid", "resourceVersion", "creationTimestamp", "labels", "annotations",
    "ownerReferences", "kind", "controller", "spec", "nodeName", "hostNetwork", "containers", "image", "status", "phase",
    "podIP", "podIPs", "ip", "containerStatuses", "containerID", "restartCount", "state", "terminated", "type", "object",
    "clusterIP", "clusterIPs", "externalIPs", "externalName", "ports", "port", "nodePort", "loadBalancer", "ingress",
    "addresses", "address", "endpoints", "targetRef", "code", "reason", "message", "app.kubernetes.io/name",
    "resource.opentelemetry.io/service.name", "kubernetes.io/config.hash", "kubernetes.io/service-name",
)  # fmt: skip
TYPES = ("ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR", "NEW")
TEXTS = ("", "web", "ReplicaSet", "web-7d9f", "10.0.0.1", "fd00::1", "None", "2026-11-20T00:00:00Z", "9999-12-31T00:00:00Z",
         "0001-01-01T00:00:00+14:00", "ExternalName", "Pod", "Running", "Succeeded", "x" * 2000)  # fmt: skip
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from(TEXTS)
    | st.text(max_size=5)
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
    max_leaves=20,
)
lines = st.fixed_dictionaries({"type": st.sampled_from(TYPES), "object": values}) | values


class Lines:
    """A stream that is there already."""

    ended = False
    more = False
    kind = "application/json"

    def __init__(self, said: list[bytes]) -> None:
        self._said = said

    def lines(self) -> list[bytes]:
        return self._said

    def close(self) -> None:
        self._said = []


def watches(limit: int = 100) -> list[Watch]:
    holders, settings = Holders(), Kubernetes(enabled=True)
    api = Api(Access(settings, {}))
    tables: list[Any] = [OwnPods(settings), PeerPods(holders), Nodes(holders), Services(holders), Slices(holders)]
    return [Watch(Resource("any", "/any"), table, api, limit) for table in tables]


def tell(watch: Watch, *said: bytes) -> None:
    watch.stream = Lines(list(said))  # type: ignore[assignment]
    watch.read()


@given(st.lists(lines | st.binary(max_size=50), max_size=10), st.booleans())
def test_nothing_that_is_said_breaks_a_watch(said, first):
    for watch in watches():
        watch._listed = set() if first else None
        tell(watch, *(one if isinstance(one, bytes) else json.dumps(one).encode() for one in said))


def told(kind: str, metadata: Any = None, **more: Any) -> bytes:
    usual = {"name": "web", "namespace": "shop", "uid": "u1", "resourceVersion": "7"}
    return json.dumps({"type": kind, "object": {"metadata": usual | (metadata or {}), **more}}).encode()


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 100_000,
        b'{"type":"ADDED","object":{"spec":' + b"[" * 100_000,
        b'{"type":"ADDED","object":{"metadata":{"name":"\xff","uid":"1"}}}',
        b'{"type":"ADDED","object":{"metadata":{"name":"\\ud800","uid":"1"}}}',
        told("ADDED", {"uid": ""}),
        told("ADDED", {"uid": "u" * 100}),
        told("ADDED", {"name": "n" * 2_000_000}),
        told("ADDED", status={"containerStatuses": [{"name": "a", "restartCount": 2**80}]}),
    ],
)
def test_an_object_that_cannot_be_read_is_counted_and_not_kept(line):
    own, peers, *_ = watches()
    for watch in (own, peers) if b"restartCount" not in line else (own,):
        watch._listed = set()
        tell(watch, line)
        assert (watch.health.undecodable, len(watch.table.uids())) == (1, 0)


class Stumbling(OwnPods):
    """A table with a mistake: it cannot take pods of one name, nor let them go."""

    def put(self, found: Any, now_ns: int) -> None:
        super().put(found, now_ns)
        {"web": found}[found.metadata.name]

    def gone(self, uid: str, now_ns: int) -> None:
        super().gone(uid, now_ns)
        {"u1": uid}[uid]


def test_a_mistake_about_one_object_costs_no_other():
    settings = Kubernetes(enabled=True)
    watch = Watch(Resource("any", "/any"), Stumbling(settings), Api(Access(settings, {})), 100)
    tell(watch, told("ADDED", {"uid": "u2", "name": "other"}), told("ADDED"), told("DELETED", {"uid": "u2"}))
    watch._complete(set(), "8")
    assert (list(watch.table.uids()), watch.health.undecodable, watch._version) == ([], 2, "8")


def test_what_was_known_of_an_object_that_cannot_be_read_any_more_stays_until_it_is_deleted():
    (own, *_) = watches()
    tell(own, told("ADDED"), told("MODIFIED", {"resourceVersion": "8"}, spec=5))
    assert (list(own.table.uids()), own._version, own.health.undecodable) == (["u1"], "8", 1)
    tell(own, told("DELETED", {"resourceVersion": "9"}, spec=5))
    assert (list(own.table.uids()), own._version) == ([], "9")


def test_a_deleted_object_that_nobody_can_read_brings_a_new_list():
    (own, *_) = watches()
    tell(own, told("ADDED"), b'{"type":"DELETED","object":{}}')
    assert own._version == ""
    assert own.stream is None
    assert own.health.down_since_ns


def test_the_watches_of_many_nodes_do_not_come_back_together():
    due_s = []
    for _ in range(100):
        (own, *_) = watches()
        own._version = "7"
        tell(own, b'{"type":"ERROR","object":{"code":500}}')
        due_s.append(own.due_s)
    assert max(due_s) - min(due_s) > 0.75  # of 1 ± 0.75
    assert len(set(due_s)) == 100


def test_a_version_that_is_refused_again_and_again_is_given_up_for_a_list():
    (own, *_) = watches()
    own._version = "7"
    for code, left in ((0, "7"), *[(503, "7")] * 9, *[(500, "7")] * 4, (500, "")):
        own._refused(ApiError(code, "no"))
        assert own._version == left


def test_a_stream_of_garbage_is_given_up():
    (own, *_) = watches()
    own._listed = set()
    tell(own, *[b'{"type":"ADDED","object":{}}'] * 1000)
    assert own.stream is None
    assert own.health.undecodable < 200


def test_objects_beyond_the_bound_are_counted_and_not_kept():
    for watch in watches(limit=3):
        tell(watch, *(told("ADDED", {"uid": f"u{number}"}) for number in range(5)), told("MODIFIED", {"uid": "u1"}))
        assert (len(watch.table.uids()), watch.health.beyond) == (3, 2)


def test_a_time_that_no_clock_said_is_not_known():
    _, peers, *_ = watches()
    for year in ("9999", "0001", "2026"):
        made = {"uid": year, "creationTimestamp": f"{year}-01-01T00:00:00Z"}
        tell(peers, told("ADDED", made, status={"podIP": f"10.0.0.{int(year) % 250}"}))
    begins = [peers.table._holders.of(packed(f"10.0.0.{year % 250}"))[0].begins_ns for year in (9999, 1, 2026)]  # type: ignore[attr-defined]
    assert begins[:2] == [0, 0]
    assert begins[2] > 0


def test_what_annotations_say_has_a_bound():
    (own, *_) = watches()
    notes = {f"resource.opentelemetry.io/key.{number}": "v" for number in range(5000)}
    tell(own, told("ADDED", {"annotations": {"resource.opentelemetry.io/long": "v" * 100_000, **notes}}))
    facts = container_facts(own.table.by_cgroup_uid["u1"], "")  # type: ignore[attr-defined]
    assert len([name for name in facts if name.startswith("key.")]) == 64
    assert "long" not in facts


def test_a_watch_knows_since_when_it_has_heard_nothing():
    """Until a new list is complete, or a watch that goes on has had time to tell."""
    _, peers, *_ = watches()
    tell(peers, told("ADDED"))
    assert peers.table.heard_ns == 0
    peers._heard_s -= 50
    peers._fail("away")
    heard_ns = peers.table.heard_ns
    assert 50 * NS_PER_S <= time.time_ns() - heard_ns < 80 * NS_PER_S
    peers._listed = set()
    tell(peers, told("ADDED"))
    peers._fail("away again")
    assert peers.table.heard_ns == heard_ns
    peers._complete({"u1"}, "8")
    assert peers.table.heard_ns == 0

    tell(peers, told("ADDED"))
    peers._fail("away")
    tell(peers)
    peers._pace.opened()
    peers.check(time.monotonic())
    assert peers.table.heard_ns > 0
    peers.check(time.monotonic() + 2)
    assert peers.table.heard_ns == 0
