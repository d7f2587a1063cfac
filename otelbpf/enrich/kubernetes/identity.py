"""A pod's object → what is said of everything in it: names, workload, and service.* by the specification's rules.

The rules are those of OpenTelemetry's "Specify resource attributes using Kubernetes": an annotation
`resource.opentelemetry.io/NAME` gives the attribute NAME whatever else is known; then the well-known labels; then the
owners, from the largest to the smallest.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import Struct

from otelbpf.enrich.image import image_facts, image_version
from otelbpf.signals import names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from otelbpf.config import Kubernetes
    from otelbpf.enrich.kubernetes.objects import ContainerStatus, Metadata, Owner, PodObject

ATTRIBUTE_ANNOTATION = "resource.opentelemetry.io/"
INSTANCE_LABEL, NAME_LABEL = "app.kubernetes.io/instance", "app.kubernetes.io/name"
VERSION_LABEL = "app.kubernetes.io/version"
TEMPLATE_HASH = "pod-template-hash"
ROLLOUT_HASH = "rollouts-pod-template-hash"
"""Of Argo Rollouts, which make ReplicaSets as Deployments do."""
SAID, SAID_LENGTH = 64, 1024
"""Attributes that annotations may give, or that labels are, and the characters of each: whoever may make a pod may
write 256 kB of annotations, and thousands of labels."""
OBSERVED = ("k8s.", "container.", "host.", "telemetry.")
"""What is seen of a pod is not for its annotations to say: it could take itself for another."""
STATIC_UID = "kubernetes.io/config.mirror"
"""On the mirror of a static pod: the UID under which the kubelet runs it, which is the one in its cgroup."""
SCHEDULED_JOB = re.compile(r"(?P<cronjob>.+)-(?P<minute>\d{8})")
"""A CronJob's controller names a job after the minute of the Unix time for which it was due."""
SCHEDULED_WITHIN_S = 7 * 86400
"""A job whose name happens to end like that, but far from when its pod was made, is nobody's."""
CONTAINERS_REMEMBERED = 64
"""Of one pod: a container that crashes in a loop has a new id each time."""


class Workload(NamedTuple):
    """What a pod belongs to: the outermost owner that is known."""

    kind: str
    name: str


class Container(Struct, frozen=True):
    """One run of a container."""

    name: str
    image: str = ""
    restarts: int | None = None


class Pod(Struct, frozen=True):
    """A pod of this node: the attributes of all that runs in it, and its containers by id."""

    uid: str
    cgroup_uid: str
    facts: dict[str, Any]
    said: dict[str, str]
    """What the pod's annotations say in so many words: it counts before anything that is found out."""
    containers: dict[str, Container]


def pod_of(found: PodObject, settings: Kubernetes, before: Pod | None) -> Pod:
    """What is kept of a pod; *before* is what was kept of it so far: its earlier containers still have events."""
    metadata = found.metadata
    labels, annotations = metadata.labels or {}, metadata.annotations or {}
    containers = {**before.containers, **_containers(found)} if before is not None else _containers(found)
    while len(containers) > CONTAINERS_REMEMBERED:
        del containers[next(iter(containers))]
    return Pod(
        uid=metadata.uid,
        cgroup_uid=annotations.get(STATIC_UID) or metadata.uid,
        facts={
            names.K8S_NAMESPACE_NAME: metadata.namespace,
            names.K8S_POD_NAME: metadata.name,
            names.K8S_POD_UID: metadata.uid,
            **({names.K8S_NODE_NAME: found.spec.node_name} if found.spec.node_name else {}),
            **dict(_owners(metadata)),
            **dict(islice(_chosen(names.K8S_POD_LABEL, labels, settings.labels), SAID)),
            **dict(islice(_chosen(names.K8S_POD_ANNOTATION, annotations, settings.annotations), SAID)),
            names.SERVICE_NAME: service_name(metadata),
            names.SERVICE_NAMESPACE: service_namespace(metadata),
            **({names.SERVICE_VERSION: labels[VERSION_LABEL]} if labels.get(VERSION_LABEL) else {}),
        },
        said=dict(islice(_all_said(annotations), SAID)),
        containers=containers,
    )


def container_facts(pod: Pod, container_id: str) -> dict[str, Any]:
    """The attributes of one run of a container in *pod*; of the pod alone when it is not known there (the sandbox)."""
    namespace, name = pod.facts[names.K8S_NAMESPACE_NAME], pod.facts[names.K8S_POD_NAME]
    facts: dict[str, Any] = {names.SERVICE_INSTANCE_ID: f"{namespace}.{name}", **pod.facts}
    container = pod.containers.get(container_id)
    if container is not None:
        facts[names.K8S_CONTAINER_NAME] = container.name
        facts[names.SERVICE_INSTANCE_ID] = f"{namespace}.{name}.{container.name}"
        if container.restarts is not None:
            facts[names.K8S_CONTAINER_RESTART_COUNT] = container.restarts
        facts |= image_facts(container.image)
        version = image_version(container.image)
        if version:
            facts.setdefault(names.SERVICE_VERSION, version)
    return facts | pod.said


def peer_of(metadata: Metadata) -> tuple[Workload, str, str]:
    """What is said of a pod at the other end: its workload, service.name and service.namespace."""
    owners = dict(_owners(metadata))
    return _workload(metadata, owners), _service_name(metadata, owners), service_namespace(metadata)


def _workload(metadata: Metadata, found: Mapping[str, str]) -> Workload:
    owner = _controller(metadata)
    rollout = _of_template(owner, metadata, ROLLOUT_HASH) if owner is not None and owner.kind == "ReplicaSet" else ""
    if rollout:
        return Workload("Rollout", rollout)
    for kind, name in _WORKLOADS.items():
        if name in found:
            return Workload(kind, found[name])
    if owner is not None and owner.kind != "Node":
        return Workload(owner.kind, owner.name)
    return Workload("Pod", metadata.name)


def _of_template(owner: Owner, metadata: Metadata, label: str) -> str:
    """The name of who made the ReplicaSet *owner*: what is before the hash that *label* has; empty if that is not it."""
    template = (metadata.labels or {}).get(label)
    return owner.name.removesuffix(f"-{template}") if template and owner.name.endswith(f"-{template}") else ""


_WORKLOADS = {
    "Deployment": names.K8S_DEPLOYMENT_NAME,
    "StatefulSet": names.K8S_STATEFULSET_NAME,
    "DaemonSet": names.K8S_DAEMONSET_NAME,
    "CronJob": names.K8S_CRONJOB_NAME,
    "Job": names.K8S_JOB_NAME,
    "ReplicaSet": names.K8S_REPLICASET_NAME,
}
_SERVICE_NAMES = (
    names.K8S_DEPLOYMENT_NAME,
    names.K8S_REPLICASET_NAME,
    names.K8S_STATEFULSET_NAME,
    names.K8S_DAEMONSET_NAME,
    names.K8S_CRONJOB_NAME,
    names.K8S_JOB_NAME,
)
"""The specification's order."""


def service_name(metadata: Metadata) -> str:
    """service.name of what runs in a pod."""
    return _service_name(metadata, dict(_owners(metadata)))


def _service_name(metadata: Metadata, owners: Mapping[str, str]) -> str:
    labels = metadata.labels or {}
    return (
        _said(metadata, names.SERVICE_NAME)
        or labels.get(INSTANCE_LABEL)
        or labels.get(NAME_LABEL)
        or next((owners[name] for name in _SERVICE_NAMES if name in owners), metadata.name)
    )


def service_namespace(metadata: Metadata) -> str:
    """service.namespace of what runs in a pod."""
    return _said(metadata, names.SERVICE_NAMESPACE) or metadata.namespace


def _all_said(annotations: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What annotations say in so many words, without what is empty, too long for an attribute, or observed."""
    for key, value in annotations.items():
        name = key.removeprefix(ATTRIBUTE_ANNOTATION)
        if name and name != key and 0 < len(value) <= SAID_LENGTH and not name.startswith(OBSERVED):
            yield name, value


def _said(metadata: Metadata, name: str) -> str:
    value = (metadata.annotations or {}).get(ATTRIBUTE_ANNOTATION + name, "")
    return value if len(value) <= SAID_LENGTH else ""


def _owners(metadata: Metadata) -> Iterator[tuple[str, str]]:
    """Attribute and name of each owner that has an attribute."""
    owner = _controller(metadata)
    if owner is None:
        return
    if owner.kind == "ReplicaSet":
        deployment = _of_template(owner, metadata, TEMPLATE_HASH)
        if deployment:
            yield names.K8S_DEPLOYMENT_NAME, deployment
    elif owner.kind == "Job":
        cronjob = _cronjob(owner.name, metadata)
        if cronjob:
            yield names.K8S_CRONJOB_NAME, cronjob
    if owner.kind in _WORKLOADS:
        yield _WORKLOADS[owner.kind], owner.name


def _cronjob(job: str, metadata: Metadata) -> str:
    match = SCHEDULED_JOB.fullmatch(job)
    if match is None:
        return ""
    made = metadata.creation_timestamp
    due_s = int(match["minute"]) * 60
    return match["cronjob"] if made and abs(made.timestamp() - due_s) < SCHEDULED_WITHIN_S else ""


def _controller(metadata: Metadata) -> Any:
    owners = metadata.owner_references or ()
    return next((owner for owner in owners if owner.controller), owners[0] if len(owners) == 1 else None)


def _chosen(prefix: str, values: Mapping[str, str], wanted: Sequence[str]) -> Iterator[tuple[str, str]]:
    for key, value in values.items() if wanted else ():
        if len(value) <= SAID_LENGTH and any(fnmatchcase(key, glob) for glob in wanted):
            yield f"{prefix}.{key}", value


def _containers(pod: PodObject) -> dict[str, Container]:
    spec, status = pod.spec, pod.status
    found: dict[str, Container] = {}
    for specs, statuses in (
        (spec.containers, status.container_statuses),
        (spec.init_containers, status.init_container_statuses),
        (spec.ephemeral_containers, status.ephemeral_container_statuses),
    ):
        images = {one.name: one.image for one in specs or ()}
        for one in statuses or ():
            found.update(_runs(one, images.get(one.name) or one.image or ""))
    return found


def _runs(status: ContainerStatus, image: str) -> Iterable[tuple[str, Container]]:
    """The run before this one, and this one: the kubelet keeps both."""
    last, now = _ended(status.last_state), _ended(status.state)
    if last and last != _bare(status.container_id):
        yield last, Container(status.name, image, max(0, (status.restart_count or 0) - 1))
    for container_id in {now, _bare(status.container_id)} - {""}:
        yield container_id, Container(status.name, image, status.restart_count)


def _ended(state: Any) -> str:
    return _bare(state.terminated.container_id) if state is not None and state.terminated is not None else ""


def _bare(container_id: str | None) -> str:
    """containerd://4f2a… → 4f2a…"""
    return (container_id or "").rpartition("://")[2]
