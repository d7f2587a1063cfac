"""Limits of memory and CPU time as cgroups say them, in both versions, from trees such as real machines have."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from otelbpf.guards.cgroup import cpu_quota, memory_bounds
from otelbpf.kernel.features import Mount

if TYPE_CHECKING:
    from pathlib import Path

V2_STAT = "anon 700\nfile 200\ninactive_file 150\nactive_file 50"
V1_STAT = "cache 0\ninactive_file 1\nactive_file 1\ntotal_inactive_file 150\ntotal_active_file 50"
UNLIMITED = "9223372036854771712"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The root of a hierarchy; we are in /pods/agent."""
    own = tmp_path / "pods" / "agent"
    own.mkdir(parents=True)
    for directory in (tmp_path, tmp_path / "pods", own):
        (directory / "cgroup.procs").write_text(f"{os.getpid()}\n" if directory == own else "1\n")
    return tmp_path


def write(directory: Path, **files: str) -> None:
    for name, text in files.items():
        (directory / name.replace("__", ".")).write_text(f"{text}\n")


def bounds(tree: Path, mount: Mount, cgroup: str) -> list[tuple[str, int, int]]:
    """(directory below the mount, limit, used) of each bound."""
    said = tree / "self-cgroup"
    said.write_text(f"{cgroup}\n")
    found = memory_bounds([mount], said)
    return [(str(one.directory.relative_to(tree)), one.limit_bytes, one.used_bytes()) for one in found]


def v2(tree: Path, root: str = "/") -> Mount:
    return Mount(root, tree, "cgroup2", frozenset({"rw"}))


def v1(tree: Path, controller: str, root: str = "/") -> Mount:
    return Mount(root, tree, "cgroup", frozenset({"rw", controller}))


def test_v2_limits_count_at_every_level_and_without_pages_of_files(tree: Path) -> None:
    write(tree / "pods", memory__max="5000", memory__current="3000", memory__stat=V2_STAT)
    write(tree / "pods" / "agent", memory__max="1000", memory__current="900", memory__stat=V2_STAT)
    assert bounds(tree, v2(tree), "0::/pods/agent") == [("pods/agent", 1000, 700), ("pods", 5000, 2800)]


def test_v2_max_is_no_limit(tree: Path) -> None:
    write(tree / "pods" / "agent", memory__max="max", memory__current="900", memory__stat=V2_STAT)
    assert bounds(tree, v2(tree), "0::/pods/agent") == []


def test_v1_counts_what_is_below_and_knows_its_word_for_unlimited(tree: Path) -> None:
    write(tree, memory__limit_in_bytes=UNLIMITED)
    write(tree / "pods" / "agent", memory__limit_in_bytes="1000", memory__usage_in_bytes="900", memory__stat=V1_STAT)
    assert bounds(tree, v1(tree, "memory"), "4:memory:/pods/agent\n0::/") == [("pods/agent", 1000, 700)]


@pytest.mark.parametrize(
    ("root", "cgroup"),
    [
        pytest.param("/../..", "/", id="the host's tree in a cgroup namespace"),
        pytest.param("/kubepods/pod1", "/kubepods/pod1/pods/agent", id="a part of the tree, by its own path"),
        pytest.param("/", "/elsewhere", id="a path that is not there"),
    ],
)
def test_in_a_container_we_are_found(tree: Path, root: str, cgroup: str) -> None:
    write(tree / "pods" / "agent", memory__max="1000", memory__current="900", memory__stat=V2_STAT)
    assert bounds(tree, v2(tree, root), f"0::{cgroup}") == [("pods/agent", 1000, 700)]


def test_without_a_hierarchy_there_is_no_limit(tree: Path) -> None:
    assert bounds(tree, v1(tree, "cpu"), "4:memory:/pods/agent") == []
    assert memory_bounds([], tree / "missing") == []


def test_the_least_quota_counts(tree: Path) -> None:
    said = tree / "self-cgroup"
    said.write_text("0::/pods/agent\n")
    assert cpu_quota([v2(tree)], said) is None
    write(tree / "pods" / "agent", cpu__max="max 100000")
    assert cpu_quota([v2(tree)], said) is None
    write(tree / "pods", cpu__max="50000 100000")
    assert cpu_quota([v2(tree)], said) == 0.5
    write(tree / "pods" / "agent", cpu__max="20000 100000")
    assert cpu_quota([v2(tree)], said) == 0.2


def test_a_quota_of_v1(tree: Path) -> None:
    said = tree / "self-cgroup"
    said.write_text("1:cpu,cpuacct:/pods/agent\n")
    write(tree / "pods" / "agent", cpu__cfs_quota_us="150000", cpu__cfs_period_us="100000")
    write(tree, cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    assert cpu_quota([v1(tree, "cpu")], said) == 1.5
