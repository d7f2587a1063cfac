"""Work done by a process of its own, so that each event has an owner that a record can name."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

Truth = dict[str, Any]


class Forked:
    """A child that carries out *work* and ends with 0; what the work gives is what it tells, as JSON."""

    def __init__(self, work: Callable[[], Truth]) -> None:
        self._told, tell = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(tell)
            return
        code = 1
        try:
            os.write(tell, json.dumps(work()).encode())
            code = 0
        finally:
            os._exit(code)

    def result(self) -> Truth:
        """Waits until the child has ended; what it told, and its pid."""
        with os.fdopen(self._told, "rb") as told:
            text = told.read()
        _, status = os.waitpid(self.pid, 0)
        if status:
            raise ChildProcessError(f"the child {self.pid} ended with {os.waitstatus_to_exitcode(status)}")
        return {"pid": self.pid, **json.loads(text)}
