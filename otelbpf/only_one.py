"""One agent a node: two would count everything twice."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING

from otelbpf.errors import CannotRun

if TYPE_CHECKING:
    from typing import Self

LOCK = Path("/run/otelbpf.lock")


class OnlyOne:
    """Holds the lock of this node while it is entered; raises CannotRun when another agent has it.

    flock(2) and not a pid file: the kernel lets go of it however the agent ends.
    """

    def __init__(self, path: Path = LOCK) -> None:
        self._path = path

    def __enter__(self) -> Self:
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise CannotRun(f"cannot open the lock file {self._path}: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._file, 32).decode(errors="replace").strip() or "unknown"
            os.close(self._file)
            raise CannotRun(
                f"another otelbpf runs on this node (pid {holder}) and two would count everything twice: stop it first"
            ) from error
        os.truncate(self._file, 0)
        os.write(self._file, f"{os.getpid()}\n".encode())
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)
