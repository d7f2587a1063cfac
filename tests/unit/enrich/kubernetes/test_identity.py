"""What is said of a pod, by the specification's rules."""

from __future__ import annotations

import json

import pytest

from otelbpf.config import Kubernetes
from otelbpf.enrich.kubernetes import alike, identity, objects

NO_SETTINGS = Kubernetes()
DECODER = objects.decoder(objects.PodObject)


def pod(metadata=None, spec=None, status=None, settings=NO_SETTINGS, before=None):
    usual = {"name": "web-1", "namespace": "shop", "uid": "u1", "creationTimestamp": "2026-11-20T00:00:00Z"}
    made = {"metadata": usual | (metadata or {}), "spec": {"nodeName": "n1"} | (spec or {}), "status": status or {}}
    return identity.pod_of(DECODER.decode(json.dumps(made)), settings, before)


def owner(kind, name):
    return {"ownerReferences": [{"kind": kind, "name": name, "controller": True}]}


@pytest.mark.parametrize(
    ("metadata", "workload", "service", "attributes"),
    [
        ({}, ("Pod", "web-1"), "web-1", {}),
        (
            owner("ReplicaSet", "web-7d9f") | {"labels": {"pod-template-hash": "7d9f"}},
            ("Deployment", "web"),
            "web",
            {"k8s.deployment.name": "web", "k8s.replicaset.name": "web-7d9f"},
        ),
        (owner("ReplicaSet", "web"), ("ReplicaSet", "web"), "web", {"k8s.replicaset.name": "web"}),
        (owner("StatefulSet", "db"), ("StatefulSet", "db"), "db", {"k8s.statefulset.name": "db"}),
        (owner("DaemonSet", "log"), ("DaemonSet", "log"), "log", {"k8s.daemonset.name": "log"}),
        (owner("Job", "pack"), ("Job", "pack"), "pack", {"k8s.job.name": "pack"}),
        (
            owner("Job", "tidy-29918880"),  # 2026-11-20 00:00
            ("CronJob", "tidy"),
            "tidy",
            {"k8s.cronjob.name": "tidy", "k8s.job.name": "tidy-29918880"},
        ),
        (owner("Job", "load-20261120"), ("Job", "load-20261120"), "load-20261120", {"k8s.job.name": "load-20261120"}),
        (owner("Node", "n1"), ("Pod", "web-1"), "web-1", {}),
        (owner("Rollout", "canary"), ("Rollout", "canary"), "web-1", {}),
        (
            owner("ReplicaSet", "web-6b7c") | {"labels": {"rollouts-pod-template-hash": "6b7c"}},
            ("Rollout", "web"),
            "web-6b7c",
            {"k8s.replicaset.name": "web-6b7c"},
        ),
        (
            owner("StatefulSet", "db") | {"labels": {"app.kubernetes.io/name": "postgres"}},
            ("StatefulSet", "db"),
            "postgres",
            {},
        ),
        (
            {"labels": {"app.kubernetes.io/name": "postgres", "app.kubernetes.io/instance": "orders-db"}},
            ("Pod", "web-1"),
            "orders-db",
            {},
        ),
        ({"annotations": {"resource.opentelemetry.io/service.name": "said"}}, ("Pod", "web-1"), "said", {}),
    ],
)
def test_workload_and_service(metadata, workload, service, attributes):
    found = pod(metadata)
    decoded = DECODER.decode(
        json.dumps({"metadata": {"name": "web-1", "uid": "u1", "creationTimestamp": "2026-11-20T00:00:00Z"} | metadata})
    )
    assert identity.peer_of(decoded.metadata)[0] == workload
    assert found.facts["service.name"] == service
    owners = {
        "k8s.deployment.name",
        "k8s.replicaset.name",
        "k8s.statefulset.name",
        "k8s.daemonset.name",
        "k8s.job.name",
        "k8s.cronjob.name",
    }
    if attributes:
        assert {name: value for name, value in found.facts.items() if name in owners} == attributes


def run(container_id, **more):
    return {"name": "app", "containerID": f"containerd://{container_id}", "restartCount": 3, **more}


def test_containers_of_every_kind_and_the_run_before():
    found = pod(
        spec={
            "containers": [{"name": "app", "image": "reg:5000/app:1.2@sha256:ff"}],
            "initContainers": [{"name": "setup", "image": "setup"}],
            "ephemeralContainers": [{"name": "debug", "image": "sha256:abc"}],
        },
        status={
            "containerStatuses": [run("new", lastState={"terminated": {"containerID": "containerd://old"}})],
            "initContainerStatuses": [{"name": "setup", "state": {"terminated": {"containerID": "cri-o://init"}}}],
            "ephemeralContainerStatuses": [{"name": "debug", "containerID": "docker://bug", "restartCount": 0}],
        },
    )
    assert {key: (one.name, one.restarts) for key, one in found.containers.items()} == {
        "new": ("app", 3), "old": ("app", 2), "init": ("setup", None), "bug": ("debug", 0),
    }  # fmt: skip
    facts = identity.container_facts(found, "new")
    assert facts["container.image.name"] == "reg:5000/app"
    assert facts["container.image.tags"] == ["1.2"]
    assert facts["service.version"] == "1.2@sha256:ff"
    assert facts["service.instance.id"] == "shop.web-1.app"
    sandbox = identity.container_facts(found, "pause")
    assert "k8s.container.name" not in sandbox
    assert sandbox["service.instance.id"] == "shop.web-1"


def test_a_container_that_crashes_again_and_again_is_remembered_within_bounds():
    found = None
    for number in range(identity.CONTAINERS_REMEMBERED + 10):
        found = pod(status={"containerStatuses": [run(f"run{number}")]}, before=found)
    assert len(found.containers) == identity.CONTAINERS_REMEMBERED
    assert list(found.containers)[-1] == f"run{identity.CONTAINERS_REMEMBERED + 9}"


def test_annotations_count_before_everything_and_labels_are_chosen():
    notes = {
        "resource.opentelemetry.io/service.instance.id": "mine",
        "resource.opentelemetry.io/team": "a",
        "note": "n",
    }
    settings = Kubernetes(labels=("app.*", "tier"), annotations=("no*",))
    labels = {"app.kubernetes.io/version": "v9", "tier": "front", "other": "x"}
    found = pod(
        {"annotations": notes, "labels": labels},
        status={"containerStatuses": [run("c", image="app:1")]},
        settings=settings,
    )
    facts = identity.container_facts(found, "c")
    assert facts["service.instance.id"] == "mine"
    assert facts["team"] == "a"
    assert facts["service.version"] == "v9"
    assert facts["k8s.pod.label.tier"] == "front"
    assert "k8s.pod.label.other" not in facts
    assert facts["k8s.pod.annotation.note"] == "n"


def test_annotations_cannot_say_what_is_seen():
    said = {"k8s.namespace.name": "bank", "k8s.pod.name": "till", "container.id": "c", "host.name": "h", "team": "a"}
    notes = {f"resource.opentelemetry.io/{name}": value for name, value in said.items()}
    facts = identity.container_facts(pod({"annotations": notes}, status={"containerStatuses": [run("d")]}), "d")
    assert (facts["k8s.namespace.name"], facts["k8s.pod.name"], facts["team"]) == ("shop", "web-1", "a")
    assert not {"container.id", "host.name"} & set(facts)


def test_labels_and_annotations_are_carried_within_bounds():
    labels = {f"label-{number:04}": "x" for number in range(3000)}
    settings = Kubernetes(labels=("*",), annotations=("*",))
    facts = pod({"labels": labels, "annotations": {"long": "y" * 200_000, "short": "y"}}, settings=settings).facts
    assert len([name for name in facts if name.startswith("k8s.pod.label.")]) == identity.SAID
    assert [name for name in facts if name.startswith("k8s.pod.annotation.")] == ["k8s.pod.annotation.short"]


def test_a_static_pod_is_known_by_the_uid_in_its_cgroup():
    found = pod({"annotations": {"kubernetes.io/config.hash": "hash", "kubernetes.io/config.mirror": "hash"}})
    assert (found.uid, found.cgroup_uid) == ("u1", "hash")


def peer(name="web-7d9f-a", **metadata):
    made = {"name": name, "namespace": "shop", "uid": "u", **metadata}
    return objects.decoder(objects.RawMetadata).decode(json.dumps(made))


def test_pods_that_say_the_same_are_of_the_same_workload_and_others_are_not():
    """Each is what it is by itself, whoever was looked at before; the letters of a name may be escaped."""
    owner = [{"kind": "ReplicaSet", "name": "web-7d9f", "controller": True}]
    alone = [{"kind": "Strange", "name": "x", "controller": True}]
    labels = {"pod-template-hash": "7d9f"}
    said = {"resource.opentelemetry.io/service.name": "checkout"}
    pods = [
        *(peer(name, ownerReferences=owner, labels=labels) for name in ("web-7d9f-a", "web-7d9f-b")),
        peer("c", ownerReferences=owner),
        peer("d", ownerReferences=owner, labels=labels, namespace="other"),
        peer("e", ownerReferences=owner, labels=labels, annotations={"cni.example.org/ip": "10.0.0.1"}),
        peer("f", ownerReferences=owner, labels=labels, annotations=said),
        *(peer(name, ownerReferences=alone) for name in ("g", "h")),
        *(peer(name) for name in ("i", "j")),
        *(peer(name, ownerReferences=[{"kind": "Job", "name": "run-28000000"}], creationTimestamp=made)
          for name, made in (("k", "2023-03-28T18:40:00Z"), ("l", "2026-11-20T00:00:00Z"))),
    ]  # fmt: skip
    escaped = json.dumps({"name": "m", "uid": "u", "annotations": said}).replace("resource.", "\\u0072esource.")
    pods.append(objects.decoder(objects.RawMetadata).decode(escaped))
    together = alike.Alike()
    for pod in [*pods, *pods]:
        workload, service, namespace = identity.peer_of(pod.read())
        assert together.who(pod) == (*workload, service, namespace)
    assert [together.who(pod).service_name for pod in (pods[5], pods[-1])] == ["checkout", "checkout"]


def test_what_is_remembered_of_workloads_has_a_bound():
    together = alike.Alike()
    for number in range(2 * alike.WORKLOADS + 3):
        owner = [{"kind": "DaemonSet", "name": f"d{number}", "controller": True}]
        together.who(peer(ownerReferences=owner))
        together.who(peer(ownerReferences=owner, labels={"long": "x" * alike.WORDS_BYTES}))
    assert 0 < len(together._known) <= alike.WORKLOADS
    assert max(sum(map(len, said)) for said in together._known) <= alike.WORDS_BYTES
