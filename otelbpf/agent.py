"""Read this first: a configuration becomes stages; they start last to first, and stop first to last.

    kernel ─ ring ─▶ drain ─ deque ─▶ prepare ▶ enrich ▶ signals ─ requests ─▶ queue ▶ export ─▶ OTLP

Three kinds of threads: the drain (`kernel/drain.py`), the line (`line.py`), one per exporter (`export/`).
"""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import numpy as np

from otelbpf import ledger
from otelbpf.enrich import Enrichment
from otelbpf.enrich.machine import Machine
from otelbpf.export import exporters
from otelbpf.kernel.attach import attach
from otelbpf.kernel.clock import boottime_offset_ns
from otelbpf.kernel.drain import Drain
from otelbpf.line import Conveyor, Line, Rows, Source, Timer, event_ledger
from otelbpf.only_one import OnlyOne
from otelbpf.probes import PROBES
from otelbpf.recording import Frame, Recorder
from otelbpf.signals.logs import Logs
from otelbpf.signals.metrics import Metrics

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from otelbpf.config import Config
