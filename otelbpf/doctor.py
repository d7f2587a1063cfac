"""`otelbpf check`: what works on this node, what does not, why, and what to do. Found out by trying the real thing."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from otelbpf import export, health, only_one
from otelbpf.compiled import compiled_for
from otelbpf.enrich import kubernetes
from otelbpf.errors import CannotRun, ConfigError
from otelbpf.findings import ProbeReport, Report, Row, size_text
from otelbpf.guards import cpu, memory
from otelbpf.kernel import capabilities, features
from otelbpf.kernel.attach import attach, examine
from otelbpf.kernel.libbpf import LIBRARY, libbpf
from otelbpf.native import library as loops
from otelbpf.stages import enabled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otelbpf.config import Config
    from otelbpf.enrich.kubernetes.watcher import WatchState
    from otelbpf.findings import State
    from otelbpf.kernel.attach import AttachedProbe
    from otelbpf.probes.probe import Probe

OPEN_SOCKETS = Path("/proc/net/unix")


def report(config: Config) -> Report:
    """Looks at everything that *config* needs. Loads and attaches each probe for a moment; changes nothing."""
    rows = [*_machine_rows(), *(_exporter_row(config, name) for name in config.exporters)]
    cannot = [row for row in rows if row.vital and row.state == "failed"]
    rows += _kubernetes_rows(config)
    probes = [] if cannot else [_probe_report(probe, config) for probe in enabled(config)]
    if probes:
        rows.append(_memory_row(probes))
    rows.append(_limits_row(config))
    return Report(kernel=features.kernel_release(), machine=platform.machine(), rows=rows, probes=probes)


def _machine_rows() -> Iterator[Row]:
    yield _needed_capabilities() or _wanted_capabilities()
    yield _loops()
    library = _library()
    yield library
    if features.btf():
        yield Row("BTF", "ok", str(features.VMLINUX_BTF), vital=True)
        yield from [] if library.state == "failed" else _kernel_rows()
    else:
        yield Row(
            "BTF",
            "failed",
            "the kernel does not describe its types",
            "use a kernel with CONFIG_DEBUG_INFO_BTF=y",
            vital=True,
        )
    yield _cgroup2()
    yield _tracefs()
    yield _other_agent()


def _needed_capabilities() -> Row | None:
    absent = capabilities.missing()
    if not absent:
        return None
    return Row("capabilities", "failed", f"missing {', '.join(absent)}", capabilities.HOW_TO_GIVE, vital=True)


def _wanted_capabilities() -> Row:
    absent = capabilities.missing_recommended()
    if not absent:
        return Row("capabilities", "ok", f"{', '.join((*capabilities.NEEDED, *capabilities.recommended()))} held")
    what = f"missing {', '.join(absent)}: processes of other users that are older than the agent stay unnamed"
    return Row("capabilities", "degraded", what, capabilities.HOW_TO_GIVE)


def _loops() -> Row:
    try:
        loops.library()
    except CannotRun as error:
        return Row("compiled loops", "failed", str(error), "reinstall otelbpf", vital=True)
    return Row("compiled loops", "ok", f"for {compiled_for()}", vital=True)


def _library() -> Row:
    try:
        libbpf()
    except CannotRun as error:
        return Row("libbpf", "failed", str(error), "on Debian: apt-get install libbpf1", vital=True)
    return Row("libbpf", "ok", LIBRARY, vital=True)


def _kernel_rows() -> Iterator[Row]:
    """Only where nothing can help: what else a kernel can do is found out by the probes."""
    too_old = features.too_old()
    if too_old:
        yield Row("kernel", "failed", too_old, f"use Linux {features.WORKS_FROM} or later", vital=True)


def _cgroup2() -> Row:
    mount = features.cgroup2_mount()
    if mount is None:
        todo = "mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified; in a container: mount the host's /sys/fs/cgroup"
        return Row("cgroup2", "degraded", "not mounted: DNS lookups are not seen", todo)
    version1 = features.cgroup_v1_memory_mount()
    beside = f"; containers are identified by v1 at {version1}" if version1 else ""
    return Row("cgroup2", "ok", f"{mount}{beside}")


def _tracefs() -> Row:
    mount = features.tracefs_mount()
    # None of the ways in use needs it; a user's own probe or an older kernel may.
    return Row("tracefs", "ok", str(mount) if mount else "not mounted; no probe in use needs it")


def _other_agent() -> Row:
    name = only_one.name_of_instance(os.environ)
    if not running(name, OPEN_SOCKETS.read_text()):
        return Row("other agents", "ok", "none on this node")
    what = f"one (pid {only_one.holder(name) or 'unknown'}) runs here, and a second one would not start"
    return Row("other agents", "degraded", what, "stop it before you start another")


def running(name: str, sockets: str) -> bool:
    """Whether an agent holds the abstract *name*, from the text of /proc/net/unix: to try to take it disturbs a start."""
    shown = f"@{name[1:]}"
    return any(line.endswith(f" {shown}") for line in sockets.splitlines())


def _exporter_row(config: Config, name: str) -> Row:
    subject = f"exporter {name}"
    try:
        reachable, sentence = export.probe(name, config.exporters[name])
    except ConfigError as error:
        return Row(subject, "failed", str(error), vital=True)
    return Row(subject, "ok" if reachable else "degraded", sentence)


def _kubernetes_rows(config: Config) -> Iterator[Row]:
    """Whether the API server lets us watch what we need; one row a kind of object that it does not."""
    found = list(kubernetes.examine(config.kubernetes, os.environ, platform.node()))
    if not found:
        yield Row("kubernetes", "ok", "not asked: neither in a pod nor with a kubeconfig")
    for name, refused, what in found:
        if refused:
            yield Row(f"kubernetes {name}", "degraded", what, kubernetes.HOW_TO_ALLOW)
        else:
            yield Row(f"kubernetes {name}", "ok", what)
    if found:
        yield _tracking_row()
    for state in kubernetes.read_told(health.ask(config.health.endpoint, "/kubernetes")):
        if not state.answered:
            yield Row(f"agent's {state.name}", "degraded", _outage(state), kubernetes.HOW_TO_ALLOW)


def _tracking_row() -> Row:
    why = kubernetes.untracked()
    if why:
        what = f"{why}; services are named, but not the pods behind them"
        return Row("connection tracking", "degraded", what, kubernetes.HOW_TO_TRACK)
    return Row("connection tracking", "ok", "tells of connections to services")


def _outage(state: WatchState) -> str:
    """Since when, and why, the agent that runs here is not answered."""
    if not state.since_ns:
        return "the agent that runs here has had no answer yet"
    since = datetime.fromtimestamp(state.since_ns // 10**9, UTC)
    return f"the agent that runs here has had no answer since {since:%Y-%m-%d %H:%M:%S} UTC: {state.reason}"


def _probe_report(probe: Probe, config: Config) -> ProbeReport:
    try:
        with attach(probe, config) as attached:
            return _of_attached(attached, _other_ways(probe, config, attached))
    except CannotRun as error:
        return ProbeReport(probe.name, "failed", None, {}, [], {"object": str(error)}, "", 0, 0, 0.0)


def _other_ways(probe: Probe, config: Config, attached: AttachedProbe) -> dict[str, str | None]:
    """Each way but the one in use → why not; those before it were tried already, those after it are tried now."""
    if len(probe.ways) == 1 and attached.way is None:
        return {probe.ways[0].name: attached.refused[-1].reason}
    if len(probe.ways) == 1:
        return {}
    used = attached.way.name if attached.way else None
    return {name: reason for name, reason in examine(probe, config).items() if name != used}


def _of_attached(attached: AttachedProbe, others: dict[str, str | None]) -> ProbeReport:
    state: dict[str, State] = {"attached": "ok", "degraded": "degraded", "failed": "failed"}
    return ProbeReport(
        name=attached.probe.name,
        state=state[attached.state],
        way=attached.way.name if attached.way else None,
        ways=others,
        lost=list(attached.lost),
        refused={refusal.what: refusal.reason for refusal in attached.refused if not refusal.what.startswith("way ")},
        instead=_instead(attached),
        memory_bytes=attached.object.memory_bytes() if attached.object else 0,
        ring_bytes=attached.object.map("events").max_entries if attached.object else 0,
        attach_ms=round(attached.seconds * 1000, 1),
    )


def _instead(attached: AttachedProbe) -> str:
    walk = attached.walk
    return f"{walk.program} instead, which does not see {walk.misses}" if walk and walk.misses else ""


def _memory_row(probes: list[ProbeReport]) -> Row:
    rings = sum(probe.ring_bytes for probe in probes)
    maps = sum(probe.memory_bytes for probe in probes)
    return Row("memory", "ok", f"{size_text(maps)} of maps and programs in the kernel, {size_text(rings)} of it rings")


def _limits_row(config: Config) -> Row:
    least = min((bound.limit_bytes for bound in memory.bounds(config)), default=None)
    cores = cpu.budget(config)
    of_memory = "memory: none" if least is None else f"memory: {size_text(least)}"
    of_cpu = "CPU: none" if cores is None else f"CPU: {cores:.2g} of a core" if cores < 1 else f"CPU: {cores:.2g} cores"
    if least is not None and least < memory.NEEDED_BYTES:
        needed = size_text(memory.NEEDED_BYTES)
        return Row("limits", "degraded", f"{of_memory}, too little for log records; give it {needed} or more")
    return Row("limits", "ok", f"{of_memory}; {of_cpu}")
