"""Other exporters in the place of those that run, while requests are made all the time.

One that is new is opened, one that is not wanted any more ends on its own time, one with other settings keeps its
queue, its spool and its account and goes another way; one that is the same is not touched.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from otelbpf.errors import ConfigError
from otelbpf.export import parts, sender

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from otelbpf.config import Console, OtlpGrpc, OtlpHttp
    from otelbpf.export import Exporters, Parts
    from otelbpf.export.sender import Sender

    Settings = OtlpGrpc | OtlpHttp | Console


PATIENCE_S = 60.0


class Exchange:
    """What is to change; a context manager. Leaving it before `take_place` leaves everything as it was."""

    def __init__(self, outputs: Exporters, former: Mapping[str, Settings], wanted: Mapping[str, Settings]) -> None:
        """*former* are the settings of those that run. Raises ConfigError for an endpoint that is none."""
        self._outputs = outputs
        self._wanted = tuple(wanted)
        self._added: dict[str, Sender] = {name: sender(name, wanted[name]) for name in wanted if name not in former}
        self._redirected: dict[str, Parts] = {
            name: parts(name, wanted[name]) for name in wanted if name in former and wanted[name] != former[name]
        }
        self._opened = ExitStack()

    def __enter__(self) -> Self:
        """Looks at the files that the settings name, and opens what is new. Raises ConfigError."""
        for redirected in self._redirected.values():
            redirected.transport.check()
        # One that was taken out a moment ago has the spool, and the name, until it has ended.
        if not self._outputs.former.wait(time.monotonic() + PATIENCE_S, self._added):
            raise ConfigError(f"exporters: one of {', '.join(self._added)} still sends what it had; try again later")
        with ExitStack() as opened:
            for added in self._added.values():
                opened.enter_context(added)
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    def take_place(self, deadline: float) -> None:
        """From now on requests go to the exporters that are wanted; those that are not have until *deadline*
        (time.monotonic) to send what they have. Never waits."""
        self._opened.pop_all()
        present = {member.name: member for member in self._outputs.members}
        for name, redirected in self._redirected.items():
            present[name].follow(*redirected)
        chosen = present | self._added
        self._outputs.replace([chosen[name] for name in self._wanted], deadline)
