"""The compiled loops where there are none."""

from __future__ import annotations

import pytest

from otelbpf.errors import CannotRun
from otelbpf.native import library


def test_a_machine_that_nothing_was_compiled_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "compiled_for", lambda: "riscv64")
    with pytest.raises(
        CannotRun, match=r"compiled loops: .*riscv64\.so: .*; `make bpf` makes them for x86_64 and aarch64"
    ):
        library.library.__wrapped__()
