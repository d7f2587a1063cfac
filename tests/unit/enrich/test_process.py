"""Executable ids → names and paths."""

from __future__ import annotations

import numpy as np

from otelbpf.batch import Batch
from otelbpf.enrich.machine import RecordedMachine
from otelbpf.enrich.process import LINKS, Executables
from tests.unit.enrich.rows import HEAD, PROCESS, rows

EXEC, EXIT = 1, 2
HEAD_ONLY = np.dtype([("head", HEAD)])


def executed(*values, kind=EXEC):
    return Batch("process", rows(PROCESS, *[{"kind": kind, **value} for value in values]), 0)


def running(executables, *values):
    head = rows(HEAD_ONLY, *values)["head"]
    found = executables.of(head["executable"], head["pid"], head["comm"])
    return [tuple(found.values[code].values()) for code in found.codes.tolist()]


def test_an_execution_names_the_executable_of_all_that_run_it():
    executables = Executables(RecordedMachine({}))
    executables.learn(executed({"executable": 7, "pid": 1, "filename": b"/usr/bin/curl"}))
    assert running(executables, {"executable": 7, "pid": 2, "comm": b"x"}) == [("curl", "/usr/bin/curl")]


def test_a_file_that_is_given_the_id_of_another():
    executables = Executables(RecordedMachine({}))
    executables.learn(executed({"executable": 7, "filename": b"/a/old"}, {"executable": 7, "filename": b"/a/new"}))
    assert running(executables, {"executable": 7}) == [("new", "/a/new")]


def test_each_process_has_the_name_by_which_it_runs_a_file_of_several():
    executables = Executables(RecordedMachine({"executable_path": {"7 9": "/bin/cat"}}))
    wget = {"executable": 7, "pid": 1, "filename": b"/bin/wget"}
    sleep = {"executable": 7, "pid": 2, "filename": b"/bin/sleep"}
    executables.learn(executed(wget, sleep))
    child = {"executable": 7, "pid": 3, "comm": b"wget"}
    thread = {"executable": 7, "pid": 1, "comm": b"resolver"}
    elder = {"executable": 7, "pid": 9, "comm": b"resolver"}
    unknown = {"executable": 7, "pid": 8, "comm": b"vi"}
    found = running(
        executables, {**child, "pid": 1}, {**child, "comm": b"sleep", "pid": 2}, child, thread, elder, unknown
    )
    wget_is, sleep_is = ("wget", "/bin/wget"), ("sleep", "/bin/sleep")
    assert found == [wget_is, sleep_is, wget_is, wget_is, ("cat", "/bin/cat"), ("vi",)]


def test_a_name_that_starts_another_name_of_the_same_file():
    executables = Executables(RecordedMachine({}))
    executables.learn(
        executed(
            {"executable": 7, "pid": 1, "filename": b"/bin/sh"}, {"executable": 7, "pid": 1, "filename": b"/bin/wget"}
        )
    )
    found = running(executables, *({"executable": 7, "pid": 1, "comm": comm} for comm in (b"sh", b"wget")))
    assert found == [("sh", "/bin/sh"), ("wget", "/bin/wget")]


def test_facts_stay_the_same_object_while_nothing_changes():
    executables = Executables(RecordedMachine({}))
    batch = executed({"executable": 7, "filename": b"/a/b"})
    executables.learn(batch)
    head = batch.rows["head"]
    before = executables.of(head["executable"], head["pid"], head["comm"]).values[0]
    executables.learn(batch)
    assert executables.of(head["executable"], head["pid"], head["comm"]).values[0] is before


def test_only_the_name_is_known_of_a_path_too_long():
    executables = Executables(RecordedMachine({}))
    executables.learn(executed({"executable": 7, "filename": b"deep/down/copy"}))
    assert running(executables, {"executable": 7}) == [("copy",)]


def test_a_process_older_than_the_agent_is_asked_of_the_machine_once():
    executables = Executables(RecordedMachine({"executable_path": {"7 3": "/usr/sbin/nginx"}}))
    assert running(executables, {"executable": 7, "pid": 3}) == [("nginx", "/usr/sbin/nginx")]
    assert running(executables, {"executable": 7, "pid": 4}) == [("nginx", "/usr/sbin/nginx")]
    assert executables.counters()[:2] == (1, 1)


def test_who_cannot_be_asked_any_more_goes_by_what_the_kernel_calls_it():
    executables = Executables(RecordedMachine({"executable_path": {"8 3": "/bin/b"}}))
    wanted = [("b", "/bin/b"), ("one",), ("two",), ("one",), ("kworker/0:1",), ()]
    assert wanted == running(
        executables,
        {"executable": 8, "pid": 3},
        {"executable": 7, "comm": b"one"},
        {"executable": 7, "comm": b"two"},
        {"executable": 9, "comm": b"one"},
        {"executable": 0, "comm": b"kworker/0:1"},
        {"executable": 0, "comm": b""},
    )


def test_a_process_that_has_lost_its_executable_goes_by_what_it_executed():
    executables = Executables(RecordedMachine({}))
    executables.learn(executed({"executable": 7, "pid": 3, "filename": b"/usr/bin/curl"}))
    end = {"executable": 0, "pid": 3, "comm": b"x"}
    assert running(executables, end) == [("curl", "/usr/bin/curl")]
    executables.forget(executed(end, kind=EXIT))
    for found in ("curl", "/usr/bin/curl"), ("curl", "/usr/bin/curl"), ("x",):
        assert running(executables, end) == [found]
        executables.let_go()


def test_a_process_that_has_the_id_of_one_that_ended():
    executables = Executables(RecordedMachine({}))
    executables.learn(executed({"executable": 7, "pid": 3, "filename": b"/usr/bin/curl"}))
    executables.forget(executed({"executable": 7, "pid": 3}, kind=EXIT))
    executables.let_go()
    executables.learn(executed({"executable": 8, "pid": 3, "filename": b"/usr/bin/vi"}))
    executables.let_go()
    assert running(executables, {"executable": 0, "pid": 3, "comm": b"x"}) == [("vi", "/usr/bin/vi")]


def test_two_files_of_one_name_and_id_one_after_the_other():
    """As compilers make and remove them; the first is told of when the second has been started already."""
    executables = Executables(RecordedMachine({}))
    first, second = ({"executable": 7, "pid": pid, "comm": b"test"} for pid in (3, 4))
    executables.learn(executed({**first, "filename": b"/tmp/1/test"}, {**second, "filename": b"/tmp/2/test"}))
    executables.forget(executed(first, second, kind=EXIT))
    assert running(executables, first, second) == [("test", "/tmp/1/test"), ("test", "/tmp/2/test")]


def test_of_many_names_of_one_file_the_last_are_known():
    executables = Executables(RecordedMachine({}))
    for number in range(LINKS + 2):
        executables.learn(executed({"executable": 7, "pid": 1, "filename": b"/tmp/%d" % number}))
    found = running(executables, *({"executable": 7, "pid": 2, "comm": b"%d" % number} for number in (1, 2, LINKS + 1)))
    assert found == [("1",), ("2", "/tmp/2"), (f"{LINKS + 1}", f"/tmp/{LINKS + 1}")]


def test_bytes_that_are_no_text():
    executables = Executables(RecordedMachine({}))
    executables.learn(executed({"executable": 7, "filename": b"/tmp/\xff\xfe"}))
    assert running(executables, {"executable": 7}) == [("\ufffd\ufffd", "/tmp/\ufffd\ufffd")]
