"""Kernel time to Unix time, for a process in a time namespace of its own."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from otelbpf.kernel import clock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DAY_NS = 86_400 * 10**9


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    clock._ahead_ns.cache_clear()
    yield
    clock._ahead_ns.cache_clear()


@pytest.mark.parametrize(
    ("said", "ahead_ns"),
    [
        ("monotonic           7         0\nboottime        86400        21\n", DAY_NS + 21),
        ("monotonic           0         0\nboottime       -86400         0\n", -DAY_NS),
        ("", 0),
    ],
)
def test_what_the_namespace_adds_is_taken_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, ahead_ns: int
) -> None:
    usual_ns = clock.boottime_offset_ns()
    clock._ahead_ns.cache_clear()
    (tmp_path / "offsets").write_text(said)
    monkeypatch.setattr(clock, "_NAMESPACE", tmp_path / "offsets")
    assert clock._ahead_ns() == ahead_ns
    assert abs(clock.boottime_offset_ns() - usual_ns - ahead_ns) < DAY_NS / 2


def test_a_kernel_without_time_namespaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_NAMESPACE", tmp_path / "missing")
    assert clock._ahead_ns() == 0
    assert clock.boottime_offset_ns() <= time.time_ns()
