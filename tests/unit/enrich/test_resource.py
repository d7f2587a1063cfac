"""Rows → the resource of what is observed."""

from __future__ import annotations

import pytest

from otelbpf import __version__
from otelbpf.batch import Batch
from otelbpf.config import Config
from otelbpf.config.settings import Resource
from otelbpf.enrich import Enrichment
from otelbpf.enrich.image import image_facts
from otelbpf.enrich.machine import RecordedMachine
from tests.unit.enrich.rows import CGROUP, PROCESS, SECOND, rows, tcp, values

ID = "0123456789abcdef" * 4
COMMON = {
    "host.name": "node-1",
    "host.id": "abc",
    "telemetry.distro.name": "otelbpf",
    "telemetry.distro.version": __version__,
}
DOCKER, UNIT, SESSION, POD = 11, 12, 13, 14
POD_UID = "11111111-2222-3333-4444-555555555555"
ANSWERS = {
    "host_name": {"": "node-1"},
    "host_id": {"": "abc"},
    "cgroup_walk": {
        "": [
            [DOCKER, f"/system.slice/docker-{ID}.scope"],
            [UNIT, "/system.slice/nginx.service"],
            [SESSION, "/user.slice/user-0.slice/session-1.scope"],
            [POD, f"/kubepods/burstable/pod{POD_UID}/{ID}"],
        ]
    },
    "executable_path": {"7 1": "/usr/sbin/nginx", "8 1": "/usr/bin/curl", "9 1": "/usr/bin/runc"},
}
CONTAINER = {
    "service.instance.id": ID,
    "container.id": ID,
    "container.runtime.name": "docker",
}


def resources(*connections, answers=ANSWERS, config=None, before=()):
    with Enrichment(config or Config(), RecordedMachine(answers)) as enrichment:
        enrichment.learn(list(before))
        batch = enrichment.enrich(tcp(*[{"pid": 1, **connection} for connection in connections]))
    return [
        {key: value for key, value in facts.items() if COMMON.get(key) != value} for facts in values(batch, "resource")
    ]


def execution(**value):
    return Batch("process", rows(PROCESS, {"kind": 1, "pid": 1, **value}), 0)


def test_what_all_have():
    with Enrichment(Config(), RecordedMachine(ANSWERS)) as enrichment:
        enrichment.learn([])
        (facts,) = values(enrichment.enrich(tcp({"comm": b"x"})), "resource")
    assert facts == {**COMMON, "service.name": "x", "service.instance.id": "abc/x"}


def test_a_machine_that_does_not_know_its_id():
    answers = {"host_name": {"": "node-1"}}
    assert resources({"comm": b"x"}, answers=answers) == [{"service.name": "x", "service.instance.id": "node-1/x"}]


def test_attributes_of_the_user_are_added_and_what_is_observed_stands():
    config = Config(resource=Resource(attributes={"deployment.environment.name": "test", "service.name": "all"}))
    assert resources({"comm": b"x"}, config=config) == [
        {"deployment.environment.name": "test", "service.name": "x", "service.instance.id": "abc/x"}
    ]


def test_container_unit_and_executable():
    found = resources(
        {"cgroup_id": DOCKER, "executable": 7},
        {"cgroup_id": UNIT, "executable": 8},
        {"cgroup_id": SESSION, "executable": 8},
        {"cgroup_id": 99, "executable": 8},
        {"cgroup_id": UNIT, "executable": 7},
    )
    unit = {"service.name": "nginx", "service.instance.id": "abc/nginx.service", "systemd.unit.name": "nginx.service"}
    executable = {"service.name": "curl", "service.instance.id": "abc/curl"}
    assert found == [{"service.name": "nginx", **CONTAINER}, unit, executable, executable, unit]


def test_rows_of_one_owner_share_one_object():
    with Enrichment(Config(), RecordedMachine(ANSWERS)) as enrichment:
        enrichment.learn([])
        one = enrichment.enrich(tcp({"cgroup_id": UNIT, "executable": 7, "pid": 1})).things("resource").values
        two = enrichment.enrich(tcp({"cgroup_id": UNIT, "executable": 8, "pid": 1})).things("resource").values
    assert len(one) == len(two) == 1
    assert one[0] is two[0]


def test_a_container_of_a_pod_has_the_pod_s_uid():
    (found,) = resources({"cgroup_id": POD, "executable": 7})
    assert found == {"service.name": "nginx", "service.instance.id": ID, "container.id": ID, "k8s.pod.uid": POD_UID}


def test_the_name_that_the_runtime_gave_a_container():
    answers = {**ANSWERS, "container_named": {ID: ["web", "registry:5000/team/nginx:1.25"]}}
    assert resources({"cgroup_id": DOCKER, "executable": 8}, answers=answers) == [
        {
            "service.name": "web",
            "container.image.name": "registry:5000/team/nginx",
            "container.image.tags": ["1.25"],
            **CONTAINER,
        }
    ]


def test_a_container_without_a_name_goes_by_its_first_program():
    runtime = execution(cgroup_id=DOCKER, executable=9, filename=b"/usr/bin/runc")
    first = execution(cgroup_id=DOCKER, executable=7, filename=b"/usr/sbin/nginx")
    then = execution(cgroup_id=DOCKER, executable=8, filename=b"/usr/bin/curl")
    found = resources({"cgroup_id": DOCKER, "executable": 8}, before=[runtime, first, then])
    assert found == [{"service.name": "nginx", **CONTAINER}]


def test_an_older_container_goes_by_its_oldest_process():
    answers = {**ANSWERS, "first_executable": {f"{DOCKER} 1": "/usr/sbin/nginx"}}
    found = resources({"cgroup_id": DOCKER, "executable": 8}, answers=answers)
    assert found == [{"service.name": "nginx", **CONTAINER}]


def test_a_runtime_in_the_cgroup_of_a_container_is_not_the_container():
    found = resources({"cgroup_id": DOCKER, "executable": 9}, {"cgroup_id": DOCKER, "executable": 7})
    runtime = {"service.name": "runc", "service.instance.id": "abc/runc"}
    assert found == [runtime, {"service.name": "nginx", **CONTAINER}]


def test_workers_of_the_kernel_are_one():
    found = resources({"comm": b"kworker/0:1"}, {"comm": b"kworker/u8:3-x"})
    assert found == [{"service.name": "kworker", "service.instance.id": "abc/kworker"}] * 2


def test_a_process_without_any_name():
    assert resources({}) == [{}]


def test_a_container_is_known_in_the_tick_that_made_it():
    made = Batch("cgroup", rows(CGROUP, {"kind": 1, "cgroup_id": 50, "path": f"/docker/{ID}".encode()}), 0)
    first = execution(cgroup_id=50, executable=7, filename=b"/usr/sbin/nginx")
    assert resources({"cgroup_id": 50, "executable": 7}, before=[first, made]) == [
        {"service.name": "nginx", **CONTAINER}
    ]


def test_resources_age():
    with Enrichment(Config(), RecordedMachine(ANSWERS)) as enrichment:
        enrichment.learn([])
        for at in (1000, 1400, 1700, 3000):
            enrichment.enrich(tcp({"comm": b"often", "time_ns": at * SECOND}))
            if at == 1000:
                enrichment.enrich(tcp({"comm": b"once", "time_ns": at * SECOND}))
            known = {owner.name for owner in enrichment._resources._known}
    assert known == {"often"}


@pytest.mark.parametrize(
    ("reference", "name", "tags"),
    [
        ("nginx", "nginx", None),
        ("nginx:1.25", "nginx", ["1.25"]),
        ("registry:5000/nginx", "registry:5000/nginx", None),
        ("registry:5000/nginx:1.25@sha256:00ff", "registry:5000/nginx", ["1.25"]),
    ],
)
def test_images(reference, name, tags):
    wanted = {"container.image.name": name, **({"container.image.tags": tags} if tags else {})}
    assert image_facts(reference) == wanted


@pytest.mark.parametrize("reference", ["", "sha256:00ff", "@sha256:00ff"])
def test_images_that_are_not_named(reference):
    assert image_facts(reference) == {}
