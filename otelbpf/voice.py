"""What the agent says to a person: lines on a descriptor that nobody has to wait for.

Whoever reads may be slow, or not read at all (a pipe to a program that hangs, a terminal that is stopped). A write then
waits for as long as that takes, and with it whatever had something to say: the main thread, and so the end; a sender; the
line. So one thread writes, and waits alone.
"""

from __future__ import annotations

import logging
import os
import select
import threading
from collections import deque
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

LINES = 1000
"""That may wait; beyond that the oldest are dropped, and how many is said instead."""
LAST_WORDS_S = 1.0
"""At the end, for what waits."""


class Voice(logging.Handler):
    """Says lines, and what is logged, on *descriptor*. A context manager; leaving it waits for the last lines, but not
    for long."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._waiting: deque[str] = deque()
        self._unsaid = 0
        self._change = threading.Condition()
        self._leaving = False
        self._without_thread = False
        # Killed with the process where it waits: it holds no lock then that the interpreter's end could want.
        self._thread = threading.Thread(target=self._run, name="voice", daemon=True)

    def __enter__(self) -> Self:
        try:
            self._thread.start()
        except RuntimeError:  # no thread can be started: what is said then is why, and it is said at the exit
            self._without_thread = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._change:
            self._leaving = True
            self._change.notify()
        if self._without_thread:
            self._run()
        else:
            self._thread.join(LAST_WORDS_S)

    def say(self, text: str) -> None:
        """Says *text*, a line or several, soon."""
        with self._change:
            self._waiting.append(text)
            if len(self._waiting) > LINES:
                self._waiting.popleft()
                self._unsaid += 1
            self._change.notify()

    def emit(self, record: logging.LogRecord) -> None:
        """What is logged is said as it is."""
        self.say(self.format(record))

    def _run(self) -> None:
        while (text := self._next()) is not None:
            try:
                self._write(text.encode("utf-8", "replace") + b"\n")
            except OSError:  # nobody will read any more, and the agent goes on
                return

    def _next(self) -> str | None:
        with self._change:
            self._change.wait_for(lambda: self._waiting or self._leaving)
            if self._unsaid:
                count, self._unsaid = self._unsaid, 0
                return f"otelbpf: {count} lines were dropped: nobody read them in time"
            return self._waiting.popleft() if self._waiting else None

    def _write(self, data: bytes) -> None:
        # Not by sys.stderr: a thread that waits in it keeps its lock, and the interpreter cannot end without it.
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # whoever gave us the descriptor made it so
                select.select([], [self._descriptor], [])
