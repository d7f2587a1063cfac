"""What the agent counts about itself, as plain numbers: the content of its own metrics."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otelbpf.enrich.kubernetes.watcher import WatchState
    from otelbpf.export.account import SignalLedger
    from otelbpf.export.keeper import SpoolSize
    from otelbpf.export.queue import QueueSize
    from otelbpf.guards.guard import GuardState
    from otelbpf.guards.watchdog import StageState
    from otelbpf.ledger import EventLedger
    from otelbpf.signals.sampling import DetailLedger

State = Literal["attached", "degraded", "failed", "off"]


class ProbeStatus(NamedTuple):
    """How one probe is doing; *way* is empty when it has none."""

    probe: str
    way: str
    state: State


class RunTime(NamedTuple):
    """What the kernel programs of one probe have cost so far, as bpf_stats counts it."""

    nanoseconds: int
    runs: int


class MapFill(NamedTuple):
    """How full one bounded table is."""

    entries: int
    capacity: int


@dataclass(frozen=True, slots=True)
class AgentNumbers:
    """All of it, at one moment. What is not known is left empty."""

    events: Mapping[str, EventLedger] = field(default_factory=dict)
    """Probe → its event ledger."""
    records: Mapping[tuple[str, str], SignalLedger] = field(default_factory=dict)
    """(exporter, signal) → its record ledger."""
    queues: Mapping[tuple[str, str], QueueSize] = field(default_factory=dict)
    spools: Mapping[str, SpoolSize] = field(default_factory=dict)
    """Exporter → its spool, for those that have one."""
    statuses: Sequence[ProbeStatus] = ()
    run_times: Mapping[str, RunTime] = field(default_factory=dict)
    """Probe → cost; empty while bpf_stats is off."""
    maps: Mapping[str, MapFill] = field(default_factory=dict)
    overflows: Mapping[str, int] = field(default_factory=dict)
    """Map → events that shared an entry."""
    caches: Mapping[str, tuple[int, int, int, int]] = field(default_factory=dict)
    """Cache → look-ups that hit, that missed, entries dropped for lack of room, entries there are."""
    series: Mapping[str, int] = field(default_factory=dict)
    """Metric → series kept."""
    series_overflows: Mapping[str, int] = field(default_factory=dict)
    """Metric → series among them that take what is beyond the cap."""
    watches: Sequence[WatchState] = ()
    """How the watches of the API server fare."""
    held: Mapping[str, int] = field(default_factory=dict)
    """Outcome → rows that have waited for their pod."""
    details: Mapping[str, DetailLedger] = field(default_factory=dict)
    """Probe → its log records that were due."""
    guards: Sequence[GuardState] = ()
    """How the agent's own limits stand."""
    stages: Sequence[StageState] = ()
    """How each thread of each stage fares."""
    nat: tuple[int, int] | None = None
    """Translated connections that are remembered, and overflows of what tells of them."""


@dataclass(frozen=True, slots=True)
class OwnProcess:
    """What this process uses."""

    user_s: float
    system_s: float
    resident_bytes: int
    descriptors: int


def own_process(proc: Path = Path("/proc/self")) -> OwnProcess:
    """Reads it from /proc."""
    times = os.times()
    resident_pages = int((proc / "statm").read_text().split()[1])
    descriptors = sum(1 for _ in (proc / "fd").iterdir()) - 1  # one is the directory being read
    return OwnProcess(times.user, times.system, resident_pages * os.sysconf("SC_PAGE_SIZE"), descriptors)
