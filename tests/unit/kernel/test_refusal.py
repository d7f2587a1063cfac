from __future__ import annotations

import errno

import pytest

from otelbpf.errors import VerifierError
from otelbpf.kernel import capabilities
from otelbpf.kernel.refusal import refusal

LOG = [
    "libbpf: prog 'closed': BPF program load failed: Permission denied\n",
    (
        "libbpf: prog 'closed': -- BEGIN PROG LOAD LOG --\n"
        "0: (79) r1 = *(u64 *)(r1 +8)\n1: (61) r0 = *(u32 *)(r1 +64)\nR1 invalid mem access 'scalar'\n"
        "processed 2 insns (limit 1000000)\nmore\n"
        "-- END PROG LOAD LOG --\n"
    ),
    "libbpf: prog 'closed': failed to load: -13\n",
    "libbpf: failed to load object 'x.bpf.o'\n",
]


@pytest.fixture(autouse=True)
def all_capabilities(monkeypatch):
    monkeypatch.setattr(capabilities, "missing", list)


def test_the_verifier_is_quoted_by_its_last_lines():
    error = refusal("x.bpf.o", errno.EACCES, LOG)
    assert isinstance(error, VerifierError)
    assert error.what == "closed"
    assert "R1 invalid mem access 'scalar' | processed 2 insns" in str(error)
    assert "(1 lines omitted)" in str(error)
    assert error.log.startswith("0: (79)")


def test_a_missing_capability_is_named_before_the_verifier_is_quoted(monkeypatch):
    monkeypatch.setattr(capabilities, "missing", lambda: ["CAP_PERFMON"])
    error = refusal("x.bpf.o", errno.EPERM, LOG)
    assert not isinstance(error, VerifierError)
    assert str(error).startswith("closed: missing capability CAP_PERFMON: run as root")


@pytest.mark.parametrize(
    ("error", "messages", "what", "reason"),
    [
        pytest.param(
            errno.ESRCH,
            ["libbpf: prog 'a': failed to find kernel BTF type ID of 'btf_trace_gone': -3\n"],
            "a",
            "this kernel has no gone",
            id="a tracepoint without BTF",
        ),
        pytest.param(
            errno.ENOENT,
            ["libbpf: prog 'a': failed to determine tracepoint 'tcp/gone' perf event ID: No such file or directory\n"],
            "a",
            "this kernel has no tcp/gone",
            id="a tracepoint that tracefs does not have",
        ),
        pytest.param(
            errno.ESRCH,
            ["libbpf: kernel BTF is missing at '/sys/kernel/btf/vmlinux', was CONFIG_DEBUG_INFO_BTF enabled?\n"],
            "x.bpf.o",
            "this kernel has no BTF",
            id="no BTF at all",
        ),
        pytest.param(
            errno.EPERM,
            ["libbpf: Error in bpf_object__probe_loading\n"],
            "x.bpf.o",
            "lockdown, seccomp",
            id="forbidden by others",
        ),
        pytest.param(
            errno.EPERM,
            [
                "libbpf: prog 'a': BPF program load failed: Operation not permitted\n",
                "libbpf: prog 'a': -- BEGIN PROG LOAD LOG --\nprocessed 0 insns (limit 1000000) peak_states 0\n"
                "-- END PROG LOAD LOG --\n",
            ],
            "a",
            "Operation not permitted, although the capabilities are there: this kernel",
            id="a kind of program that is forbidden",
        ),
        pytest.param(errno.EINVAL, [], "x.bpf.o", "Invalid argument", id="silence"),
        pytest.param(
            errno.EINVAL,
            ["libbpf: prog 'a': failed to attach: Invalid argument\n", "libbpf: more\n"],
            "a",
            "Invalid argument (failed to attach: Invalid argument)",
            id="anything else: the first message",
        ),
    ],
)
def test_what_the_kernel_cannot_is_one_sentence(error, messages, what, reason):
    found = refusal("x.bpf.o", error, messages)
    assert found.what == what
    assert reason in found.reason
    assert "\n" not in str(found)
