"""Read this first: a configuration becomes stages; they start last to first, and stop first to last.

    kernel ─ ring ─▶ drain ─ deque ─▶ prepare ▶ enrich ▶ signals ─ requests ─▶ queue ▶ export ─▶ OTLP

Three kinds of threads carry data: the drain (`kernel/drain.py`), the line (`line.py`, run by `conveyor.py`), those of
each exporter (`export/`). Beside them: the guards, the watches of Kubernetes, the agent's own signals, its health.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from otelbpf import ledger, stages
from otelbpf.conveyor import Conveyor, Timer, pace_s
from otelbpf.enrich import Enrichment, kubernetes
from otelbpf.enrich.kubernetes.cluster import Recorder as ClusterRecorder
from otelbpf.enrich.machine import Machine
from otelbpf.enrich.machine import Recorder as MachineRecorder
from otelbpf.errors import CannotRun, Hangs
from otelbpf.export import exporters
from otelbpf.export.telemetry import Telemetry
from otelbpf.filters import kernel_filters
from otelbpf.guards import memory
from otelbpf.guards.guard import guards
from otelbpf.health import Health
from otelbpf.kernel import capabilities, features
from otelbpf.kernel.allocator import Trimming, give_memory_back
from otelbpf.kernel.attach import attach_all
from otelbpf.kernel.drain import Drain
from otelbpf.node import Node
from otelbpf.only_one import OnlyOne, name_of_instance
from otelbpf.own_numbers import OwnNumbers, statuses
from otelbpf.probes import PROBES
from otelbpf.recording import Recorder
from otelbpf.reload import Reload, Running
from otelbpf.tape import Tape, layouts

if TYPE_CHECKING:
    import threading
    from collections.abc import Generator, Iterable, Iterator, Sequence
    from pathlib import Path

    from otelbpf.config import Config
    from otelbpf.enrich.kubernetes.cluster import Cluster
    from otelbpf.enrich.kubernetes.watcher import Watcher
    from otelbpf.export import Exporters
    from otelbpf.guards.guard import Guards
    from otelbpf.guards.memory import Bound
    from otelbpf.kernel.attach import AttachedProbe
    from otelbpf.line import Line
    from otelbpf.reload import Wish

SWEEP_INTERVAL_S = 1.0
TRIM_INTERVAL_S = 10.0
LOOK_INTERVAL_S = 0.5
RELEASE_INTERVAL_S = 0.05
"""How soon a pod's first rows go on once its name is known."""
SWITCH_INTERVAL_S = 0.001
"""A thread that encodes must not keep the drain from its rings for the interpreter's usual 5 ms."""
WAITING_BYTES = 48 << 20
"""For each probe, between drain and line: most of a second at the highest rate that a node may see; used in a stall
only."""
WAITING_SHARE = 0.1
"""Of the memory limit."""
FLUSHING_SHARE = 0.95
"""Of the time to stop: the process has to end, too."""
LINE_ENDS_S = 5.0
"""For the tick that it is in, when the time to stop is short."""


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
    _prepare_process()
    with ExitStack() as open_:
        agent = yield from _start(open_, config, record, wish)
        yield agent.ready
        hangs = yield from _until_the_end(agent, ending, seconds)
        yield from _stop(open_, agent, hangs)


@dataclass(frozen=True, slots=True)
class _Agent:
    """What runs, once all of it does."""

    started_s: float
    ready: str
    """Says so, to a person."""
    health: Health
    outputs: Exporters
    watcher: Watcher | None
    node: Node
    conveyor: Conveyor
    guarding: Guards
    telemetry: Telemetry
    reload: Reload


def _prepare_process() -> None:
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    give_memory_back()
    gc.freeze()  # modules stay for ever: a full collection that walks them keeps the drain from its rings for 30 ms
    if capabilities.missing():
        raise CannotRun(capabilities.sentence(capabilities.missing()))


def _start(open_: ExitStack, config: Config, record: Path | None, wish: Wish | None) -> Generator[str, None, _Agent]:
    """Last stage first: whoever gives finds who takes. Gives sentences on what is missing."""
    started_s = time.monotonic()
    open_.enter_context(OnlyOne(name_of_instance(os.environ)))
    health = open_.enter_context(Health(config.health.endpoint))
    yield from ([f"otelbpf: {health.trouble}"] if health.trouble else [])

    outputs = open_.enter_context(exporters(config))

    answers: dict[str, dict[str, Any]] = {}
    machine = MachineRecorder(Machine(), answers) if record else Machine()
    host_name, host_id = machine.host_name(), machine.host_id()
    watcher = open_.enter_context(kubernetes.watching(config.kubernetes, os.environ, host_name))
    enrichment = open_.enter_context(Enrichment(config, machine, _cluster(watcher, answers if record else None)))

    filters = kernel_filters(config, machine)
    tried = open_.enter_context(attach_all(stages.enabled(config), config, before_attach=filters))
    _refuse_old_kernel(tried)
    yield from (sentence for probe in tried for sentence in _shortcomings(probe))
    probes = _usable(tried)

    bounds = memory.bounds(config)
    tape = Tape(open_.enter_context(Recorder(record, layouts(probes))), answers) if record else None
    drain = open_.enter_context(Drain([probe.source for probe in probes], _waiting_bytes(bounds)))
    line = stages.line(config, [probe.probe for probe in probes], machine, enrichment, outputs.export)
    node = Node(probes, drain, line, tape)
    if watcher is not None:
        watcher.wait(config.kubernetes.hold)  # what exists already, and what comes first, finds its names
    node.adopt()
    collecting = Timer(config.metrics.interval, node.collect)
    timers = [collecting, *_timers(node, line)]
    apart_s = pace_s(on_disk=outputs.keep_on_disk)
    conveyor = open_.enter_context(Conveyor(node.tick, timers, drain.arrived, drain.plenty, apart_s))

    own = [drain.pulse, conveyor.pulse, *([] if watcher is None else [watcher.pulse])]
    sampling = line.logs.sampling
    guarding = guards(config, bounds, outputs, sampling, conveyor.slow_down, lambda: [*own, *outputs.pulses()])
    left_out = [probe for probe in PROBES if probe not in stages.enabled(config)]
    numbers = OwnNumbers(statuses(tried, left_out), node, line, outputs, guarding, watcher)
    telemetry = Telemetry(config, outputs, numbers, host_name=host_name, host_id=host_id, environ=os.environ)
    open_.enter_context(telemetry)
    _tell(telemetry, tried, watcher, guarding)
    open_.enter_context(guarding)

    ready = _ready(probes, started_s)
    telemetry.started(ready)
    health.running(guarding.watchdog.troubles, ready, lambda: kubernetes.told(watcher))
    reload = Reload(config, wish, Running(outputs, node, line, conveyor, collecting, telemetry, machine))
    return _Agent(started_s, ready, health, outputs, watcher, node, conveyor, guarding, telemetry, reload)


def _until_the_end(agent: _Agent, ending: threading.Event, seconds: float | None) -> Generator[str, None, str]:
    """Until *ending*, for *seconds*, or until a thread has failed; gives what is said meanwhile, and reloads when that
    is wanted.

    Returns what hangs for good, if that is why it ends.
    """
    until_s = None if seconds is None else time.monotonic() + seconds
    while not ending.is_set() and agent.outputs.alive and agent.conveyor.failure is None:
        left_s = LOOK_INTERVAL_S if until_s is None else min(LOOK_INTERVAL_S, until_s - time.monotonic())
        if left_s <= 0:
            break
        ending.wait(left_s)
        yield from _said(agent)
        if hangs := agent.guarding.watchdog.hopeless():
            return hangs
        if not ending.is_set():
            yield from agent.reload.sentences()
    return ""


def _stop(open_: ExitStack, agent: _Agent, hangs: str) -> Iterator[str]:
    """First stage first, so that each has taken all before it ends; gives the summary."""
    agent.health.stopping()
    agent.guarding.stop()
    deadline = time.monotonic() + agent.reload.config.shutdown_timeout * FLUSHING_SHARE
    if hangs or not agent.conveyor.stop(deadline + LINE_ENDS_S):
        agent.outputs.flush(deadline)
        open_.pop_all()  # closing what hangs would hang, too
        raise Hangs(f"{hangs or 'the line does not end'}; the agent ends without a summary and must be started again")
    if agent.conveyor.failure is not None:
        agent.outputs.flush(deadline)
    agent.conveyor.check()
    agent.node.finish()
    agent.outputs.flush(deadline)
    seconds = time.monotonic() - agent.started_s
    summary = list(ledger.summary(seconds, agent.node.ledgers(), agent.outputs.ledger(), agent.node.detail()))
    agent.telemetry.stopped(summary[0])
    agent.telemetry.close(deadline)
    yield from summary
    agent.outputs.check()


def _cluster(watcher: Watcher | None, kept: dict[str, dict[str, Any]] | None) -> Cluster | None:
    """What enrichment may ask of Kubernetes; for a recording the answers are *kept*."""
    if watcher is None or kept is None:
        return None if watcher is None else watcher.known
    return ClusterRecorder(watcher.known, kept)


def _shortcomings(probe: AttachedProbe) -> Iterator[str]:
    if probe.way is None:
        reasons = "; ".join(f"{what}: {reason}" for what, reason in probe.refused) or "it has no way on this kernel"
        yield f"otelbpf: probe {probe.probe.name} is off: {reasons}"
    for detail in probe.lost:
        yield f"otelbpf: probe {probe.probe.name} does not see {detail}; `otelbpf check` says why"


def _refuse_old_kernel(tried: Sequence[AttachedProbe]) -> None:
    """In place of what the verifier says of each program. Asked when nothing works alone: it takes milliseconds."""
    if not _any_watches(tried) and features.too_old():
        raise CannotRun(features.too_old())


def _any_watches(tried: Sequence[AttachedProbe]) -> bool:
    """Whether anything was attached that gives events; others only teach."""
    return any(probe.way and probe.probe.events for probe in tried)


def _usable(tried: Sequence[AttachedProbe]) -> list[AttachedProbe]:
    """The probes that this kernel accepted. What it refused costs that probe only."""
    if not _any_watches(tried):
        raise CannotRun(
            "no probe could be attached, so there is nothing to watch; `otelbpf check` says what is missing"
        )
    return [probe for probe in tried if probe.way]


def _waiting_bytes(bounds: Sequence[Bound]) -> int:
    """What may wait between drain and line of each probe: less where memory is limited. It is made counters of, so no
    guard sheds it."""
    least = min((bound.limit_bytes for bound in bounds), default=None)
    return WAITING_BYTES if least is None else min(WAITING_BYTES, int(least * WAITING_SHARE))


def _timers(node: Node, line: Line) -> list[Timer]:
    timers = [Timer(SWEEP_INTERVAL_S, node.sweep), Timer(TRIM_INTERVAL_S, Trimming())]
    return [*timers, Timer(RELEASE_INTERVAL_S, line.release)] if line.hold.is_used else timers


def _tell(telemetry: Telemetry, tried: Iterable[AttachedProbe], watcher: Watcher | None, guarding: Guards) -> None:
    """Lets *telemetry* know what failed until now, and what changes from now on."""
    for probe in tried:
        if probe.way is None:
            telemetry.probe_failed(probe.probe.name, "; ".join(refusal.reason for refusal in probe.refused))
    guarding.on_change, guarding.on_stage = telemetry.detail_changed, telemetry.stage_changed
    if watcher is None:
        return
    watcher.on_change = telemetry.kubernetes_changed
    for watch in watcher.states():
        if watch.since_ns:
            telemetry.kubernetes_changed(watch.name, watch.reason)


def _ready(probes: Sequence[AttachedProbe], started_s: float) -> str:
    hooks = ", ".join(f"{probe.probe.name} ({probe.way.name})" for probe in probes if probe.way and probe.probe.events)
    return f"ready: {hooks} in {(time.monotonic() - started_s) * 1000:.0f} ms"


def _said(agent: _Agent) -> Iterator[str]:
    for sentences in (agent.guarding.sentences, *(() if agent.watcher is None else (agent.watcher.sentences,))):
        while sentences:
            yield f"otelbpf: {sentences.popleft()}"
