"""Requests: encoded items under their resource and scope, cut so that every request stays well below 4 MiB."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Final

from otelbpf.export.request import Request
from otelbpf.signals import names, wire

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TARGET_BYTES: Final = 2_500_000
"""A request is closed when it has reached this size: receivers refuse 4 MiB, and smaller ones cost more calls."""
_FRAME_BYTES: Final = 12


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """One message around others: *tag* in its parent, *prefix* before and *suffix* after what it holds."""

    tag: bytes
    prefix: bytes
    suffix: bytes = b""

    @property
    def size(self) -> int:
        return len(self.prefix) + len(self.suffix) + _FRAME_BYTES


def resource_level(message: bytes) -> Level:
    """ResourceLogs or ResourceMetrics of the Resource *message*."""
    return Level(
        wire.REQUEST_RESOURCE,
        wire.field(wire.RESOURCE, message),
        wire.field(wire.RESOURCE_SCHEMA_URL, wire.text(names.SCHEMA_URL)),
    )


def scope_level(name: str, version: str) -> Level:
    """ScopeLogs or ScopeMetrics."""
    return Level(
        wire.RESOURCE_SCOPE,
        wire.field(wire.SCOPE, wire.scope(name, version)),
        wire.field(wire.SCOPE_SCHEMA_URL, wire.text(names.SCHEMA_URL)),
    )


@dataclass(frozen=True, slots=True)
class Run:
    """Encoded items that stand next to each other below the same levels, the outermost first."""

    path: tuple[Level, ...]
    pieces: Sequence[bytes]
    size: int


class Envelope:
    """Collects runs into one request at a time. Runs with a common path must come one after the other."""

    def __init__(self, signal: str) -> None:
        self._signal = signal
        self._empty()

    def _empty(self) -> None:
        self._runs: list[Run] = []
        self._items = 0
        self._oldest_ns = 0
        self.size = 0

    @property
    def room(self) -> int:
        """Bytes that fit into the open request."""
        return TARGET_BYTES - self.size

    def cost(self, path: tuple[Level, ...]) -> int:
        """Bytes that the headers of *path* add to the open request."""
        open_path = self._runs[-1].path if self._runs else ()
        shared = 0
        while shared < min(len(open_path), len(path)) and open_path[shared] is path[shared]:
            shared += 1
        return sum(level.size for level in path[shared:])

    def add(self, run: Run, items: int, oldest_ns: int) -> None:
        self.size += self.cost(run.path) + run.size
        self._oldest_ns = min(self._oldest_ns, oldest_ns) if self._items else oldest_ns
        self._items += items
        self._runs.append(run)

    def close(self) -> Iterator[Request]:
        """The open request, when there is anything in it; the next one begins."""
        if self._runs:
            pieces: list[bytes] = []
            _write(self._runs, 0, pieces)
            request = Request(self._signal, b"".join(pieces), self._items, self._oldest_ns)
            self._empty()
            yield request


def _write(runs: Sequence[Run], depth: int, pieces: list[bytes]) -> int:
    """Appends *runs* below depth *depth* to *pieces* and returns their bytes."""
    written = 0
    for level, group in groupby(runs, key=lambda run: run.path[depth] if depth < len(run.path) else None):
        if level is None:
            for run in group:
                pieces.extend(run.pieces)
                written += run.size
            continue
        header_at = len(pieces)
        pieces.append(b"")  # its length is known when what it holds is
        inner = _write(list(group), depth + 1, pieces) + len(level.prefix) + len(level.suffix)
        pieces[header_at] = level.tag + wire.varint(inner) + level.prefix
        pieces.append(level.suffix)
        written += inner + len(pieces[header_at]) - len(level.prefix)
    return written
