"""Whose a connection or a lookup is, as a line says it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelbpf.signals import names

if TYPE_CHECKING:
    from otelbpf.batch import Facts


def owner_word(process: Facts, comm: bytes, pid: int) -> str:
    """`curl[4711]`: the executable's name, or the kernel's short one where that is not known; `?` for nobody known."""
    name = process.get(names.PROCESS_EXECUTABLE_NAME, "") or comm.decode(errors="replace") or "?"
    return f"{name}[{pid}]" if pid else str(name)
