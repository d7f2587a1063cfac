"""Real processes, whole records: what is executed and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from otelbpf.config import Config
from otelbpf.kernel.attach import attach
from otelbpf.kernel.features import cgroup2_mount, cgroup_v1_memory_mount, tracepoint_arguments
from otelbpf.probes.process import PROBE
from tests.kernel.feed import Feed

if TYPE_CHECKING:
    from collections.abc import Iterator

EXEC, EXIT = 1, 2
CGROUP_V1 = 1 << 63
EXIT_ARGUMENTS_SINCE_6_16 = 2
TRUE = str(Path("/bin/true").resolve())


@pytest.fixture(scope="module", params=PROBE.ways, ids=lambda way: way.name)
def feed(request) -> Iterator[Feed]:
    """The probe by each of its ways; the first needs a kernel that says which thread is the last."""
    if request.param.name == "tp_btf" and tracepoint_arguments("sched_process_exit") != EXIT_ARGUMENTS_SINCE_6_16:
        pytest.skip("kernel before 6.16: sched_process_exit has no group_dead")
    config = msgspec.structs.replace(Config(), filters=msgspec.structs.replace(Config().filters, exclude_self=False))
    with attach(replace(PROBE, ways=(request.param,)), config) as attached:
        yield Feed(attached)


def executable_id(path: str | Path) -> int:
    status = Path(path).stat()
    device = os.major(status.st_dev) << 20 | os.minor(status.st_dev)
    return (device << 40 ^ status.st_ino) & (1 << 64) - 1


def own_cgroup_id() -> int:
    """That of this test, as the head of an event has it: v2 below the root, else v1 memory."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    v2 = next(path for _, controllers, path in lines if not controllers)
    memory = next((path for _, controllers, path in lines if "memory" in controllers.split(",")), None)
    v1_mount = cgroup_v1_memory_mount()
    if v2 == "/" and memory is not None and v1_mount is not None:
        return (v1_mount / memory.lstrip("/")).stat().st_ino | CGROUP_V1
    return (cgroup2_mount() / v2.lstrip("/")).stat().st_ino


def records(feed: Feed, pid: int, count: int = 2) -> list[dict[str, Any]]:
    """The records of process *pid* in order, without their times, which are checked for order instead."""
    rows = feed.where(lambda rows: rows["head"]["pid"] == pid, count)
    result = []
    for row in rows:
        head = {name: row["head"][name].item() for name in row["head"].dtype.names}
        record = {**head, **{name: row[name].item() for name in row.dtype.names if name != "head"}}
        assert 0 < record.pop("start_ns") <= record.pop("time_ns") <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        result.append(record)
    return result


def record(pid: int, comm: str, executable: str | Path, **others: Any) -> dict[str, Any]:
    """What is the same for every child of this test, and what is not."""
    return {
        "cgroup_id": own_cgroup_id(),
        "executable": executable_id(executable),
        "pid": pid,
        "netns": Path("/proc/self/ns/net").stat().st_ino,
        "comm": comm.encode(),
        "parent_executable": executable_id("/proc/self/exe"),
        "parent_pid": os.getpid(),
        "uid": os.geteuid(),
        "kind": EXIT,
        "exit_code": 0,
        "exit_signal": 0,
        "oom": 0,
        "parent_comm": Path("/proc/self/comm").read_bytes().strip(),
        "filename": b"",
        "command": b"",
        **others,
    }


def exec_and_exit(pid: int, comm: str, path: str | Path, command: str, **end: Any) -> list[dict[str, Any]]:
    """The two records of a child that executed *path*."""
    return [
        record(pid, comm, path, kind=EXEC, filename=str(path).encode(), command=command.encode()),
        record(pid, comm, path, **end),
    ]


def run(*command: str, **options: Any) -> int:
    child = subprocess.Popen(command, **options)
    child.wait()
    return child.pid


def python(script: str) -> int:
    return run(sys.executable, "-c", script, stderr=subprocess.DEVNULL)


def test_a_process_that_lives_a_millisecond(feed):
    pid = run("/bin/true")
    assert records(feed, pid) == exec_and_exit(pid, "true", TRUE, "/bin/true")


def test_arguments_are_not_read(feed):
    pid = run("/bin/true", "--password=secret")
    assert records(feed, pid) == exec_and_exit(pid, "true", TRUE, "/bin/true")


def test_a_child_that_never_executes(feed):
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    os.waitpid(pid, 0)
    own = Path("/proc/self/exe").resolve()
    comm = Path("/proc/self/comm").read_text().strip()
    assert records(feed, pid, 1) == [record(pid, comm, own, exit_code=7)]


@pytest.mark.parametrize("code", [0, 1, 127, 255])
def test_exit_codes(feed, code):
    pid = run("/bin/sh", "-c", f"exit {code}")
    assert records(feed, pid) == exec_and_exit(pid, "sh", Path("/bin/sh").resolve(), "/bin/sh", exit_code=code)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGRTMIN + 1])
def test_exit_by_a_signal(feed, number):
    child = subprocess.Popen(["/bin/sleep", "60"], cwd="/")
    child.send_signal(number)
    child.wait()
    wanted = exec_and_exit(child.pid, "sleep", Path("/bin/sleep").resolve(), "/bin/sleep", exit_signal=number)
    assert records(feed, child.pid) == wanted


def test_threads_end_once_with_the_code_of_the_group(feed):
    pid = python(
        "import os, threading\n"
        "for _ in range(20): threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "threading.Thread(target=os._exit, args=(5,)).start()\n"
        "threading.Event().wait()"
    )
    ends = [found for found in records(feed, pid) if found["kind"] == EXIT]
    assert [end["exit_code"] for end in ends] == [5]


def test_a_leader_that_ends_before_its_threads(feed):
    """The end is told when the last thread ends; its name is the leader's, its code that of the group."""
    pid = python(
        "import ctypes, os, threading, time\n"
        "def last():\n"
        "    ctypes.CDLL(None).prctl(15, b'worker')\n"
        "    time.sleep(0.05)\n"
        "    os._exit(6)\n"
        "threading.Thread(target=last).start()\n"
        "ctypes.CDLL(None).syscall(60 if os.uname().machine == 'x86_64' else 93, 0)"
    )
    own = Path(sys.executable).resolve()
    found = records(feed, pid)
    assert [one["kind"] for one in found if one["kind"] == EXIT] == [EXIT]
    assert (found[-1]["comm"], found[-1]["exit_code"]) == (os.fsencode(Path(sys.executable).name)[:15], 6)
    assert found[0]["filename"] == os.fsencode(own)


def test_exec_from_a_thread_that_is_not_the_leader(feed):
    pid = python("import os, threading; threading.Thread(target=os.execv, args=('/bin/true', ['true'])).start()")
    found = records(feed, pid, 3)
    assert [(one["kind"], one["comm"]) for one in found[1:]] == [(EXEC, b"true"), (EXIT, b"true")]


def test_many_threads_that_end_at_once(feed):
    """Without group_dead two threads may both find that none lives: still one record a process."""
    script = (
        "import threading\n"
        "gate = threading.Event()\n"
        "threads = [threading.Thread(target=gate.wait) for _ in range(50)]\n"
        "[thread.start() for thread in threads]\n"
        "gate.set()"
    )
    pids = [python(script) for _ in range(5)]
    for pid in pids:
        assert [one["kind"] for one in records(feed, pid)] == [EXEC, EXIT]


def test_a_script_is_run_by_its_interpreter(feed, tmp_path):
    script = tmp_path / "deploy.sh"
    script.write_text("#!/bin/sh\nexit 4\n")
    script.chmod(0o755)
    pid = run(str(script))
    assert records(feed, pid) == exec_and_exit(pid, "deploy.sh", Path("/bin/sh").resolve(), "/bin/sh", exit_code=4)


def test_a_relative_path_and_a_link_lead_to_the_file(feed, tmp_path):
    copy = tmp_path / "copy"
    copy.write_bytes(Path("/bin/true").read_bytes())
    copy.chmod(0o755)
    (tmp_path / "link").symlink_to(copy)
    pid = run("./link", cwd=tmp_path)
    assert records(feed, pid) == exec_and_exit(pid, "link", copy.resolve(), "./link")


def test_a_file_on_a_mount_of_its_own(feed, tmp_path):
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path], check=True)
    try:
        copy = tmp_path / "copy"
        copy.write_bytes(Path("/bin/true").read_bytes())
        copy.chmod(0o755)
        pid = run(str(copy))
        wanted = exec_and_exit(pid, "copy", copy, str(copy))
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    assert records(feed, pid) == wanted


def test_a_file_without_a_place(feed):
    memory = os.memfd_create("nowhere")
    os.write(memory, Path("/bin/true").read_bytes())
    pid = os.fork()
    if pid == 0:
        os.execve(memory, ["anonymous"], {})
    os.waitpid(pid, 0)
    os.close(memory)
    executed = records(feed, pid)[0]
    assert (executed["filename"], executed["command"]) == (b"/memfd:nowhere", b"anonymous")


def test_of_a_path_too_long_the_end_is_kept(feed, tmp_path):
    deep = tmp_path.joinpath(*["d" * 100] * 3)
    deep.mkdir(parents=True)
    copy = deep / "copy"
    copy.write_bytes(Path("/bin/true").read_bytes())
    copy.chmod(0o755)
    executed = records(feed, run(str(copy)))[0]
    assert executed["filename"] == f"{'d' * 100}/{'d' * 100}/copy".encode()
    assert executed["command"] == str(copy).encode()[:127]


def test_the_effective_user(feed):
    pid = run("/bin/true", user=65534, group=65534, extra_groups=[])
    assert [found["uid"] for found in records(feed, pid)] == [65534, 65534]


@pytest.fixture
def pod_cgroup() -> Iterator[Path]:
    """A cgroup as a kubelet with the cgroupfs driver makes it."""
    mount = cgroup2_mount()
    if mount is None:
        pytest.skip("no cgroup2 mount")
    path = mount / "kubepods" / "burstable" / f"pod{uuid.uuid4()}" / (uuid.uuid4().hex * 2)
    path.mkdir(parents=True)
    yield path
    for directory in (path, *list(path.parents)[:3]):
        try:
            directory.rmdir()
        except OSError:  # another test's pods are in it
            break


def enter(cgroup: Path) -> Any:
    return lambda: (cgroup / "cgroup.procs").write_text(str(os.getpid()))


def test_in_the_cgroup_of_a_pod(feed, pod_cgroup):
    pid = run("/bin/true", preexec_fn=enter(pod_cgroup))
    cgroup_id = pod_cgroup.stat().st_ino
    wanted = exec_and_exit(pid, "true", TRUE, "/bin/true")
    assert records(feed, pid) == [{**one, "cgroup_id": cgroup_id} for one in wanted]


def test_out_of_memory(feed):
    memory = cgroup_v1_memory_mount()
    if memory is None:
        pytest.skip("no v1 memory hierarchy")
    cgroup = memory / f"oom-{uuid.uuid4().hex}"
    cgroup.mkdir()
    try:
        (cgroup / "memory.limit_in_bytes").write_text(str(16 << 20))
        pid = run(
            sys.executable, "-c", "b = bytearray(1 << 30); b[::4096] = b'x' * (1 << 18)", preexec_fn=enter(cgroup)
        )
        end = records(feed, pid)[-1]
    finally:
        cgroup.rmdir()
    assert (end["kind"], end["exit_signal"], end["oom"]) == (EXIT, signal.SIGKILL, 1)


def test_the_ledger_balances(feed):
    pids = [run("/bin/true") for _ in range(50)]
    for pid in pids:
        assert len(records(feed, pid)) == 2
    attached = feed.attached
    assert feed.count("seen") - feed.count("filtered") - feed.count("ring_full") >= 100
    assert feed.count("ring_full") == 0
    assert attached.state == "attached"


def test_a_full_ring_is_counted():
    """Nobody reads: what is in the ring and what was lost is what was seen."""
    config = msgspec.structs.replace(
        Config(),
        probes=msgspec.structs.replace(
            Config().probes, process=msgspec.structs.replace(Config().probes.process, ring_size=4096)
        ),
    )
    with attach(PROBE, config) as attached:
        for _ in range(20):
            run("/bin/true")
        feed = Feed(attached)
        lost_before = feed.count("ring_full")
        assert lost_before > 0
        # Others start processes meanwhile: read until a quiet moment, when the books can be compared.
        for _ in range(1000):
            seen = feed.count("seen")
            known = len(feed.rows()) + feed.count("ring_full") + feed.count("filtered")
            if seen == known == feed.count("seen"):
                break
        assert seen == known


def test_own_events_are_filtered():
    """`self_pid` is a thread group: here a child's, which ends while the probe watches."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    os.close(reader)
    probe = replace(PROBE, constants=lambda _config: {"self_pid": pid})
    with attach(probe, Config()) as attached:
        feed = Feed(attached)
        os.close(writer)
        os.waitpid(pid, 0)
        after = run("/bin/true")
        assert len(records(feed, after)) == 2
        assert feed.count("filtered") == 1
        assert not (feed.rows()["head"]["pid"] == pid).any()
