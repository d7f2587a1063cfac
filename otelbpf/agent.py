"""Read this first: a configuration becomes stages; they start last to first, and stop first to last.

    kernel ─ ring ─▶ drain ─ deque ─▶ prepare ▶ enrich ▶ signals ─ requests ─▶ queue ▶ export ─▶ OTLP

Three kinds of threads: the drain (`kernel/drain.py`), the line (`line.py`), one per exporter (`export/`).
"""

from __future__ import annotations

import gc
import os
import sys
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from otelbpf import ledger, stages
from otelbpf.enrich import Enrichment, kubernetes
from otelbpf.enrich.kubernetes.cluster import Recorder as ClusterRecorder
from otelbpf.enrich.machine import Machine
from otelbpf.enrich.machine import Recorder as MachineRecorder
from otelbpf.errors import CannotRun, Hangs
from otelbpf.export import exporters
from otelbpf.export.numbers import ProbeStatus
from otelbpf.export.telemetry import Telemetry
from otelbpf.guards import memory
from otelbpf.guards.guard import guards
from otelbpf.health import Health
from otelbpf.kernel import capabilities
from otelbpf.kernel.allocator import Trimming, give_memory_back
from otelbpf.kernel.attach import attach_all
from otelbpf.kernel.drain import Drain
from otelbpf.line import Conveyor, Timer
from otelbpf.node import Node
from otelbpf.only_one import OnlyOne, name_of_instance
from otelbpf.probes import PROBES, filters
from otelbpf.recording import EVENTS, SNAPSHOT, TOTALS, Layouts, Recorder
from otelbpf.reload import Reload, Running
from otelbpf.tape import Tape

if TYPE_CHECKING:
    import threading
    from collections import deque
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from pathlib import Path

    from otelbpf.config import Config
    from otelbpf.enrich.kubernetes.cluster import Cluster
    from otelbpf.enrich.kubernetes.watcher import Watcher
    from otelbpf.enrich.machine import Answers
    from otelbpf.export import Exporters
    from otelbpf.export.numbers import AgentNumbers
    from otelbpf.guards.memory import Bound
    from otelbpf.guards.watchdog import Watchdog
    from otelbpf.kernel.attach import AttachedProbe
    from otelbpf.kernel.object import Object
    from otelbpf.reload import Wish

SWEEP_INTERVAL_S = 1.0
TRIM_INTERVAL_S = 10.0
WATCH_INTERVAL_S = 0.5
RELEASE_INTERVAL_S = 0.05
"""A pod's first rows go on so soon after its name is known."""
SWITCH_INTERVAL_S = 0.001
"""A thread that encodes must not keep the drain from its rings for the interpreter's usual 5 ms."""
WAITING_BYTES = 48 << 20
"""Of each probe, between drain and line: most of a second of the most that a node may see; used in a stall only."""
LINE_ENDS_S = 5.0
"""For the tick that it is in, when the time to stop is short."""
WAITING_SHARE = 0.1
"""Of the memory limit."""


def run(
    config: Config,
    ending: threading.Event,
    *,
    seconds: float | None = None,
    record: Path | None = None,
    wish: Wish | None = None,
) -> Iterator[str]:
    """Watches this node until *ending* is set or *seconds* have passed; gives lines for a person: what is not seen,
    ready, what a reload did, the summary. *wish* says when another configuration is to be taken.

    Raises OtelbpfError with one sentence when it cannot start. Everything it opened is closed when it returns.
    """
    started = time.monotonic()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    give_memory_back()
    gc.freeze()  # modules stay for ever: a full collection that walks them keeps the drain from its rings for 30 ms
    if capabilities.missing():
        raise CannotRun(capabilities.sentence(capabilities.missing()))
    with ExitStack() as open_:
        open_.enter_context(OnlyOne(name_of_instance(os.environ)))
        health = open_.enter_context(Health(config.health.endpoint))
        yield from ([f"otelbpf: {health.trouble}"] if health.trouble else [])
        outputs = open_.enter_context(exporters(config))
        answers: dict[str, dict[str, Any]] = {}
        machine = MachineRecorder(Machine(), answers) if record else Machine()
        watcher = open_.enter_context(kubernetes.watching(config.kubernetes, os.environ, machine.host_name()))
        enrichment = open_.enter_context(Enrichment(config, machine, _cluster(watcher, answers if record else None)))
        tried = open_.enter_context(
            attach_all(stages.enabled(config), config, before_attach=partial(_fill, config, _cgroups(config, machine)))
        )
        yield from (sentence for probe in tried for sentence in _shortcomings(probe))
        probes = _usable(tried)
        tape = Tape(open_.enter_context(_recorder(record, probes)), answers) if record else None
        bounds = memory.bounds(config)
        drain = open_.enter_context(Drain([probe.source for probe in probes], _waiting_bytes(bounds)))
        line = stages.line(config, [probe.probe for probe in probes], machine, enrichment, outputs.export)
        node = Node(probes, drain, line, tape, watcher)
        if watcher is not None:
            watcher.wait(config.kubernetes.hold)  # what exists already, and what comes first, finds its names
        node.adopt()
        collecting = Timer(config.metrics.interval, node.collect)
        conveyor = open_.enter_context(Conveyor(node.tick, [collecting, *_timers(node)], drain.arrived, drain.plenty))
        own = [drain.pulse, conveyor.pulse, *([] if watcher is None else [watcher.pulse])]
        guarding = guards(config, bounds, outputs, line.logs.sampling, conveyor.pace, lambda: [*own, *outputs.pulses()])
        node.guards = guarding
        telemetry = open_.enter_context(_telemetry(config, outputs, machine, tried, node))
        running = Running(outputs, node, line, conveyor, collecting, telemetry, partial(_filter, probes, machine))
        reload = Reload(config, wish, running)
        if watcher is not None:
            watcher.on_change = telemetry.kubernetes_changed
        guarding.on_change, guarding.on_stage = telemetry.detail_changed, telemetry.stage_changed
        open_.enter_context(guarding)
        ready = _ready(probes, started)
        telemetry.started(ready)
        health.running(guarding.watchdog.troubles, ready, lambda: kubernetes.told(watcher))
        yield ready
        said = [guarding.sentences, *([] if watcher is None else [watcher.sentences])]
        all_runs = partial(_all_run, outputs, conveyor)
        hangs = yield from _wait(ending, all_runs, seconds, said, reload, guarding.watchdog)
        health.stopping()
        guarding.stop()
        deadline = time.monotonic() + reload.config.shutdown_timeout
        if hangs or not conveyor.stop(deadline + LINE_ENDS_S):
            outputs.flush(deadline)
            open_.pop_all()
            raise Hangs(f"{hangs or 'the line does not end'}; the agent ends without a summary, to be started again")
        conveyor.check()
        node.finish()
        yield from _flushed(outputs, node, telemetry, deadline, started)
        outputs.check()


def _flushed(outputs: Exporters, node: Node, telemetry: Telemetry, deadline: float, started: float) -> list[str]:
    """Sends what is left until *deadline*; the summary says what became of it."""
    outputs.flush(deadline)
    summary = list(ledger.summary(time.monotonic() - started, node.ledgers(), outputs.ledger(), node.detail()))
    telemetry.stopped(summary[0])
    telemetry.close(deadline)
    return summary


def _filter(probes: Iterable[AttachedProbe], machine: Answers, config: Config) -> None:
    """Makes the filters of what is attached those of *config*."""
    cgroups = _cgroups(config, machine)
    for probe in probes:
        if probe.object is not None:
            _fill(config, cgroups, probe.object)


def _fill(config: Config, cgroups: Sequence[tuple[int, str]], loaded: Object) -> None:
    if loaded.has_map("filter_ports"):
        filters.fill(loaded, config, cgroups)


def _cgroups(config: Config, machine: Answers) -> Sequence[tuple[int, str]]:
    """Those there are, if the kernel is to leave some out."""
    return machine.cgroup_walk() if config.filters.cgroups.exclude else ()


def _usable(tried: Sequence[AttachedProbe]) -> list[AttachedProbe]:
    """The probes that this kernel accepted. What it refused costs that probe only."""
    if not any(probe.way and probe.probe.events for probe in tried):
        raise CannotRun(
            "no probe could be attached, so there is nothing to watch; `otelbpf check` says what is missing"
        )
    return [probe for probe in tried if probe.way]


def _telemetry(
    config: Config, outputs: Exporters, machine: Answers, tried: Sequence[AttachedProbe], node: Node
) -> Telemetry:
    """The agent's own signals, and what failed so far as the first of them."""
    statuses = [ProbeStatus(probe.probe.name, probe.way.name if probe.way else "", probe.state) for probe in tried]
    statuses += [ProbeStatus(probe.name, "", "off") for probe in PROBES if probe not in stages.enabled(config)]

    def read() -> AgentNumbers:
        return node.numbers(statuses, outputs)

    about_host = {"host_name": machine.host_name(), "host_id": machine.host_id()}
    telemetry = Telemetry(config, outputs, read, **about_host, environ=os.environ)
    for probe in tried:
        if probe.way is None:
            telemetry.probe_failed(probe.probe.name, "; ".join(refusal.reason for refusal in probe.refused))
    return telemetry


def _shortcomings(probe: AttachedProbe) -> Iterator[str]:
    if probe.way is None:
        reasons = "; ".join(f"{what}: {reason}" for what, reason in probe.refused) or "it has no way on this kernel"
        yield f"otelbpf: probe {probe.probe.name} is off: {reasons}"
    for detail in probe.lost:
        yield f"otelbpf: probe {probe.probe.name} does not see {detail}; `otelbpf check` says why"


def _recorder(path: Path, probes: Sequence[AttachedProbe]) -> Recorder:
    layouts: Layouts = {}
    for probe in probes:
        if probe.record is not None and probe.struct is not None:
            layouts[EVENTS, probe.probe.name] = probe.record
            layouts[SNAPSHOT, probe.probe.name] = probe.struct
        if probe.throttle is not None:
            layouts[TOTALS, probe.probe.name] = probe.throttle.row
    return Recorder(path, layouts)


def _timers(node: Node) -> list[Timer]:
    timers = [Timer(SWEEP_INTERVAL_S, node.sweep), Timer(TRIM_INTERVAL_S, Trimming())]
    return [*timers, Timer(RELEASE_INTERVAL_S, node.release)] if node.holds else timers


def _ready(probes: Sequence[AttachedProbe], started: float) -> str:
    hooks = ", ".join(f"{probe.probe.name} ({probe.way.name})" for probe in probes if probe.way and probe.probe.events)
    return f"ready: {hooks} in {(time.monotonic() - started) * 1000:.0f} ms"


def _cluster(watcher: Watcher | None, kept: dict[str, dict[str, Any]] | None) -> Cluster | None:
    """What enrichment may ask of Kubernetes; for a recording the answers are *kept*."""
    if watcher is None or kept is None:
        return None if watcher is None else watcher.known
    return ClusterRecorder(watcher.known, kept)


def _waiting_bytes(bounds: Sequence[Bound]) -> int:
    """What may wait between drain and line of each probe: less where memory is limited. It is made counters of, so no
    guard sheds it."""
    least = min((bound.limit_bytes for bound in bounds), default=None)
    return WAITING_BYTES if least is None else min(WAITING_BYTES, int(least * WAITING_SHARE))


def _all_run(outputs: Exporters, conveyor: Conveyor) -> bool:
    return outputs.alive and conveyor.failure is None


def _wait(
    ending: threading.Event,
    all_runs: Callable[[], bool],
    seconds: float | None,
    said: Sequence[deque[str]],
    reload: Reload,
    watchdog: Watchdog,
) -> Generator[str, None, str]:
    """Until the end, or until not *all_runs*; gives what is *said* meanwhile, and reloads when that is wanted.

    Returns what hangs for good, if that is why it ends.
    """
    until = None if seconds is None else time.monotonic() + seconds
    while not ending.is_set() and all_runs():
        left = WATCH_INTERVAL_S if until is None else min(WATCH_INTERVAL_S, until - time.monotonic())
        if left <= 0:
            break
        ending.wait(left)
        for sentences in said:
            while sentences:
                yield f"otelbpf: {sentences.popleft()}"
        if hangs := watchdog.hopeless():
            return hangs
        if not ending.is_set():
            yield from reload.sentences()
    return ""
