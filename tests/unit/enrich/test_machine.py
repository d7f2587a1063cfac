"""What is read from a machine: here from trees in a directory, and from a recording of the answers."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from otelbpf.enrich import interfaces
from otelbpf.enrich import machine as module
from otelbpf.enrich.machine import CGROUP_V1, Machine, RecordedMachine, Recorder
from otelbpf.enrich.runtime import Named
from otelbpf.kernel import netlink

ID = "0123456789abcdef" * 4


@pytest.fixture
def tree(tmp_path):
    for directory in ("proc/sys/kernel", "proc/10", "proc/11", "root/etc", "v2/pod/inner", "memory/docker"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/hostname").write_text("node-1\n")
    (tmp_path / "root/etc/machine-id").write_text("abc\n")
    for name in ("init", "worker"):
        (tmp_path / name).write_text("program")
    for pid, program, start, cgroup in ((10, "worker", 900, "pod"), (11, "init", 800, "pod")):
        (tmp_path / f"proc/{pid}/exe").symlink_to(tmp_path / program)
        (tmp_path / f"proc/{pid}/stat").write_text(f"{pid} (a) b) S {'0 ' * 18}{start} 0\n")
        (tmp_path / f"proc/{pid}/cgroup").write_text(f"5:memory:/docker\n1:name=systemd:/x\n0::/{cgroup}\n")
    (tmp_path / "v2/pod/cgroup.procs").write_text("10\n11\n")
    return tmp_path


@pytest.fixture
def machine(tree):
    return Machine(tree / "proc", tree / "root", tree / "v2", tree / "memory")


def test_who_the_machine_is(machine, tree):
    assert (machine.host_name(), machine.host_id()) == ("node-1", "abc")
    (tree / "root/etc/machine-id").write_text("\n")
    assert machine.host_id() is None
    (tree / "root/sys/class/dmi/id").mkdir(parents=True)
    (tree / "root/sys/class/dmi/id/product_uuid").write_text("uuid\n")
    assert machine.host_id() == "uuid"


def test_the_path_of_an_executable(machine, tree):
    inode = (tree / "worker").stat().st_ino
    other_device = 0x100001 << 40
    assert machine.executable_path(inode ^ other_device, 10) == str(tree / "worker")
    assert machine.executable_path(inode + 1, 10) is None, "it runs something else by now"
    assert machine.executable_path(inode, 12) is None, "it is gone"


def test_a_deleted_executable_keeps_its_path(machine, tree):
    (tree / "worker").rename(tree / "worker (deleted)")
    (tree / "proc/10/exe").unlink()
    (tree / "proc/10/exe").symlink_to(tree / "worker (deleted)")
    inode = (tree / "worker (deleted)").stat().st_ino
    assert machine.executable_path(inode, 10) == str(tree / "worker")


def test_the_walk_over_both_hierarchies(machine, tree):
    def inode(path):
        return (tree / path).stat().st_ino

    assert sorted(machine.cgroup_walk()) == sorted(
        [
            (inode("v2"), "/"),
            (inode("v2/pod"), "/pod"),
            (inode("v2/pod/inner"), "/pod/inner"),
            (inode("memory") | CGROUP_V1, "/"),
            (inode("memory/docker") | CGROUP_V1, "/docker"),
        ]
    )


def test_the_cgroup_of_a_process(machine, tree):
    v2, v1 = (tree / "v2/pod").stat().st_ino, (tree / "memory/docker").stat().st_ino | CGROUP_V1
    assert machine.cgroup_path(v2, 10) == "/pod"
    assert machine.cgroup_path(v1, 10) == "/docker"
    assert machine.cgroup_path(v2 + 1000, 10) is None, "it has moved"
    assert machine.cgroup_path(v2, 12) is None


@pytest.mark.parametrize("content", ["", "0::", "nonsense\n", "0::/not/there\n", "0::/\n"])
def test_a_cgroup_file_that_does_not_help(machine, tree, content):
    (tree / "proc/10/cgroup").write_text(content)
    assert machine.cgroup_path(1, 10) is None


def test_the_oldest_process_of_a_cgroup(machine, tree):
    cgroup_id = (tree / "v2/pod").stat().st_ino
    assert machine.first_executable(cgroup_id, 10) == str(tree / "init")
    (tree / "v2/pod/cgroup.procs").write_text("")
    assert machine.first_executable(cgroup_id, 10) is None
    (tree / "v2/pod/cgroup.procs").write_text("10\n999\n")
    assert machine.first_executable(cgroup_id, 10) is None, "one of them ended while we looked"


def test_addresses_are_asked_anew_after_some_seconds(tree, monkeypatch):
    now, asked = [0.0], []
    monkeypatch.setattr(module, "interface_addresses", lambda: asked.append(now[0]) or frozenset())
    machine = Machine(clock=lambda: now[0])
    for now[0] in (0.0, 1.0, 4.9, 5.0, 6.0):
        machine.addresses()
    assert asked == [0.0, 5.0]


def test_this_machine_has_a_loopback_address():
    assert interfaces.MAPPED + bytes([127, 0, 0, 1]) in interfaces.interface_addresses()


def test_the_answer_of_the_kernel_about_addresses():
    def attribute(kind, content):
        return netlink.ATTRIBUTE.pack(4 + len(content), kind) + content + bytes(-len(content) % 4)

    def message(kind, *attributes):
        content = interfaces.ADDRESS_HEAD.pack(2, 24, 0, 0, 1) + b"".join(attributes)
        return netlink.HEAD.pack(16 + len(content), kind, 2, 1, 0) + content

    other_end, own, v6 = bytes([10, 0, 0, 2]), bytes([10, 0, 0, 1]), bytes(range(16))
    found: set[bytes] = set()
    reply = message(20, attribute(1, other_end), attribute(3, b"lo\0"), attribute(2, own)) + message(
        20, attribute(1, v6)
    )
    assert interfaces.take_addresses(reply, found)
    assert found == {interfaces.MAPPED + own, v6}
    assert not interfaces.take_addresses(message(3), found)
    for cut in range(len(reply)):
        interfaces.take_addresses(reply[:cut], set())


def test_a_recording_gives_the_same_answers(machine, tree):
    kept: dict[str, dict[str, object]] = {}
    recorder = Recorder(machine, kept)
    executable, cgroup_id = (tree / "worker").stat().st_ino, (tree / "v2/pod").stat().st_ino
    (tree / "root/var/lib/docker/containers" / ID).mkdir(parents=True)
    (tree / "root/var/lib/docker/containers" / ID / "config.v2.json").write_text(
        '{"Name": "/web", "Config": {"Image": "i"}}'
    )

    def answers(of):
        return [
            of.executable_path(executable, 10),
            of.executable_path(executable, 99),
            of.first_executable(cgroup_id, 10),
            sorted(of.cgroup_walk()),
            of.cgroup_path(cgroup_id, 10),
            of.container_named(ID),
            of.container_named("0"),
            of.addresses(),
            of.host_name(),
            of.host_id(),
        ]

    wanted = answers(recorder)
    assert answers(RecordedMachine(json.loads(json.dumps(kept)))) == wanted
    assert wanted[5] == Named("web", "i")


def test_an_empty_recording_knows_nothing():
    machine = RecordedMachine({})
    assert machine.cgroup_walk() == []
    assert machine.addresses() == frozenset()
    assert [machine.host_name(), machine.host_id(), machine.executable_path(1, 1)] == [None] * 3


def test_this_process():
    link = Path("/proc/self/exe")
    assert Machine().executable_path(link.stat().st_ino, os.getpid()) == str(link.readlink())
