"""Rows wait for their pod, within bounds, and the ledger knows of them."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np

from otelbpf.batch import Batch
from otelbpf.config import Config, Kubernetes
from otelbpf.enrich import Enrichment
from otelbpf.enrich.kubernetes import identity, objects
from otelbpf.enrich.kubernetes.cluster import Recorded, Recorder
from otelbpf.enrich.kubernetes.holders import Holder, packed
from otelbpf.enrich.kubernetes.peers import Peers
from otelbpf.enrich.machine import RecordedMachine
from otelbpf.hold import Hold
from tests.unit.enrich.rows import CGROUP, DNS, rows, tcp, values

UID = "11111111-2222-3333-4444-555555555555"
RUN = "ab" * 32
PATH = f"/kubepods/burstable/pod{UID}/{RUN}"


class Cluster:
    """One that is told what it knows."""

    node_name, cluster_name, holds = "n1", "test", True

    def __init__(self):
        self.pods, self.addresses, self.ports, self.true = {}, {}, {}, {}
        self.unsure, self.asked_ns = set(), []

    def pod(self, uid):
        return self.pods.get(uid)

    def holders(self, address):
        return self.addresses.get(address, ())

    def is_complete_for(self, address):
        return address not in self.unsure

    def at_node_port(self, port):
        return self.ports.get(port)

    def outside(self, name):
        return None

    def learn(self):
        pass

    def translates(self, remote):
        return any(ends[3] == remote for ends in self.true)

    def true_end(self, ends, began_ns):
        self.asked_ns.append(began_ns)
        return self.true.get(ends)


def pod():
    status = {"containerStatuses": [{"name": "app", "containerID": f"containerd://{RUN}", "restartCount": 1}]}
    made = {"metadata": {"name": "web", "namespace": "shop", "uid": UID}, "status": status}
    return identity.pod_of(objects.decoder(objects.PodObject).decode(json.dumps(made)), Kubernetes(), None)


def started(cluster, seconds=2.0, **more):
    enrichment = Enrichment(Config(), RecordedMachine({}), cluster)
    enrichment.__enter__()
    enrichment.learn([Batch("cgroup", rows(CGROUP, {"kind": 1, "cgroup_id": 5, "path": PATH.encode()}), 0)])
    clock = SimpleNamespace(now=100.0)
    return enrichment, Hold(enrichment.waiting, seconds, clock=lambda: clock.now, **more), clock


def source():
    return SimpleNamespace(held=0, processed=0)


def test_a_row_waits_until_its_pod_is_known():
    cluster = Cluster()
    enrichment, hold, _ = started(cluster)
    one = source()
    batch = tcp({"cgroup_id": 5, "pid": 1}, {"cgroup_id": 9, "pid": 2})
    assert len(hold.sifted(one, batch)) == 1
    assert one.held == 1
    assert list(hold.released()) == []
    assert one.held == 1
    cluster.pods[UID] = pod()
    (released,) = hold.released()
    assert (one.held, one.processed) == (0, 1)
    assert hold.rows == {"named": 1, "nameless": 0, "displaced": 0}
    resource = values(enrichment.enrich(released), "resource")[0]
    assert resource["k8s.pod.name"] == "web"
    assert resource["k8s.node.name"] == "n1"
    assert resource["k8s.cluster.name"] == "test"


def test_what_has_waited_long_enough_goes_and_is_not_waited_for_again():
    _, hold, clock = started(Cluster())
    one = source()
    assert len(hold.sifted(one, tcp({"cgroup_id": 5, "pid": 1}))) == 0
    clock.now += 3
    (released,) = hold.released()
    assert len(released) == 1
    assert hold.rows["nameless"] == 1
    assert len(hold.sifted(one, tcp({"cgroup_id": 5, "pid": 1}))) == 1


def test_what_there_is_no_room_for_goes_at_once():
    _, hold, _ = started(Cluster(), limit_bytes=10)
    assert len(hold.sifted(source(), tcp({"cgroup_id": 5, "pid": 1}))) == 1
    assert hold.rows["displaced"] == 1


def test_everything_goes_at_the_end_and_a_snapshots_rows_are_no_events():
    _, hold, _ = started(Cluster())
    one = source()
    left = hold.sifted(one, tcp({"cgroup_id": 5, "pid": 1}, {"cgroup_id": 9, "pid": 1}, snapshot=True))
    assert left.snapshot
    assert len(left) == 1
    assert one.held == 0
    (released,) = hold.released(everything=True)
    assert not released.snapshot
    assert one.processed == 0


def peers_of(cluster, **row):
    enrichment, *_ = started(cluster)
    layout = tcp({}).rows.dtype
    wide = np.zeros(
        1, np.dtype([*[(name, layout[name]) for name in layout.names], ("local_port", "u2"), ("remote_port", "u2")])
    )
    base = tcp({name: value for name, value in row.items() if not name.endswith("_port")})
    for name in layout.names:
        wide[name] = base.rows[name]
    for name in ("local_port", "remote_port"):
        wide[name] = row.get(name, 0)
    found = enrichment.enrich(Batch("tcp_connection", wide, 0))
    return (
        values(found, "remote")[0],
        values(found, "edge")[0],
        (found.number("nat_address")[0].item(), int(found.number("nat_port")[0])),
    )


def test_where_somebody_may_be_whom_nobody_has_told_of_no_kind_of_place_is_guessed():
    cluster = Cluster()
    cluster.unsure = {packed("10.244.0.9")}
    remote, edge, _ = peers_of(cluster, remote_address="10.244.0.9")
    assert (remote, edge) == ({"network.type": "ipv4"}, {})
    assert peers_of(cluster, remote_address="10.244.0.8")[1] == {"otelbpf.peer.type": "external"}


def test_who_is_truly_there_is_not_guessed_either():
    cluster = Cluster()
    vip, backend, us = packed("10.96.0.5"), packed("10.244.0.9"), packed("10.244.0.1")
    cluster.unsure = {vip, backend}
    cluster.true = {(6, us, 40000, vip, 80): (backend, 5432)}
    row = {"local_address": "10.244.0.1", "remote_address": "10.96.0.5", "local_port": 40000, "remote_port": 80}
    remote, edge, nat = peers_of(cluster, start_ns=9, **row)
    assert (remote, edge, nat) == ({"network.type": "ipv4"}, {}, (backend, 5432))
    cluster.addresses = {vip: (Holder("service", "db", "shop"),)}
    assert peers_of(cluster, start_ns=9, **row)[0]["otelbpf.peer.type"] == "service"


def test_a_recording_remembers_what_was_not_sure():
    answers = {}
    cluster = Cluster()
    cluster.unsure = {packed("10.244.0.9")}
    recorder = Recorder(cluster, answers)
    asked = [packed("10.244.0.9"), packed("10.244.0.8")]
    assert [recorder.is_complete_for(one) for one in asked] == [False, True]
    assert [Recorded(answers).is_complete_for(one) for one in asked] == [False, True]


def test_a_service_and_the_pod_behind_it():
    cluster = Cluster()
    service = Holder("service", "db", "shop", service_name="db", service_namespace="shop")
    behind = Holder("pod", "db-0", "shop", "u9", "n2", "StatefulSet", "db-set", "postgres", "shop")
    vip, backend, us = packed("10.96.0.5"), packed("10.244.0.5"), packed("10.244.0.1")
    cluster.addresses = {vip: (service,), backend: (behind,)}
    cluster.true = {(6, us, 40000, vip, 80): (backend, 5432)}
    row = {"local_address": "10.244.0.1", "remote_address": "10.96.0.5", "local_port": 40000, "remote_port": 80}
    remote, edge, nat = peers_of(cluster, start_ns=9, **row)
    assert cluster.asked_ns == [9]
    wanted = {
        "otelbpf.peer.type": "service",
        "otelbpf.peer.k8s.service.name": "db", "service.peer.name": "db", "otelbpf.peer.k8s.pod.name": "db-0",
        "otelbpf.peer.k8s.workload.name": "db-set", "otelbpf.peer.k8s.node.name": "n2",
    }  # fmt: skip
    assert {name: remote.get(name) for name in wanted} == wanted
    assert nat == (backend, 5432)
    assert edge == {
        "otelbpf.peer.type": "service", "service.peer.name": "db", "service.peer.namespace": "shop",
        "otelbpf.peer.k8s.namespace.name": "shop", "otelbpf.peer.k8s.workload.name": "db-set",
        "otelbpf.peer.k8s.workload.kind": "StatefulSet",
    }  # fmt: skip


def test_a_connection_older_than_the_agent_has_no_end_behind_its_service():
    cluster = Cluster()
    vip, us = packed("10.96.0.5"), packed("10.244.0.1")
    cluster.addresses = {vip: (Holder("service", "db", "shop", service_name="db", service_namespace="shop"),)}
    cluster.true = {(6, us, 40000, vip, 80): (packed("10.244.0.5"), 5432)}
    row = {"local_address": "10.244.0.1", "remote_address": "10.96.0.5", "local_port": 40000, "remote_port": 80}
    remote, _, nat = peers_of(cluster, start_ns=0, **row)
    assert remote["otelbpf.peer.k8s.service.name"] == "db"
    assert nat == (bytes(16), 0)


def test_a_pod_behind_several_services_is_of_the_one_whose_port_it_was_translated_to():
    cluster = Cluster()
    node, backend, us = packed("192.0.2.7"), packed("10.244.0.5"), packed("10.244.0.1")
    cluster.addresses = {
        node: (Holder("node", "n7", node="n7"),),
        backend: tuple(
            Holder("pod", "p", "shop", "u9", "n7", service_name=name, service_namespace="shop", ports=(port,))
            for name, port in (("api", 8080), ("db", 5432))
        ),
    }
    row = {"local_address": "10.244.0.1", "remote_address": "192.0.2.7", "local_port": 40000, "remote_port": 80}
    for port, name in ((8080, "api"), (5432, "db")):
        cluster.true = {(6, us, 40000, node, 80): (backend, port)}
        remote, *_ = peers_of(cluster, start_ns=9, **row)
        assert remote["service.peer.name"] == name


def test_a_question_is_of_the_time_at_which_it_was_asked():
    cluster = Cluster()
    vip, us = packed("10.96.0.10"), packed("10.244.0.1")
    cluster.true = {(17, us, 40000, vip, 53): (packed("10.244.0.5"), 53)}
    more = [("latency_ns", "u8"), ("transport", "u1"), ("local_port", "u2"), ("remote_port", "u2")]
    wide = np.zeros(1, np.dtype([*[(name, DNS[name]) for name in DNS.names], *more]))
    wide["head"]["time_ns"], wide["latency_ns"], wide["transport"] = 9, 2, 17
    wide["local_port"], wide["remote_port"] = 40000, 53
    wide["local_address"], wide["remote_address"] = np.void(us), np.void(vip)
    ends = Peers(cluster).of(Batch("dns_lookup", wide, 100), frozenset())
    assert (ends.nat_addresses[0].item(), ends.nat_ports[0]) == (packed("10.244.0.5"), 53)
    assert cluster.asked_ns == [7]


def test_a_port_that_every_node_has_for_a_service():
    cluster = Cluster()
    cluster.addresses = {packed("192.0.2.7"): (Holder("node", "n7", node="n7"),)}
    cluster.ports = {30080: Holder("service", "web", "shop", service_name="web", service_namespace="shop")}
    remote, *_ = peers_of(cluster, remote_address="192.0.2.7", remote_port=30080)
    assert (remote["otelbpf.peer.type"], remote["service.peer.name"]) == ("service", "web")
    remote, *_ = peers_of(cluster, remote_address="192.0.2.7", remote_port=443)
    assert (remote["otelbpf.peer.type"], remote["otelbpf.peer.k8s.node.name"]) == ("node", "n7")


def test_a_recording_answers_as_the_cluster_did():
    cluster = Cluster()
    vip, us = packed("10.96.0.5"), packed("10.244.0.1")
    cluster.pods = {UID: pod()}
    cluster.addresses = {vip: (Holder("service", "db", "shop", service_name="db"),)}
    cluster.ports = {30080: cluster.addresses[vip][0]}
    cluster.true = {(6, us, 40000, vip, 80): (us, 5432)}
    answers = {}
    recorder = Recorder(cluster, answers)
    asked = (
        recorder.node_name,
        recorder.pod(UID),
        recorder.at_node_port(30080),
        recorder.true_end((6, us, 40000, vip, 80), 7),
    )
    recorder.holders(vip), recorder.holders(us)
    again = Recorded(json.loads(json.dumps(answers)))
    assert again.pod(UID) == asked[1]
    assert again.node_name == "n1"
    assert again.holders(vip)[0] is again.at_node_port(30080)
    assert again.holders(vip)[0].name == "db"
    assert again.holders(us) == ()
    assert again.translates(vip)
    assert again.true_end((6, us, 40000, vip, 80), 7) == (us, 5432)
    assert again.true_end((6, us, 40000, vip, 80), 8) is None
    older = {"ends": {f"6 {us.hex()} 40000 {vip.hex()} 80": [us.hex(), 5432]}}  # of before there were times
    assert Recorded(older).translates(vip)
    assert Recorded(older).true_end((6, us, 40000, vip, 80), 8) == (us, 5432)
    assert not again.holds
