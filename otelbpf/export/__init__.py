"""Everything that leaves the agent leaves here: requests in, OTLP or lines out, each record accounted for."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

from otelbpf.config import Console, OtlpGrpc, OtlpHttp, Retry, SendingQueue
from otelbpf.errors import OtelbpfError, described
from otelbpf.export.console import ConsoleTransport
from otelbpf.export.former import Former, together
from otelbpf.export.otlp_grpc import GrpcTransport
from otelbpf.export.otlp_http import HttpTransport
from otelbpf.export.reach import probe
from otelbpf.export.sender import Sender

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from otelbpf.config import Config, Spool
    from otelbpf.export.account import SignalLedger
    from otelbpf.export.keeper import SpoolSize
    from otelbpf.export.news import Watcher
    from otelbpf.export.queue import QueueSize
    from otelbpf.export.request import Request
    from otelbpf.export.transport import Transport
    from otelbpf.pulse import Pulse


__all__ = ["Exporter", "Exporters", "Parts", "exporters", "parts", "probe", "sender"]


class Exporter(Protocol):
    """Takes requests and accounts for them. A context manager."""

    name: str
    component: str
    """otel.component.type."""
    watchers: list[Watcher]

    @property
    def failure(self) -> BaseException | None:
        """What ended one of its threads, if that was not the end."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...

    def export(self, request: Request) -> None:
        """Takes it without ever waiting."""

    def wait_for_room(self, request: Request) -> None:
        """Returns when `export` would take *request* without a loss."""

    def keep_within(self, share: float, signals: Collection[str]) -> None:
        """From now on lets *share* of what may wait in memory of each of *signals* wait, and counts what is beyond."""

    def follow(
        self, transport: Transport, retry: Retry, queue: SendingQueue, signals: Collection[str], spool: Spool | None
    ) -> None:
        """Goes on with other settings and with all that waits."""

    def begin_flush(self, deadline: float) -> None:
        """Tells it that the end is near, so that several hurry at the same time."""

    def flush(self, deadline: float) -> bool:
        """Sends what it has until *deadline* (time.monotonic), then ends."""

    def ledger(self) -> dict[str, SignalLedger]: ...
    def sizes(self) -> dict[str, QueueSize]: ...
    def spool_size(self) -> SpoolSize | None: ...
    def pulses(self) -> list[Pulse]: ...


class Exporters:
    """All exporters as one. A context manager; leaving it drops, and counts, what `flush` was not called for."""

    def __init__(self, members: Iterable[Exporter]) -> None:
        self.members = tuple(members)
        self.former = Former()
        self._watchers: list[Watcher] = []
        self._shares: dict[str, float] = {}
        self._replacing = threading.Lock()

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            for member in self.members:
                opened.enter_context(member)
            opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with ExitStack() as open_:
            for member in self._all():
                open_.push(member)

    def export(self, request: Request) -> None:
        """Gives *request* to every exporter; never waits."""
        for member in self.members:
            member.export(request)

    def export_all(self, request: Request) -> None:
        """`export` for a caller that can wait, as a replay can: nothing is dropped because it comes too fast."""
        for member in self.members:
            member.wait_for_room(request)
            member.export(request)

    def keep_within(self, share: float, signals: Collection[str]) -> None:
        """From now on *share* of the room for what waits is given to each of *signals*; what is beyond goes, the oldest
        first, counted."""
        with self._replacing:
            self._shares |= dict.fromkeys(signals, share)
            for member in self.members:
                member.keep_within(share, signals)

    def flush(self, deadline: float) -> bool:
        """Sends what is queued until *deadline* (time.monotonic); what is left stays in the spool, or is dropped as `shutdown`.

        Says whether everything had its answer. Nothing is exported after it.
        """
        for member in self.members:
            member.begin_flush(deadline)
        with ThreadPoolExecutor(len(self.members) or 1, thread_name_prefix="flush") as pool:  # each takes a moment
            in_time = list(pool.map(lambda member: member.flush(deadline), self.members))
        return self.former.wait(deadline) and all(in_time)

    def replace(self, members: Iterable[Exporter], deadline: float) -> None:
        """From now on *members*, which are open, get the requests; those that are not among them any more end by
        themselves until *deadline* (time.monotonic), and stay in the account. Called by the thread that calls `export`."""
        wanted = tuple(members)
        gone = [member for member in self.members if member not in wanted]
        for member in wanted:
            member.watchers[:] = self._watchers
        with self._replacing:
            self.members = wanted
            for member in gone:
                self.former.take(member, deadline)
            for signal, share in self._shares.items():
                for member in wanted:
                    member.keep_within(share, (signal,))

    @property
    def alive(self) -> bool:
        """Whether all threads that export do so."""
        return not any(member.failure for member in self._all())

    def check(self) -> None:
        """Raises OtelbpfError with what ended a thread of an exporter, if that was not the end."""
        for member in self._all():
            if member.failure is not None:
                raise OtelbpfError(
                    f"exporter {member.name} ended because of a bug in otelbpf: {described(member.failure)}; please report it"
                )

    def watch(self, watcher: Watcher) -> None:
        """Lets *watcher* know how exporting goes."""
        self._watchers.append(watcher)
        for member in self.members:
            member.watchers.append(watcher)

    def components(self) -> dict[str, str]:
        """Exporter → otel.component.type."""
        return self.former.components() | {member.name: member.component for member in self.members}

    def ledger(self) -> dict[tuple[str, str], SignalLedger]:
        """(exporter, signal) → its account; each exporter's of one moment."""
        with self._replacing:
            accounts = self.former.ledger()
            for member in self.members:
                for signal, account in member.ledger().items():
                    accounts[member.name, signal] = together(accounts.get((member.name, signal)), account)
        return accounts

    def sizes(self) -> dict[tuple[str, str], QueueSize]:
        """(exporter, signal) → how full its queue is."""
        return {(member.name, signal): size for member in self._all() for signal, size in member.sizes().items()}

    @property
    def keep_on_disk(self) -> bool:
        """Whether one of them does."""
        return any(member.spool_size() is not None for member in self.members)

    def pulses(self) -> list[Pulse]:
        """Those of all threads that export."""
        return [pulse for member in self.members for pulse in member.pulses()]

    def spools(self) -> dict[str, SpoolSize]:
        """Exporter → how full its spool is, for those that have one."""
        return {member.name: size for member in self._all() if (size := member.spool_size()) is not None}

    def _all(self) -> Iterator[Exporter]:
        """Also those that are about to end."""
        with self._replacing:
            present = (*self.former.members, *self.members)
        yield from present


def exporters(config: Config) -> Exporters:
    """The exporters that *config* names, not yet open."""
    return Exporters(sender(name, settings) for name, settings in config.exporters.items())


class Parts(NamedTuple):
    """What an exporter is made of, by its settings."""

    transport: Transport
    retry: Retry
    queue: SendingQueue
    signals: Collection[str]
    spool: Spool | None


def parts(name: str, settings: OtlpGrpc | OtlpHttp | Console) -> Parts:
    """Raises ConfigError for an endpoint that is none."""
    if isinstance(settings, Console):
        return Parts(ConsoleTransport(), Retry(), SendingQueue(), settings.signals, None)
    transport = GrpcTransport(name, settings) if isinstance(settings, OtlpGrpc) else HttpTransport(name, settings)
    return Parts(transport, settings.retry_on_failure, settings.sending_queue, settings.signals, settings.spool)


def sender(name: str, settings: OtlpGrpc | OtlpHttp | Console) -> Sender:
    """One exporter by its settings. Raises ConfigError for an endpoint that is none."""
    return Sender(name, *parts(name, settings))
