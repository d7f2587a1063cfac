"""A running agent takes another configuration, and loses nothing on the way.

    asked ─▶ read, compare ─▶ open what is new ─▶ [line stands between two ticks: filters, stages, exporters] ─▶ tell

What cannot be used is found before anything is changed. Rows that the drain takes meanwhile wait for the next tick.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otelbpf.config.changes import Changes, changes
from otelbpf.conveyor import pace_s
from otelbpf.errors import ConfigError, OtelbpfError
from otelbpf.export.exchange import Exchange
from otelbpf.filters import kernel_filters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from otelbpf.config import Config
    from otelbpf.config.watched import WatchedFile
    from otelbpf.conveyor import Conveyor, Timer
    from otelbpf.enrich.machine import Answers
    from otelbpf.export import Exporters
    from otelbpf.export.telemetry import Telemetry
    from otelbpf.line import Line
    from otelbpf.node import Node


class Wish:
    """Whether another configuration is wanted: a signal asks for it, or a file has changed."""

    def __init__(self, load: Callable[[], Config], watched: WatchedFile | None = None) -> None:
        """*load* reads the configuration again and raises ConfigError."""
        self.load = load
        self._watched = watched
        self._asked = False

    def ask(self) -> None:
        """Takes no lock: called by a signal's handler, which may have interrupted anything."""
        self._asked = True

    def is_due(self) -> bool:
        """Whether it was asked, or changed, since this was last true. To be called every now and then."""
        asked, self._asked = self._asked, False
        changed = self._watched is not None and self._watched.changed()
        return asked or changed


@dataclass(frozen=True, slots=True)
class Running:
    """What of an agent can follow another configuration."""

    outputs: Exporters
    node: Node
    line: Line
    conveyor: Conveyor
    collecting: Timer
    telemetry: Telemetry
    machine: Answers


class Reload:
    """Keeps *running* at the configuration that was last asked for; *config* is what holds."""

    def __init__(self, config: Config, wish: Wish | None, running: Running) -> None:
        self.config = config
        self._wish = wish
        self._running = running

    def sentences(self) -> Iterator[str]:
        """Does what is due; gives what is to be said of it."""
        if self._wish is None or not self._wish.is_due():
            return
        try:
            found = changes(self.config, self._wish.load())
            if found.applied:
                self._apply(found)
        except OtelbpfError as error:
            self._running.telemetry.config_refused(str(error))
            yield from (f"otelbpf: {line}" for line in str(error).splitlines())
            yield "otelbpf: the configuration was not reloaded; the previous one stays in force"
        else:
            sentence = sentence_of(found)
            self._running.telemetry.config_reloaded(sentence, found.applied, found.restart)
            yield f"otelbpf: {sentence}"

    def _apply(self, found: Changes) -> None:
        """All of it, or nothing and an OtelbpfError."""
        running, config = self._running, found.config
        deadline = time.monotonic() + config.shutdown_timeout
        with Exchange(running.outputs, self.config.exporters, config.exporters) as exchange:
            with running.conveyor.paused():
                self._change_kernel(found)
                running.line.follow(config)
                exchange.take_place(deadline)
                running.conveyor.pace(pace_s(on_disk=running.outputs.keep_on_disk))
                running.collecting.every(config.metrics.interval)
            self.config = config
        running.telemetry.follow(config, deadline)

    def _change_kernel(self, found: Changes) -> None:
        """What living connections did until now is counted as the former filters have it."""
        if found.touches("filters"):
            self._running.node.tick()
            self._running.node.snapshot()
        try:
            self._bring_kernel(found, found.config)
        except OtelbpfError:
            self._bring_kernel(found, self.config)
            raise

    def _bring_kernel(self, found: Changes, config: Config) -> None:
        if found.touches("filters"):
            self._running.node.filter(kernel_filters(config, self._running.machine))
        if found.touches("probes"):
            self._running.node.limit(config)


def sentence_of(found: Changes) -> str:
    """What a reload did, in one line."""
    done = f"configuration reloaded: {', '.join(found.applied)}" if found.applied else ""
    left = f"restart needed for: {', '.join(found.restart)}" if found.restart else ""
    return "; ".join(part for part in (done, left) if part) or "configuration reloaded: nothing has changed"


def no_file() -> Config:
    """Stands for `load` where no file was given."""
    raise ConfigError("there is no configuration file to read again; start with -c FILE")
