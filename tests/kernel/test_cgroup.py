"""Real cgroups: the kernel tells id and path while they are made and removed, and a container is named by them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from otelbpf.batch import Batch
from otelbpf.config import Config
from otelbpf.enrich import Enrichment
from otelbpf.kernel.attach import attach
from otelbpf.kernel.clock import boottime_offset_ns
from otelbpf.kernel.features import cgroup2_mount, cgroup_v1_memory_mount
from otelbpf.probes import cgroup, process
from otelbpf.signals import names
from tests.kernel.feed import Feed

if TYPE_CHECKING:
    from collections.abc import Iterator

MKDIR, RMDIR, RENAME = 1, 2, 3
ASK = """
import os, sys
from otelbpf.enrich.machine import Machine
machine = Machine()
machine.cgroup_walk()
for pid, cgroup_id in zip(sys.argv[1::2], sys.argv[2::2]):
    print(open(f"/proc/{pid}/cgroup").read().strip().partition("::")[2], machine.cgroup_path(int(cgroup_id), int(pid)))
"""
CGROUP_V1 = 1 << 63
PODS = {
    "cgroupfs": ("kubepods/burstable/pod{uid}", "{id}"),
    "systemd": (
        "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid_}.slice",
        "cri-containerd-{id}.scope",
    ),
}


@pytest.fixture(scope="module")
def feed() -> Iterator[Feed]:
    with attach(cgroup.PROBE, Config()) as attached:
        yield Feed(attached)


@pytest.fixture
def mount() -> Path:
    found = cgroup2_mount()
    if found is None:
        pytest.skip("no cgroup2 mount")
    return found


def told(feed: Feed, cgroup_id: int, count: int) -> list[tuple[int, str]]:
    rows = feed.where(lambda rows: rows["cgroup_id"] == cgroup_id, count)
    now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert all(0 < time_ns <= now_ns for time_ns in rows["time_ns"].tolist())
    return [(row["kind"].item(), row["path"].item().decode()) for row in rows]


def test_made_and_removed_at_once(feed, mount):
    directory = mount / f"short-{uuid.uuid4().hex}"
    directory.mkdir()
    cgroup_id = directory.stat().st_ino
    directory.rmdir()
    path = f"/{directory.name}"
    assert told(feed, cgroup_id, 2) == [(MKDIR, path), (RMDIR, path)]


def test_a_long_path_is_whole(feed, mount):
    top = mount / f"long-{uuid.uuid4().hex}"
    deep = top.joinpath(*["d" * 200] * 2)
    deep.mkdir(parents=True)
    cgroup_id = deep.stat().st_ino
    for directory in (deep, deep.parent, top):
        directory.rmdir()
    assert told(feed, cgroup_id, 2)[0] == (MKDIR, f"/{deep.relative_to(mount)}")


def test_v1_memory_is_marked_and_renamed(feed):
    memory = cgroup_v1_memory_mount()
    if memory is None:
        pytest.skip("no v1 memory hierarchy")
    directory, renamed = memory / f"one-{uuid.uuid4().hex}", memory / f"two-{uuid.uuid4().hex}"
    directory.mkdir()
    cgroup_id = directory.stat().st_ino | CGROUP_V1
    directory.rename(renamed)
    renamed.rmdir()
    wanted = [(MKDIR, directory.name), (RENAME, renamed.name), (RMDIR, renamed.name)]
    assert told(feed, cgroup_id, 3) == [(kind, f"/{name}") for kind, name in wanted]


def test_other_v1_hierarchies_are_not_told(feed, mount):
    pids = next((path for path in (mount.parent / "pids", mount.parent / "freezer") if path.is_dir()), None)
    if pids is None:
        pytest.skip("no other v1 hierarchy")
    directory, last = pids / f"other-{uuid.uuid4().hex}", mount / f"last-{uuid.uuid4().hex}"
    for each in (directory, last):
        each.mkdir()
    cgroup_id = last.stat().st_ino
    for each in (directory, last):
        each.rmdir()
    told(feed, cgroup_id, 2)
    assert not any(directory.name.encode() in path for path in feed.rows()["path"].tolist())


@pytest.mark.parametrize("form", PODS)
def test_a_container_that_is_gone_at_once_has_its_name_and_owner(feed, mount, form):
    """mkdir, exec, exit and rmdir all happen before anything is read."""
    uid, container_id = str(uuid.uuid4()), uuid.uuid4().hex * 2
    pod, leaf = (part.format(uid=uid, uid_=uid.replace("-", "_"), id=container_id) for part in PODS[form])
    container = mount / pod / leaf
    with attach(process.PROBE, Config()) as attached, Enrichment(Config()) as enrichment:
        enrichment.learn([])
        processes = Feed(attached)
        container.mkdir(parents=True)
        child = subprocess.Popen(
            ["/bin/sh", "-c", "/bin/true; exit 3"],
            preexec_fn=lambda: (container / "cgroup.procs").write_text(str(os.getpid())),  # noqa: PLW1509 - one thread
        )
        child.wait()
        remove(container, mount)
        cgroup_id = told_last(feed, leaf)
        rows = processes.where(lambda rows: rows["head"]["cgroup_id"] == cgroup_id, 4)
        prepared = process.Prepare()(Batch("process", rows, boottime_offset_ns()))
        enrichment.learn([Batch("cgroup", feed.rows(), 0), prepared])
        enriched = enrichment.enrich(prepared)
    resources, processes_of = enriched.things("resource"), enriched.things("process")
    assert set(resources.codes.tolist()) == {0}
    facts = dict(resources.values[0])
    assert {key: facts[key] for key in facts if key.startswith(("service", "container", "k8s"))} == {
        names.SERVICE_NAME: Path("/bin/sh").resolve().name,
        names.SERVICE_INSTANCE_ID: container_id,
        names.CONTAINER_ID: container_id,
        names.K8S_POD_UID: uid,
        **({names.CONTAINER_RUNTIME_NAME: "containerd"} if form == "systemd" else {}),
    }
    paths = [processes_of.values[code][names.PROCESS_EXECUTABLE_PATH] for code in processes_of.codes.tolist()]
    shell, true = str(Path("/bin/sh").resolve()), str(Path("/bin/true").resolve())
    assert paths == [shell, true, true, shell]


def remove(container: Path, mount: Path) -> None:
    """The container's cgroup, and those above it that nobody else is in."""
    deadline = time.monotonic() + 5
    directory = container
    while directory != mount:
        try:
            directory.rmdir()
            directory = directory.parent
        except OSError:
            if directory != container or time.monotonic() > deadline:  # another test's pods; or it never got empty
                return
            time.sleep(0.001)


def told_last(feed: Feed, leaf: str) -> int:
    """The id of the cgroup whose path ends in *leaf*, when it has been told that it is gone."""

    def ends(rows):
        return [
            kind == RMDIR and path.endswith(leaf.encode())
            for kind, path in zip(rows["kind"], rows["path"], strict=True)
        ]

    return feed.where(lambda rows: np.array(ends(rows), dtype=bool), 1)["cgroup_id"][0].item()


def test_paths_are_from_the_top_also_for_an_agent_with_a_cgroup_namespace_of_its_own():
    mount = cgroup2_mount()
    assert mount is not None
    top = mount / f"otelbpf-{uuid.uuid4().hex[:12]}"
    agent, pod, inner = top / "system/agent", top / "pods/pod1/container", top / "system/agent/inner"
    for one in (agent, pod, inner):
        one.mkdir(parents=True)
    try:
        with _in_cgroup(pod, "sleep", "60") as there, _in_cgroup(inner, "sleep", "60") as within:
            asked = [
                str(word) for one, path in ((there, pod), (within, inner)) for word in (one.pid, path.stat().st_ino)
            ]
            with _in_cgroup(agent, "unshare", "--cgroup", sys.executable, "-c", ASK, *asked) as asking:
                assert asking.stdout is not None
                said = asking.stdout.read().decode().split("\n")
            within.kill()
            there.kill()
    finally:
        for one in (inner, agent, agent.parent, pod, pod.parent, pod.parent.parent, top):
            one.rmdir()
    assert said[0] == f"/../../pods/pod1/container /{pod.relative_to(mount)}"
    assert said[1] == f"/inner /{inner.relative_to(mount)}"


def _in_cgroup(path: Path, *command: str) -> subprocess.Popen[bytes]:
    """A process that is in the cgroup from its first moment on."""
    move = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(path / "cgroup.procs"), *command]
    return subprocess.Popen(move, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
