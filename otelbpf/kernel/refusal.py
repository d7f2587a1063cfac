"""Why the kernel said no: errno and what libbpf printed, as one exception with one sentence."""

from __future__ import annotations

import errno
import os
import re

from otelbpf.errors import Unsupported, VerifierError
from otelbpf.kernel import capabilities

_PROGRAM = re.compile(r"prog '([^']+)': (?:failed|BPF program load failed|-- BEGIN)")
_LOG = re.compile(r"-- BEGIN PROG LOAD LOG --\n(.*?)-- END PROG LOAD LOG --", re.DOTALL)
_PREFIX = re.compile(r"^libbpf: (?:prog '[^']+': )?")
_NO_BTF = ("failed to find valid kernel BTF", "Error loading vmlinux BTF", "kernel BTF is missing")
_NOTHING_VERIFIED = "processed 0 insns"
"""What the verifier says when the kernel refuses a kind of program without a look at it."""
_NOT_THERE = re.compile(r"failed to find kernel BTF type ID of '([^']+)'|failed to determine tracepoint '([^']+)'")


def refusal(what: str, error: int, messages: list[str]) -> Unsupported:
    """The exception for an act on *what* (an object or a program) that ended with *error* (positive errno).

    Its `what` is the program that was refused where libbpf named one, so that the caller can do without it.
    """
    said = "".join(messages)
    programs = _PROGRAM.findall(said)
    refused = programs[0] if programs else what
    log = "".join(_LOG.findall(said))
    absent = capabilities.missing() if error == errno.EPERM else []
    if absent:
        return Unsupported(refused, capabilities.sentence(absent))
    if log.strip() and not (error == errno.EPERM and _NOTHING_VERIFIED in log):
        return VerifierError(refused, log)
    return Unsupported(refused, _reason(error, said, messages))


def _reason(error: int, said: str, messages: list[str]) -> str:
    if any(phrase in said for phrase in _NO_BTF):
        return "this kernel has no BTF (/sys/kernel/btf/vmlinux; CONFIG_DEBUG_INFO_BTF)"
    not_there = _NOT_THERE.search(said)
    if not_there:
        return f"this kernel has no {(not_there[1] or not_there[2]).removeprefix('btf_trace_')}"
    text = os.strerror(error)
    if error == errno.EPERM:
        return f"{text}, although the capabilities are there: this kernel, its lockdown, seccomp or a security module forbids it"
    first = next((_PREFIX.sub("", message).strip() for message in messages if message.strip()), "")
    return f"{text} ({first})" if first else text
