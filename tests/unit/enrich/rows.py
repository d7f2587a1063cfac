"""Rows as the kernel sends them, made by hand. Layouts as in the C structs; the members that enrichment reads."""

from __future__ import annotations

import socket
from typing import Any

import numpy as np

from otelbpf.batch import Batch, Categorical, Facts
from otelbpf.signals import names

HEAD = np.dtype(
    [
        ("time_ns", "u8"),
        ("cgroup_id", "u8"),
        ("executable", "u8"),
        ("pid", "u4"),
        ("netns", "u4"),
        ("comm", "S16"),
    ]
)
TCP = np.dtype(
    [
        ("head", HEAD),
        ("cookie", "u8"),
        ("start_ns", "u8"),
        ("local_address", "V16"),
        ("remote_address", "V16"),
        ("role", "u1"),
        ("kind", "u1"),
    ]
)
DNS = np.dtype([("head", HEAD), ("local_address", "V16"), ("remote_address", "V16"), ("role", "u1"), ("kind", "u1")])
PROCESS = np.dtype(
    [
        ("head", HEAD),
        ("start_ns", "u8"),
        ("parent_executable", "u8"),
        ("parent_pid", "u4"),
        ("uid", "u4"),
        ("kind", "u1"),
        ("exit_code", "u1"),
        ("exit_signal", "u1"),
        ("oom", "u1"),
        ("parent_comm", "S16"),
        ("filename", "S256"),
        ("command", "S128"),
    ]
)
CGROUP = np.dtype([("time_ns", "u8"), ("cgroup_id", "u8"), ("kind", "u4"), ("path", "S512")])
NETNS = 4026531833
SECOND = 10**9


def packed(address: str) -> bytes:
    if ":" in address:
        return socket.inet_pton(socket.AF_INET6, address)
    return bytes(10) + b"\xff\xff" + socket.inet_pton(socket.AF_INET, address)


def rows(layout: np.dtype[np.void], *values: dict[str, Any]) -> np.ndarray:
    """One row each; keys of the head stand beside the others, addresses are text."""
    made = np.zeros(len(values), layout)
    for row, value in zip(made, values, strict=True):
        for name, content in value.items():
            part = row if name in layout.names else row["head"]
            part[name] = np.void(packed(content)) if name.endswith("_address") else content
    return made


def tcp(*values: dict[str, Any], snapshot: bool = False) -> Batch:
    """Connections of clients in one netns, if nothing else is said."""
    usual = {
        "netns": NETNS,
        "role": 1,
        "kind": 1,
        "time_ns": 100 * SECOND,
        "local_address": "10.0.0.1",
        "remote_address": "10.0.0.2",
    }
    return Batch("tcp_connection", rows(TCP, *[usual | value for value in values]), 0, {}, snapshot)


def lookups(*values: tuple[int, str, list[str], int], pid: int = 1, netns: int = NETNS, role: int = 1) -> Batch:
    """Answers: (time in s, name, addresses, TTL in s)."""
    made = rows(
        DNS, *[{"time_ns": at * SECOND, "pid": pid, "netns": netns, "role": role, "kind": 1} for at, *_ in values]
    )
    questions = [Facts({names.DNS_QUESTION_NAME: name}) for _, name, _, _ in values]
    answers = [
        Facts({names.DNS_ANSWERS: addresses, names.OTELBPF_DNS_TTL: ttl} if addresses else {})
        for _, _, addresses, ttl in values
    ]
    codes = np.arange(len(values), dtype=np.intp)
    return Batch(
        "dns_lookup", made, 0, {"question": Categorical(codes, questions), "answer": Categorical(codes, answers)}
    )


def values(batch: Batch, column: str) -> list[dict[str, Any]]:
    """What a categorical column says of each row."""
    things = batch.things(column)
    return [dict(things.values[code]) for code in things.codes.tolist()]
