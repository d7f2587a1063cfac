from __future__ import annotations

import time
from pathlib import Path

from otelbpf.kernel import clock, features

HYBRID = r"""31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
42 23 0:13 / /sys/kernel/tracing rw,relatime - tracefs tracefs rw
"""
POD = r"""700 690 0:30 /kubepods/pod1 /sys/fs/cgroup ro,nosuid shared:1 master:2 - cgroup2 cgroup rw
701 690 0:30 / /host/sys/my\040cgroup rw - cgroup2 cgroup rw
702 690 0:44 / / rw
"""


def find(mountinfo: str, kind: str, option: str | None = None) -> Path | None:
    return features.find_mount(kind, option, features.mounts(mountinfo))


def test_a_hybrid_machine_has_both_hierarchies():
    assert find(HYBRID, "cgroup2") == Path("/sys/fs/cgroup/unified")
    assert find(HYBRID, "cgroup", "memory") == Path("/sys/fs/cgroup/memory")
    assert find(HYBRID, "tracefs") == Path("/sys/kernel/tracing")


def test_the_mount_of_the_whole_hierarchy_wins_over_that_of_a_part():
    assert find(POD, "cgroup2") == Path("/host/sys/my cgroup")


def test_what_is_not_mounted_is_none():
    assert find(POD, "tracefs") is None
    assert find(POD, "cgroup", "memory") is None


def test_a_line_without_a_separator_is_passed_over():
    assert len(features.mounts(POD)) == 2


def test_boot_time_and_the_offset_give_unix_time():
    before = time.time_ns()
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + clock.boottime_offset_ns()
    assert abs(now - before) < 10**9  # a second of room: the clock may be stepped meanwhile, the test is of the sum


def test_a_clock_from_before_the_boot_gives_no_negative_offset(monkeypatch):
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    assert clock.boottime_offset_ns() == 0
