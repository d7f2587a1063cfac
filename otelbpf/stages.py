"""Builds the line from a configuration: the same for a live node and for a recording."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from otelbpf.filters import CgroupFilter
from otelbpf.hold import Hold
from otelbpf.line import Line
from otelbpf.native.library import library
from otelbpf.probes import PROBES
from otelbpf.signals.logs import Logs
from otelbpf.signals.metrics import Metrics
from otelbpf.source import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from otelbpf.config import Config
    from otelbpf.enrich import Enrichment
    from otelbpf.enrich.machine import Answers
    from otelbpf.export.request import Request
    from otelbpf.probes.probe import Probe


def enabled(config: Config) -> tuple[Probe, ...]:
    """The probes to run. One that only teaches (the paths of cgroups) has no setting and always runs."""
    return tuple(probe for probe in PROBES if getattr(getattr(config.probes, probe.name, None), "enabled", True))


def line(
    config: Config,
    probes: Iterable[Probe],
    machine: Answers,
    enrichment: Enrichment,
    export: Callable[[Request], None],
    now_ns: Callable[[], int] = time.time_ns,
) -> Line:
    """The stages between rows and requests; nothing runs yet. *now_ns* gives the Unix time at which rows are taken.

    Raises CannotRun when the compiled loops that stages use are not there.
    """
    library()
    chosen = tuple(probes)
    return Line(
        enrichment=enrichment,
        wanted=CgroupFilter(config, machine),
        logs=Logs(config, chosen, now_ns),
        metrics=Metrics(config, chosen, now_ns),
        export=export,
        hold=Hold(enrichment.waiting, config.kubernetes.hold),
        sources=[Source(probe, probe.prepare(config)) for probe in chosen],
    )
