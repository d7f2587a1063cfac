from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from otelbpf.errors import CannotRun, OtelbpfError, Unsupported, VerifierError
from otelbpf.kernel import features
from otelbpf.kernel.object import Object
from otelbpf.kernel.run_time import run_time_counted
from tests.kernel.sample import open_files
from tests.kernel.walks import skip_without_walks_of_maps

TASK_ROWS = np.dtype([("key", "<u8"), ("value", "<u8")])


def opened(path: Path, *programs: str, constants=None, map_sizes=None) -> Object:
    return Object(path, constants=constants or {}, map_sizes=map_sizes or {}, programs=programs)


def test_constants_reach_the_program_and_counters_come_back(sample):
    with opened(sample, "produce", constants={"burst": 7}) as loaded:
        assert loaded.run("produce") == 7
        assert loaded.bss("event_counts")["seen"] == 7
        assert int(loaded.bss("next_sequence")) == 7


def test_counters_are_live_and_outlive_the_object(sample):
    with opened(sample, "produce", constants={"burst": 3}) as loaded:
        counts, sequence = loaded.bss("event_counts"), loaded.bss("next_sequence")
        for runs in range(1, 4):
            loaded.run("produce")
            assert counts["seen"] == sequence == 3 * runs
    assert counts["seen"] == 9


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"constants": {"bursts": 1}}, r"no variable bursts in \.rodata \(there are: burst,"),
        ({"constants": {"burst": 2**32}}, "constant burst cannot be 4294967296"),
        ({"constants": {"burst": -1}}, "constant burst cannot be -1"),
        ({"constants": {"some_ports": [1]}}, "constant some_ports takes 8 bytes, not 2"),
        ({"map_sizes": {"evens": 4096}}, "no map evens in it"),
    ],
)
def test_a_wrong_setting_is_a_sentence(sample, settings, sentence):
    with pytest.raises(CannotRun, match=sentence), opened(sample, "produce", **settings):
        pass


def test_an_unknown_program_is_a_sentence(sample):
    with pytest.raises(CannotRun, match="no program produces in it"), opened(sample, "produces"):
        pass


def test_the_verifier_is_quoted_and_never_printed(sample, capfd):
    with pytest.raises(VerifierError, match="invalid mem access") as caught, opened(sample, "produce", "unsafe"):
        pass
    assert caught.value.what == "unsafe"
    assert "R1 invalid mem access" in caught.value.log
    assert capfd.readouterr() == ("", "")


def test_a_tracepoint_that_is_not_there_is_an_answer(sample):
    with pytest.raises(Unsupported, match="absent: this kernel has no otelbpf_no_such"), opened(sample, "absent"):
        pass
    with (
        opened(sample, "absent_when_attached") as loaded,
        pytest.raises(Unsupported, match="this kernel has no otelbpf/no_such_tracepoint"),
    ):
        loaded.attach("absent_when_attached")


@pytest.mark.parametrize("program", ["on_syscall", "on_syscall_raw", "on_getppid"])
def test_tracepoints_of_each_kind_attach_and_detach(sample, program):
    with opened(sample, program) as loaded:
        calls = loaded.bss("calls")
        loaded.attach(program)
        before = int(calls)
        for _ in range(100):
            os.getppid()
        assert int(calls) >= before + 100
        loaded.detach()
        after = int(calls)
        os.getppid()
        assert int(calls) == after


def test_a_packet_program_attaches_to_the_root_of_the_cgroups(sample):
    with opened(sample, "on_packet") as loaded:
        loaded.attach("on_packet")
        before = int(loaded.bss("calls"))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x", ("127.0.0.1", 9))
        assert int(loaded.bss("calls")) > before


def test_an_iterator_writes_rows_of_a_struct(sample):
    with opened(sample, "each_task") as loaded:
        rows = np.frombuffer(loaded.iterate("each_task"), loaded.layout("sample"))
        again = np.frombuffer(loaded.iterate("each_task"), loaded.layout("sample"))
    assert features.initial_pid() in rows["sequence"]
    assert features.initial_pid() in again["sequence"]
    assert set(rows["head"]["pid"].tolist()) == {features.initial_pid()}


def test_an_iterator_runs_over_the_elements_of_a_map(sample):
    skip_without_walks_of_maps()
    with opened(sample, "each_entry") as loaded:
        table = loaded.map("table")
        for key in range(3):
            table.update(key.to_bytes(4, "little"), (key * 10).to_bytes(8, "little"))
        rows = np.frombuffer(loaded.iterate("each_entry", "table"), TASK_ROWS)
        assert sorted(rows.tolist()) == [(0, 0), (1, 10), (2, 20)]
        table.delete((1).to_bytes(4, "little"))
        rows = np.frombuffer(loaded.iterate("each_entry", "table"), TASK_ROWS)
        assert sorted(rows["key"].tolist()) == [0, 2]


def test_a_map_is_a_bounded_table_of_bytes(sample):
    with opened(sample, "produce") as loaded:
        table = loaded.map("table")
        assert (table.key_bytes, table.value_bytes, table.max_entries, len(table)) == (4, 8, 4, 0)
        for key in range(4):
            table.update(bytes([key, 0, 0, 0]), bytes([key] * 8))
        with pytest.raises(OtelbpfError, match=r"map table: cannot update: .*the map is full"):
            table.update(bytes([9, 0, 0, 0]), bytes(8))
        assert table.lookup(bytes([2, 0, 0, 0])) == bytes([2] * 8)
        assert table.lookup(bytes([9, 0, 0, 0])) is None
        assert table.delete(bytes([2, 0, 0, 0]))
        assert not table.delete(bytes([2, 0, 0, 0]))
        assert dict(table.items()) == {bytes([key, 0, 0, 0]): bytes([key] * 8) for key in (0, 1, 3)}
        with pytest.raises(ValueError, match="key of 1 bytes, must be 4"):
            table.lookup(b"x")


def test_maps_have_the_size_that_was_asked_for(sample):
    with opened(sample, "produce", map_sizes={"table": 100, "events": 1 << 16}) as loaded:
        assert loaded.map("table").max_entries == 100
        assert loaded.map("events").max_entries == 1 << 16
        assert loaded.memory_bytes() > 1 << 16


def test_the_kernel_counts_the_time_of_programs_while_asked_to(sample):
    with opened(sample, "on_getppid") as loaded, run_time_counted():
        loaded.attach("on_getppid")
        for _ in range(100):
            os.getppid()
        nanoseconds, runs = loaded.run_stats()["on_getppid"]
    assert runs >= 100
    assert nanoseconds > 0


def test_everything_is_released(sample):
    before = open_files()
    with opened(sample, "produce", "on_getppid", "on_packet", "each_task") as loaded:
        loaded.attach("on_getppid")
        loaded.attach("on_packet")
        loaded.iterate("each_task")
        assert len(open_files()) > len(before)
    assert open_files() == before


def test_a_refused_object_leaves_nothing_open(sample):
    before = open_files()
    with pytest.raises(VerifierError), opened(sample, "unsafe"):
        pass
    assert open_files() == before


WITHOUT_CAPABILITIES = """
import json, sys
from pathlib import Path
from otelbpf.errors import Unsupported
from otelbpf.kernel.object import Object
try:
    with Object(Path(sys.argv[1]), constants={}, map_sizes={}, programs=["on_syscall", "on_packet"]) as loaded:
        loaded.attach("on_syscall")
        loaded.attach("on_packet")
    print(json.dumps(None))
except Unsupported as refusal:
    print(json.dumps(refusal.reason))
"""


@pytest.mark.parametrize(
    ("held", "missing"),
    [
        pytest.param("-all", ["CAP_NET_ADMIN", "CAP_PERFMON", "CAP_BPF"], id="none"),
        pytest.param("-all,+bpf,+net_admin", ["CAP_PERFMON"], id="no CAP_PERFMON"),
        pytest.param("-all,+bpf,+perfmon", ["CAP_NET_ADMIN"], id="no CAP_NET_ADMIN"),
        pytest.param("-all,+bpf,+perfmon,+net_admin", [], id="the three are enough"),
    ],
)
def test_a_missing_capability_is_named(sample, held, missing):
    # dac_read_search: the test's files may stand where only root reads.
    kept = f"{held},+dac_read_search"
    done = subprocess.run(
        [
            "setpriv",
            f"--bounding-set={kept}",
            "--inh-caps=-all",
            sys.executable,
            "-c",
            WITHOUT_CAPABILITIES,
            str(sample),
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    reason = json.loads(done.stdout)
    if missing:
        noun = "capability" if len(missing) == 1 else "capabilities"
        assert reason.startswith(f"missing {noun} {', '.join(missing)}: run as root")
    else:
        assert reason is None


def test_the_arguments_of_a_tracepoint_are_known():
    assert features.tracepoint_arguments("sys_enter") == 2
    assert features.tracepoint_arguments("inet_sock_set_state") == 3
    assert features.tracepoint_arguments("otelbpf_no_such") is None
    assert not features.too_old()


def test_a_program_knows_our_pid_in_the_initial_namespace():
    told = features._pid_by_program()
    if str(Path("/proc/self/ns/pid").readlink()) == features._INITIAL_PID_NAMESPACE:
        assert told == os.getpid()
    else:
        assert told > 0
