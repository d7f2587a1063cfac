"""Whole resources of every kind of pod, container and cgroup, as a real collector received them."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from otelbpf.kernel import features
from otelbpf.signals import names
from tests.e2e.polling import wait_for
from tests.kubernetes import pods
from tests.kubernetes.cluster import owned
from tests.kubernetes.node import NodeAgent, NodeNetwork
from tests.kubernetes.pods import Container
from tests.kubernetes.processor import Processor
from tests.kubernetes.test_names import answered, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.collector import Collector
    from tests.e2e.otlp_json import Attributes, Point, Record
    from tests.kubernetes.cluster import Objects
    from tests.peers.api_server import ApiServer

NODE = "names-node"
NAMESPACE = "names"
PORT = 8080
ABOUT_HOST = {"host.name", "host.id", "telemetry.distro.name", "telemetry.distro.version"}
SAID = "resource.opentelemetry.io/"
STATIC_UID = "0123456789abcdef0123456789abcdef"
MIRROR = {
    "annotations": {
        "kubernetes.io/config.hash": STATIC_UID,
        "kubernetes.io/config.mirror": STATIC_UID,
        "kubernetes.io/config.source": "file",
    },
    "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": NODE, "uid": "0", "controller": True}],
}
MINUTE = int(time.time()) // 60
"""The job of a CronJob is named after the one for which it was due."""
OURS_ALONE = ABOUT_HOST | {"k8s.cluster.name", "container.runtime.name", "k8s.container.restart_count"}
OLDER_TAG = "container.image.tag"
GUESSED = {OLDER_TAG, "k8s.container.name", "container.image.name", "service.version", "service.instance.id"}
USUAL_IMAGE = {"container.image.name": "shop/app", "container.image.tags": ["1.2"], "service.version": "1.2"}


DOWNWARD = {
    "POD_NAME": "otelbpf-x7y8z", "POD_NAMESPACE": "otelbpf", "POD_UID": "6f1c2d3e-0000-4000-8000-000000000001",
}  # fmt: skip
"""Of the agent's own pod."""


@dataclass
class Case:
    """One pod, one connection from it, and what its resource has besides what all of them have."""

    name: str
    """Of the pod."""
    adds: dict[str, Any]
    metadata: dict[str, Any] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
    container: str = "app"
    """Empty: nothing that the pod's status tells of."""
    statuses: str = "containerStatuses"
    form: str = pods.CONTAINERD_SYSTEMD
    runtime: str = "containerd"
    v1: bool = False
    """In the memory hierarchy of cgroups v1."""
    beyond: tuple[str, ...] = ()
    """What the collector's own processor does not say of it."""
    image: dict[str, Any] = field(default_factory=lambda: dict(USUAL_IMAGE))

    def expected(self, uid: str, container_id: str) -> dict[str, Any]:
        """The resource, without what is said of the host."""
        of_container = {"k8s.container.name": self.container, "k8s.container.restart_count": 0, **self.image}
        of_run = {"container.id": container_id} if "{id}" in self.form else {}
        parts = (NAMESPACE, self.name, self.container)
        return {
            "k8s.cluster.name": "test",
            "k8s.node.name": NODE,
            "k8s.namespace.name": NAMESPACE,
            "k8s.pod.name": self.name,
            "k8s.pod.uid": uid,
            "service.namespace": NAMESPACE,
            "service.instance.id": ".".join(part for part in parts if part),
            **(of_container if self.container else {}),
            **of_run,
            **({"container.runtime.name": self.runtime} if self.runtime else {}),
            **self.adds,
        }


def named(name: str, **attributes: Any) -> dict[str, Any]:
    return {"service.name": name, **{key.replace("_", "."): value for key, value in attributes.items()}}


def of_replica_set(name: str, template: str) -> dict[str, Any]:
    return owned("ReplicaSet", name, **{"pod-template-hash": template})


def more(**containers: Any) -> dict[str, Any]:
    return {f"{kind}Containers": [{"image": "shop/tool:3", **one}] for kind, one in containers.items()}


TOOL = {"container.image.name": "shop/tool", "container.image.tags": ["3"], "service.version": "3"}
DIGEST = "sha256:" + "ab" * 32
CASES = (
    Case("bare", named("bare")),
    Case(
        "front-7d9f-x2k4p",
        named("front", k8s_deployment_name="front", k8s_replicaset_name="front-7d9f"),
        of_replica_set("front-7d9f", "7d9f"),
    ),
    Case("lone-abcde", named("lone", k8s_replicaset_name="lone"), owned("ReplicaSet", "lone")),
    Case("db-0", named("db", k8s_statefulset_name="db"), owned("StatefulSet", "db"), form=pods.GUARANTEED_SYSTEMD),
    Case("logs-q1w2e", named("logs", k8s_daemonset_name="logs"), owned("DaemonSet", "logs")),
    Case("pack-9x8y7", named("pack", k8s_job_name="pack"), owned("Job", "pack")),
    Case(
        "tidy-1-5c6v7",
        named("tidy", k8s_cronjob_name="tidy", k8s_job_name=f"tidy-{MINUTE}"),
        owned("Job", f"tidy-{MINUTE}"),
    ),
    Case("rollout-a", named("rollout-a"), owned("Rollout", "rollout")),
    Case(
        "labelled",
        named("orders", service_version="2.0"),
        {
            "labels": {
                "app.kubernetes.io/name": "postgres", "app.kubernetes.io/instance": "orders",
                "app.kubernetes.io/version": "2.0",
            }
        },
    ),
    Case(
        "pg-0",
        named("postgres", k8s_statefulset_name="pg"),
        owned("StatefulSet", "pg", **{"app.kubernetes.io/name": "postgres"}),
    ),
    Case(
        "annotated",
        named("said", service_namespace="team", service_version="9", service_instance_id="one")
        | {"deployment.environment.name": "production"},
        {
            "labels": {"app.kubernetes.io/name": "other"},
            "annotations": {
                SAID + "service.name": "said", SAID + "service.namespace": "team", SAID + "service.version": "9",
                SAID + "service.instance.id": "one", SAID + "deployment.environment.name": "production",
            },
        },
    ),
    Case(
        "chosen",
        named("chosen") | {"k8s.pod.label.tier": "front", "k8s.pod.annotation.note/a": "b"},
        {"labels": {"tier": "front", "other": "x"}, "annotations": {"note/a": "b", "else": "y"}},
    ),
    Case(
        "digest",
        named("digest"),
        spec={"containers": [{"name": "app", "image": f"registry:5000/app:2@{DIGEST}"}]},
        image={
            "container.image.name": "registry:5000/app", "container.image.tags": ["2"], "service.version": f"2@{DIGEST}",
        },
    ),
    Case(
        "init", named("init"), spec=more(init={"name": "setup"}), container="setup", image=TOOL,
        statuses="initContainerStatuses",
    ),
    Case(
        "sidecar", named("sidecar"), spec=more(init={"name": "proxy", "restartPolicy": "Always"}), container="proxy",
        image=TOOL, statuses="initContainerStatuses",
    ),
    Case(
        "ephemeral", named("ephemeral"), container="debug", image=TOOL, statuses="ephemeralContainerStatuses",
        beyond=tuple(GUESSED),
    ),
    Case("static-names-node", named("static-names-node"), MIRROR, form=pods.CONTAINERD_CGROUPFS, runtime=""),
    Case("on-host", named("on-host"), spec={"hostNetwork": True}),
    Case("sandbox", named("sandbox"), container="", beyond=("service.instance.id",)),
    Case("loose", named("loose"), container="", form=pods.POD_ONLY, runtime=""),
    Case("crio-systemd", named("crio-systemd"), form=pods.CRIO_SYSTEMD, runtime="cri-o"),
    Case("crio-cgroupfs", named("crio-cgroupfs"), form=pods.CRIO_CGROUPFS, runtime="cri-o"),
    Case("containerd-cgroupfs", named("containerd-cgroupfs"), form=pods.CONTAINERD_CGROUPFS, runtime=""),
    Case("two-drivers", named("two-drivers"), form=pods.COLONS),
    Case("in-kind", named("in-kind"), form=pods.NESTED),
    Case("hybrid", named("hybrid"), form=pods.CONTAINERD_CGROUPFS, runtime="", v1=True),
    Case("hybrid-systemd", named("hybrid-systemd"), form=pods.CRIO_SYSTEMD, runtime="cri-o", v1=True),
)  # fmt: skip


class Found(NamedTuple):
    """The resource of a case's log record and that of its metrics, and what the first should be."""

    of_record: Attributes
    of_metrics: Attributes
    wanted: dict[str, Any]


class Session(NamedTuple):
    """What the collector has: by case, and the resource under which the agent speaks of itself."""

    found: dict[str, Found]
    own: Attributes
    theirs: dict[str, Attributes]
    """What the collector's own processor says, by case."""
    as_sent: list[Record | Point]
    behind: list[Record | Point]
    """The same when that processor has let it pass."""


@pytest.fixture(scope="module")
def session(server: ApiServer, objects: Objects, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """All pods talk once, at the same node."""
    directory = tmp_path_factory.mktemp("workloads")
    objects.namespace(NAMESPACE)
    with ExitStack() as open_:
        network = open_.enter_context(NodeNetwork())
        collector = open_.enter_context(Processor(directory, server.kubeconfig()))
        for port in (collector.ports["grpc"], server.port):
            network.lead(port)
        objects.node(NODE, network.host.ipv4, network.host.ipv6)
        made = {case.name: made_pod(case, objects, network, open_) for case in CASES if possible(case)}
        backend = open_.enter_context(Container(objects.pod(NAMESPACE, "backend", NODE), network.host.namespace))
        chosen = {"labels": ["tier"], "annotations": ["note/*"]}
        told = settings(collector, server, NODE, **chosen)
        agent = open_.enter_context(NodeAgent(directory, told, network, **DOWNWARD))
        wait_for(lambda: "pods" in answered(collector), "the first list")
        backend.serve(network.host.ipv4, PORT)
        for _uid, container in made.values():
            container.talk(network.host.ipv4, PORT)
        uids = {uid for uid, _container in made.values()}
        records = collector.wait_for_records(
            lambda record: (
                record.resource.get("k8s.pod.uid") in uids and record["network.tcp.handshake.role"] == "client"
            ),
            len(made),
        )
        measured = wait_for(lambda: of_metrics(collector, uids), "a metric of each", 20)
        came = {str(record.resource["k8s.pod.name"]): record.resource for record in records}
        found = {}
        for case in filter(possible, CASES):
            uid, container = made[case.name]
            found[case.name] = Found(came[case.name], measured[case.name], case.expected(uid, container.id))
        theirs = asked(collector, found)
        agent.stop()
        as_sent, behind = (everything(collector, way) for way in ("grpc", "http"))
        yield Session(found, collector.own_points()[-1].resource, theirs, as_sent, behind)


def asked(collector: Processor, found: dict[str, Found]) -> dict[str, Attributes]:
    """What the processor says of the same pods and containers, knowing no more than the kernel tells of them."""
    known = {
        name: {key: str(one.wanted[key]) for key in ("k8s.pod.uid", "container.id") if key in one.wanted}
        for name, one in found.items()
    }
    collector.ask(known.values())
    uids = {one["k8s.pod.uid"] for one in known.values()}
    wait_for(lambda: collector.answers().keys() >= uids, "the processor's answers")
    answers = collector.answers()
    return {name: answers[one["k8s.pod.uid"]] for name, one in known.items()}


def everything(collector: Collector, way: Any) -> list[Record | Point]:
    """All that came that way, in an order of its own."""
    observed = [
        *collector.records(way),
        *collector.points(way),
        *collector.own_records(way),
        *collector.own_points(way),
    ]
    return sorted(
        observed, key=lambda one: repr((one.time_ns, sorted(one.attributes.items()), one.resource["service.name"]))
    )


def of_metrics(collector: Collector, uids: set[str]) -> dict[str, Attributes]:
    """The resource of each pod's connections, when all are there."""
    points = [one for one in collector.points() if one.metric == "otelbpf.tcp.connections"]
    resources = {one.resource["k8s.pod.uid"]: one.resource for one in points if "k8s.pod.uid" in one.resource}
    came = {str(resources[uid]["k8s.pod.name"]): resources[uid] for uid in uids if uid in resources}
    return came if len(came) == len(uids) else {}


def possible(case: Case) -> bool:
    return not case.v1 or features.cgroup_v1_memory_mount() is not None


def made_pod(case: Case, objects: Objects, network: NodeNetwork, open_: ExitStack) -> tuple[str, Container]:
    """The pod with its container, as the API server and the kernel have them: its uid, and the container."""
    place = network.host if case.spec.get("hostNetwork") else network.pod()
    uid = objects.pod(NAMESPACE, case.name, NODE, metadata=case.metadata, **case.spec)
    if case.statuses == "ephemeralContainerStatuses":
        objects.ephemeral(NAMESPACE, case.name, {"name": case.container, "image": "shop/tool:3"})
    in_cgroup = STATIC_UID if case.metadata is MIRROR else uid
    mount = features.cgroup_v1_memory_mount() if case.v1 else None
    container = open_.enter_context(Container(in_cgroup, place.namespace, case.form, mount))
    runs = {case.container or "app": container.id if case.container else ""}
    objects.running(NAMESPACE, case.name, place.ipv4, runs, kind=case.statuses)
    return uid, container


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_resource_is_whole_and_right(session, case):
    if not possible(case):
        pytest.skip("no memory hierarchy of cgroups v1 here")
    came = session.found[case.name]
    assert {name: value for name, value in came.of_record.items() if name not in ABOUT_HOST} == came.wanted
    assert set(came.of_record) >= ABOUT_HOST - {"host.id"}
    of_runs = {str(name) for name in names.RUN_ONLY}
    assert came.of_metrics == {name: value for name, value in came.of_record.items() if name not in of_runs}


def test_the_agent_says_which_pod_it_is(session):
    wanted = {
        "k8s.cluster.name": "test",
        "k8s.node.name": NODE,
        "k8s.namespace.name": "otelbpf",
        "k8s.pod.name": "otelbpf-x7y8z",
        "k8s.pod.uid": DOWNWARD["POD_UID"],
        "service.instance.id": DOWNWARD["POD_UID"],
        "service.name": "otelbpf",
    }
    assert {name: session.own.get(name) for name in wanted} == wanted


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_collectors_own_processor_says_the_same(session, case):
    """But where nothing says which container it is: then it takes the pod's only one, which may be the wrong one."""
    if not possible(case):
        pytest.skip("no memory hierarchy of cgroups v1 here")
    ours, theirs = dict(session.found[case.name].of_record), session.theirs[case.name]
    ours[OLDER_TAG] = next(iter(ours.pop("container.image.tags", ())), None)
    guessed = GUESSED if case.form == pods.POD_ONLY else set()
    assert {name: ours.get(name) for name in theirs if name not in guessed} == {
        name: value for name, value in theirs.items() if name not in guessed
    }
    assert {name for name in ours if ours[name] is not None} - set(theirs) - OURS_ALONE == set(case.beyond)


def test_the_processor_as_documented_changes_nothing_of_ours(session):
    """It adds what we leave out: when the pod began, the older form of its image's tags; and of what is in a pod but in
    no container the image of the pod's only one, which it cannot be kept from."""
    assert len(session.as_sent) == len(session.behind) > 0
    for sent, passed in zip(session.as_sent, session.behind, strict=True):
        added = {name: value for name, value in passed.resource.items() if name not in sent.resource}
        assert {**sent.resource, **added} == passed.resource
        guessed = set() if "container.image.name" in sent.resource else {"container.image.name"}
        assert set(added) <= {"k8s.pod.start_time", OLDER_TAG} | guessed
        assert guessed or [added.get(OLDER_TAG)] in ([None], sent.resource.get("container.image.tags"))
        assert sent.attributes == passed.attributes
