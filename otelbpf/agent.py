"""Read this first: a configuration becomes stages; they start last to first, and stop first to last.

    kernel ─ ring ─▶ drain ─ deque ─▶ prepare ▶ enrich ▶ signals ─ requests ─▶ queue ▶ export ─▶ OTLP

Three kinds of threads: the drain (`kernel/drain.py`), the line (`line.py`), one per exporter (`export/`).
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from otelbpf import ledger, stages
from otelbpf.enrich import Enrichment
from otelbpf.enrich.machine import Machine, Recorder as MachineRecorder
from otelbpf.errors import CannotRun
from otelbpf.export import exporters
from otelbpf.kernel.attach import attach
from otelbpf.kernel.drain import Drain
from otelbpf.kernel.self_pid import self_pid
from otelbpf.line import Conveyor, Timer
from otelbpf.node import Node
from otelbpf.only_one import OnlyOne
from otelbpf.recording import Frame, Recorder

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from otelbpf.config import Config
    from otelbpf.export import Exporters
    from otelbpf.kernel.attach import AttachedProbe

SWEEP_INTERVAL_S = 1.0
WATCH_INTERVAL_S = 0.5
SWITCH_INTERVAL_S = 0.001
"""A thread that encodes must not keep the drain from its rings for the interpreter's usual 5 ms."""


def run(
    config: Config, ending: threading.Event, *, seconds: float | None = None, record: Path | None = None
) -> Iterator[str]:
    """Watches this node until *ending* is set or *seconds* have passed; gives lines for a person: ready, the summary.

    Raises OtelbpfError with one sentence when it cannot start. Everything it opened is closed when it returns.
    """
    started = time.monotonic()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with ExitStack() as open_:
        open_.enter_context(OnlyOne())
        outputs = open_.enter_context(exporters(config))
        machine = MachineRecorder(Machine()) if record else Machine()
        enrichment = open_.enter_context(Enrichment(config, machine))
        probes = _attach_all(open_, config)
        line = stages.line(config, [probe.probe for probe in probes], enrichment, outputs.export)
        drain = open_.enter_context(Drain([probe.source for probe in probes]))
        recorder = open_.enter_context(Recorder(record, _layouts(probes))) if record else None
        node = Node(probes, drain, line, recorder.write if recorder else None)
        node.adopt()
        conveyor = open_.enter_context(Conveyor(node.tick, _timers(config, node), drain.arrived))
        yield _ready(probes, started)
        _wait(ending, conveyor, seconds)
        conveyor.stop()
        node.finish()
        if recorder:
            recorder.write(Frame("machine", time.time_ns(), payload=json.dumps(machine.answers).encode()))
        outputs.flush(time.monotonic() + config.shutdown_timeout)
        yield from ledger.summary(time.monotonic() - started, node.ledgers(), outputs.ledger())
