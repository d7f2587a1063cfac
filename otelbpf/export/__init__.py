"""Everything that leaves the agent leaves here: requests in, OTLP or lines out, each record accounted for."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol, Self

from otelbpf.config import Console, OtlpGrpc, OtlpHttp, Retry, SendingQueue
from otelbpf.export.console import ConsoleTransport
from otelbpf.export.otlp_grpc import GrpcTransport
from otelbpf.export.otlp_http import HttpTransport
from otelbpf.export.reach import probe
from otelbpf.export.sender import Sender

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otelbpf.config import Config
    from otelbpf.export.account import SignalLedger
    from otelbpf.export.keeper import SpoolSize
    from otelbpf.export.news import Watcher
    from otelbpf.export.queue import QueueSize
    from otelbpf.export.request import Request


__all__ = ["Exporter", "Exporters", "exporters", "probe", "sender"]


class Exporter(Protocol):
    """Takes requests and accounts for them. A context manager."""

    name: str
    component: str
    """otel.component.type."""
    watchers: list[Watcher]

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...

    def export(self, request: Request) -> None:
        """Takes it without ever waiting."""

    def wait_for_room(self, request: Request) -> None:
        """Returns when `export` would take *request* without a loss."""

    def begin_flush(self, deadline: float) -> None:
        """Tells it that the end is near, so that several hurry at the same time."""

    def flush(self, deadline: float) -> bool:
        """Sends what it has until *deadline* (time.monotonic), then ends."""

    def ledger(self) -> dict[str, SignalLedger]: ...
    def sizes(self) -> dict[str, QueueSize]: ...
    def spool_size(self) -> SpoolSize | None: ...


class Exporters:
    """All exporters as one. A context manager; leaving it drops, and counts, what `flush` was not called for."""

    def __init__(self, members: Iterable[Exporter]) -> None:
        self.members = tuple(members)
        self._open = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            for member in self.members:
                opened.enter_context(member)
            self._open = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def export(self, request: Request) -> None:
        """Gives *request* to every exporter; never waits."""
        for member in self.members:
            member.export(request)

    def export_all(self, request: Request) -> None:
        """`export` for who can wait, as a replay can: nothing is dropped because it comes too fast."""
        for member in self.members:
            member.wait_for_room(request)
            member.export(request)

    def flush(self, deadline: float) -> bool:
        """Sends what is queued until *deadline* (time.monotonic); what is left stays in the spool, or is dropped as `shutdown`.

        Says whether everything had its answer. Nothing is exported after it.
        """
        for member in self.members:
            member.begin_flush(deadline)
        in_time = [member.flush(deadline) for member in self.members]
        return all(in_time)

    def flush_within(self, seconds: float) -> bool:
        """`flush` with the time that it may take."""
        return self.flush(time.monotonic() + seconds)

    def watch(self, watcher: Watcher) -> None:
        """Lets *watcher* know how exporting goes."""
        for member in self.members:
            member.watchers.append(watcher)

    def components(self) -> dict[str, str]:
        """Exporter → otel.component.type."""
        return {member.name: member.component for member in self.members}

    def ledger(self) -> dict[tuple[str, str], SignalLedger]:
        """(exporter, signal) → its account; each exporter's of one moment."""
        return {(member.name, signal): entry for member in self.members for signal, entry in member.ledger().items()}

    def sizes(self) -> dict[tuple[str, str], QueueSize]:
        """(exporter, signal) → how full its queue is."""
        return {(member.name, signal): size for member in self.members for signal, size in member.sizes().items()}

    def spools(self) -> dict[str, SpoolSize]:
        """Exporter → how full its spool is, for those that have one."""
        return {member.name: size for member in self.members if (size := member.spool_size()) is not None}


def exporters(config: Config) -> Exporters:
    """The exporters that *config* names, not yet open."""
    return Exporters(sender(name, settings) for name, settings in config.exporters.items())


def sender(name: str, settings: OtlpGrpc | OtlpHttp | Console) -> Sender:
    """One exporter by its settings. Raises ConfigError for an endpoint that is none."""
    if isinstance(settings, Console):
        return Sender(name, ConsoleTransport(), Retry(), SendingQueue(), settings.signals)
    transport = GrpcTransport(name, settings) if isinstance(settings, OtlpGrpc) else HttpTransport(name, settings)
    queue, retry = settings.sending_queue, settings.retry_on_failure
    return Sender(name, transport, retry, queue, settings.signals, settings.spool)
