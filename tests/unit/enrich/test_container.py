"""Paths of cgroups as runtimes and systemd make them."""

from __future__ import annotations

import pytest

from otelbpf.batch import Batch
from otelbpf.enrich.container import NOBODY, Cgroups, Container, container_of
from otelbpf.enrich.machine import CGROUP_V1, RecordedMachine
from tests.unit.enrich.rows import CGROUP, rows

ID = "0123456789abcdef" * 4
INNER = "fedcba9876543210" * 4
UID = "8f0a1b2c-3d4e-5f60-7182-93a4b5c6d7e8"
UID_ = UID.replace("-", "_")
STATIC = "0123456789abcdef0123456789abcdef"
POD_SLICE = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice"

CASES = {
    # containerd
    f"{POD_SLICE}/cri-containerd-{ID}.scope": Container(ID, "containerd", UID),
    f"/kubepods.slice/kubepods-pod{UID_}.slice/cri-containerd-{ID}.scope": Container(ID, "containerd", UID),
    f"/kubepods/burstable/pod{UID}/{ID}": Container(ID, "", UID),
    f"/kubepods/besteffort/pod{STATIC}/{ID}": Container(ID, "", STATIC),
    f"/system.slice/containerd.service/kubepods-burstable-pod{UID_}.slice:cri-containerd:{ID}": Container(
        ID, "containerd", UID
    ),
    f"/system.slice/nerdctl-{ID}.scope": Container(ID, "containerd"),
    # CRI-O
    f"{POD_SLICE}/crio-{ID}.scope": Container(ID, "cri-o", UID),
    f"{POD_SLICE}/crio-{ID}.scope/container": Container(ID, "cri-o", UID),
    f"/kubepods/burstable/pod{UID}/crio-{ID}": Container(ID, "cri-o", UID),
    f"{POD_SLICE}/crio-conmon-{ID}.scope": Container(pod_uid=UID),
    # Docker
    f"/system.slice/docker-{ID}.scope": Container(ID, "docker"),
    f"/docker/{ID}": Container(ID, "docker"),
    f"/docker/{ID}/init.scope": Container(ID, "docker"),
    f"/docker/{ID}/system.slice/nginx.service": Container(ID, "docker"),
    f"/user.slice/user-1000.slice/user@1000.service/app.slice/docker-{ID}.scope": Container(ID, "docker"),
    f"/actions_job/{ID}": Container(ID),
    # Podman
    f"/machine.slice/libpod-{ID}.scope": Container(ID, "podman"),
    f"/machine.slice/libpod-{ID}.scope/container": Container(ID, "podman"),
    f"/machine.slice/machine-libpod_pod_{INNER}.slice/libpod-{ID}.scope": Container(ID, "podman"),
    f"/libpod_parent/libpod-{ID}": Container(ID, "podman"),
    f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container": Container(ID, "podman"),
    f"/system.slice/web.service/libpod-payload-{ID}": Container(ID, "podman"),
    f"/machine.slice/libpod-conmon-{ID}.scope": NOBODY,
    # a container in a container: a node of kind
    f"/docker/{ID}/kubepods/burstable/pod{UID}/{INNER}": Container(INNER, "", UID),
    f"/system.slice/docker-{ID}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{UID_}.slice/"
    f"cri-containerd-{INNER}.scope": Container(INNER, "containerd", UID),
    # a pod, but in none of its containers
    f"/kubepods/burstable/pod{UID}": Container(pod_uid=UID),
    # systemd
    "/system.slice/nginx.service": Container(unit="nginx.service"),
    "/system.slice/system-getty.slice/getty@tty1.service": Container(unit="getty@tty1.service"),
    "/system.slice/nginx.service/worker": Container(unit="nginx.service"),
    "/user.slice/user-1000.slice/user@1000.service/app.slice/syncthing.service": Container(unit="syncthing.service"),
    "/user.slice/user-1000.slice/user@1000.service/init.scope": Container(unit="init.scope"),
    "/init.scope": Container(unit="init.scope"),
    "/user.slice/user-1000.slice/session-3.scope": NOBODY,
    "/system.slice/run-r0a1b2c3d.scope": NOBODY,
    "/system.slice/run-u12.service": NOBODY,
    "/system.slice/run-docker.service": Container(unit="run-docker.service"),
    "/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-firefox-4711.scope": NOBODY,
    "/system.slice/system-sshd.slice/sshd@3-10.0.0.1:22-10.0.0.2:51234.service": Container(unit="sshd@.service"),
    # neither
    "/": NOBODY,
    "": NOBODY,
    "/system.slice": NOBODY,
    "/process_api/dfd5dadd6163c2505fbcd3dc33038f27": NOBODY,
    f"/mine-pod{UID}/x": NOBODY,
    f"/a/{ID}0": NOBODY,
    f"/a/{ID.upper()}": NOBODY,
}


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.replace(ID, "ID").replace(INNER, "INNER") or "empty")
def test_whose_cgroup_it_is(path):
    assert container_of(path) == CASES[path]


def told(*values: tuple[int, int, str]) -> Batch:
    return Batch(
        "cgroup", rows(CGROUP, *[{"kind": kind, "cgroup_id": of, "path": path} for kind, of, path in values]), 0
    )


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


MKDIR, RMDIR, RENAME = 1, 2, 3


def test_a_removed_cgroup_is_known_for_minutes():
    clock = Clock()
    cgroups = Cgroups(RecordedMachine({}), clock)
    cgroups.learn(told((MKDIR, 7, f"/docker/{ID}"), (RMDIR, 7, f"/docker/{ID}")))
    assert cgroups.of(7, 1) == Container(ID, "docker")
    clock.now = 290
    assert cgroups.of(7, 1) == Container(ID, "docker")
    clock.now = 310
    assert cgroups.of(7, 1) == NOBODY


def test_a_cgroup_that_is_there_at_the_start():
    cgroups = Cgroups(RecordedMachine({"cgroup_walk": {"": [[7, f"/docker/{ID}"], [7 | CGROUP_V1, "/a.service"]]}}))
    cgroups.walk()
    assert cgroups.of(7, 1) == Container(ID, "docker")
    assert cgroups.of(7 | CGROUP_V1, 1) == Container(unit="a.service")


def test_a_renamed_cgroup():
    cgroups = Cgroups(RecordedMachine({}))
    cgroups.learn(told((MKDIR, 7, "/a.service"), (RENAME, 7, "/b.service")))
    assert cgroups.of(7, 1) == Container(unit="b.service")


def test_the_last_way_is_asked_once_in_a_while():
    clock, asked = Clock(), []

    class Machine(RecordedMachine):
        def cgroup_path(self, cgroup_id, pid):
            asked.append(pid)
            return "/late.service" if pid == 3 else None

    cgroups = Cgroups(Machine({}), clock)
    assert [cgroups.of(7, 1), cgroups.of(7, 2)] == [NOBODY, NOBODY]
    assert asked == [1]
    clock.now = 11
    assert [cgroups.of(7, 3), cgroups.of(7, 4)] == [Container(unit="late.service")] * 2
    assert asked == [1, 3]


def test_news_of_a_cgroup_end_the_wait():
    cgroups = Cgroups(RecordedMachine({}))
    assert cgroups.of(7, 1) == NOBODY
    cgroups.learn(told((MKDIR, 7, "/a.service")))
    assert cgroups.of(7, 1) == Container(unit="a.service")
