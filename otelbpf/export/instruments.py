"""The agent's own metrics: which number goes under which name, with which attributes."""

from __future__ import annotations

import time
from collections import Counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from otelbpf.signals import names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from otelbpf.export.numbers import AgentNumbers, OwnProcess
    from otelbpf.signals.name import MetricName

Observed = tuple[float, dict[str, str]]

EXPORTED = {
    "logs": names.METRIC_OTEL_SDK_EXPORTER_LOG_EXPORTED,
    "metrics": names.METRIC_OTEL_SDK_EXPORTER_METRIC_DATA_POINT_EXPORTED,
    "traces": names.METRIC_OTEL_SDK_EXPORTER_SPAN_EXPORTED,
}
INFLIGHT = {
    "logs": names.METRIC_OTEL_SDK_EXPORTER_LOG_INFLIGHT,
    "metrics": names.METRIC_OTEL_SDK_EXPORTER_METRIC_DATA_POINT_INFLIGHT,
    "traces": names.METRIC_OTEL_SDK_EXPORTER_SPAN_INFLIGHT,
}


class Reading(NamedTuple):
    """What is read once for each collection, so that the ledgers balance in every export."""

    agent: AgentNumbers
    process: OwnProcess
    components: Mapping[str, str]
    """Exporter → otel.component.type."""
    reloads: Mapping[str, int] = MappingProxyType({"": 0})
    """What was wrong, empty for nothing → configurations that were read again."""


def all_instruments() -> Iterator[tuple[MetricName, Callable[[Reading], Iterable[Observed]]]]:
    """Every metric with the function that gives its points."""
    yield names.METRIC_OTELBPF_AGENT_KERNEL_EVENTS, kernel_events
    yield names.METRIC_OTELBPF_AGENT_EVENTS, events
    yield names.METRIC_OTELBPF_AGENT_PENDING, pending
    for signal, metric in EXPORTED.items():
        yield metric, _of_signal(exported, signal)
        yield INFLIGHT[signal], _of_signal(inflight, signal)
    yield names.METRIC_OTELBPF_AGENT_QUEUE_SIZE, queue_size
    yield names.METRIC_OTELBPF_AGENT_QUEUE_CAPACITY, queue_capacity
    yield names.METRIC_OTELBPF_AGENT_QUEUE_AGE, queue_age
    yield names.METRIC_OTELBPF_AGENT_SPOOL_SIZE, spool_size
    yield names.METRIC_OTELBPF_AGENT_SPOOL_CAPACITY, spool_capacity
    yield names.METRIC_OTELBPF_AGENT_SPOOL_AGE, spool_age
    yield names.METRIC_OTELBPF_AGENT_PROBE_STATUS, probe_status
    yield names.METRIC_OTELBPF_AGENT_PROBE_RUN_TIME, probe_run_time
    yield names.METRIC_OTELBPF_AGENT_PROBE_RUNS, probe_runs
    yield names.METRIC_OTELBPF_AGENT_MAP_ENTRIES, map_entries
    yield names.METRIC_OTELBPF_AGENT_MAP_CAPACITY, map_capacity
    yield names.METRIC_OTELBPF_AGENT_MAP_OVERFLOWS, map_overflows
    yield names.METRIC_OTELBPF_AGENT_ENRICHMENT_LOOKUPS, enrichment_lookups
    yield names.METRIC_OTELBPF_AGENT_SERIES, series
    yield names.METRIC_OTELBPF_AGENT_SERIES_OVERFLOW, series_overflow
    yield names.METRIC_OTELBPF_AGENT_LOG_RECORDS, log_records
    yield names.METRIC_OTELBPF_AGENT_GUARD_STEP, guard_step
    yield names.METRIC_OTELBPF_AGENT_GUARD_STEPS, guard_steps
    yield names.METRIC_OTELBPF_AGENT_GUARD_USAGE, guard_usage
    yield names.METRIC_OTELBPF_AGENT_STAGE_STATUS, stage_status
    yield names.METRIC_OTELBPF_AGENT_STAGE_OVERDUE, stage_overdue
    yield names.METRIC_OTELBPF_AGENT_HOLD_ROWS, hold_rows
    yield names.METRIC_OTELBPF_AGENT_WATCH_STATUS, watch_status
    yield names.METRIC_OTELBPF_AGENT_WATCH_OUTAGE, watch_outage
    yield names.METRIC_OTELBPF_AGENT_WATCH_OBJECTS, watch_objects
    yield names.METRIC_OTELBPF_AGENT_WATCH_UNDECODABLE, watch_undecodable
    yield names.METRIC_OTELBPF_AGENT_NAT_ENTRIES, nat_entries
    yield names.METRIC_OTELBPF_AGENT_NAT_OVERFLOWS, nat_overflows
    yield names.METRIC_OTELBPF_AGENT_CONFIG_RELOADS, config_reloads
    yield names.METRIC_PROCESS_CPU_TIME, cpu_time
    yield names.METRIC_PROCESS_MEMORY_USAGE, memory_usage
    yield names.METRIC_PROCESS_UNIX_FILE_DESCRIPTOR_COUNT, descriptors


def config_reloads(reading: Reading) -> Iterator[Observed]:
    for wrong, count in reading.reloads.items():
        yield count, {names.ERROR_TYPE: wrong} if wrong else {}


def kernel_events(reading: Reading) -> Iterator[Observed]:
    for probe, ledger in reading.agent.events.items():
        yield ledger.seen, {names.OTELBPF_PROBE_NAME: probe}


def events(reading: Reading) -> Iterator[Observed]:
    for probe, ledger in reading.agent.events.items():
        for outcome in ("processed", "filtered", "throttled", "undecodable"):
            yield getattr(ledger, outcome), {names.OTELBPF_PROBE_NAME: probe, names.OTELBPF_EVENT_OUTCOME: outcome}
        for reason, count in ledger.lost.items():
            yield (
                count,
                {
                    names.OTELBPF_PROBE_NAME: probe,
                    names.OTELBPF_EVENT_OUTCOME: "lost",
                    names.ERROR_TYPE: reason,
                },
            )


def pending(reading: Reading) -> Iterator[Observed]:
    for probe, ledger in reading.agent.events.items():
        yield ledger.pending, {names.OTELBPF_PROBE_NAME: probe}


def exported(reading: Reading, signal: str) -> Iterator[Observed]:
    for (exporter, of_signal), ledger in reading.agent.records.items():
        if of_signal == signal:
            component = _component(reading, exporter)
            yield ledger.accepted, component
            for reason, count in ({"rejected": ledger.rejected} | dict(ledger.dropped)).items():
                yield count, component | {names.ERROR_TYPE: reason}


def inflight(reading: Reading, signal: str) -> Iterator[Observed]:
    """By the registry: given to the exporter and without an outcome, so those that wait too, also on disk."""
    for (exporter, of_signal), ledger in reading.agent.records.items():
        if of_signal == signal:
            yield ledger.queued + ledger.spooled, _component(reading, exporter)


def queue_size(reading: Reading) -> Iterator[Observed]:
    for (exporter, signal), size in reading.agent.queues.items():
        yield size.size_bytes, {names.OTELBPF_QUEUE_NAME: f"{exporter}/{signal}"}


def queue_capacity(reading: Reading) -> Iterator[Observed]:
    for (exporter, signal), size in reading.agent.queues.items():
        yield size.capacity_bytes, {names.OTELBPF_QUEUE_NAME: f"{exporter}/{signal}"}


def queue_age(reading: Reading) -> Iterator[Observed]:
    """0 while nothing waits, as `spool_age`."""
    for (exporter, signal), size in reading.agent.queues.items():
        yield _age_s(size.oldest_ns), {names.OTELBPF_QUEUE_NAME: f"{exporter}/{signal}"}


def spool_size(reading: Reading) -> Iterator[Observed]:
    for exporter, size in reading.agent.spools.items():
        yield size.size_bytes, {names.OTELBPF_QUEUE_NAME: exporter}


def spool_capacity(reading: Reading) -> Iterator[Observed]:
    for exporter, size in reading.agent.spools.items():
        yield size.capacity_bytes, {names.OTELBPF_QUEUE_NAME: exporter}


def spool_age(reading: Reading) -> Iterator[Observed]:
    """0 while nothing is on disk: a line that ends would look like an agent that ended."""
    for exporter, size in reading.agent.spools.items():
        yield _age_s(size.oldest_ns), {names.OTELBPF_QUEUE_NAME: exporter}


def _age_s(since_ns: int | None) -> float:
    return 0.0 if since_ns is None else max(0.0, (time.time_ns() - since_ns) / 1e9)


def probe_status(reading: Reading) -> Iterator[Observed]:
    for probe, way, state in reading.agent.statuses:
        attributes: dict[str, str] = {names.OTELBPF_PROBE_NAME: probe, names.OTELBPF_PROBE_STATE: state}
        yield 1, attributes | ({names.OTELBPF_PROBE_WAY: way} if way else {})


def probe_run_time(reading: Reading) -> Iterator[Observed]:
    for probe, (nanoseconds, _) in reading.agent.run_times.items():
        yield nanoseconds / 1e9, {names.OTELBPF_PROBE_NAME: probe}


def probe_runs(reading: Reading) -> Iterator[Observed]:
    for probe, (_, runs) in reading.agent.run_times.items():
        yield runs, {names.OTELBPF_PROBE_NAME: probe}


def map_entries(reading: Reading) -> Iterator[Observed]:
    for name, (entries, _) in reading.agent.maps.items():
        yield entries, {names.OTELBPF_MAP_NAME: name}


def map_capacity(reading: Reading) -> Iterator[Observed]:
    for name, (_, capacity) in reading.agent.maps.items():
        yield capacity, {names.OTELBPF_MAP_NAME: name}


def map_overflows(reading: Reading) -> Iterator[Observed]:
    for name, events_ in reading.agent.overflows.items():
        yield events_, {names.OTELBPF_MAP_NAME: name}


def enrichment_lookups(reading: Reading) -> Iterator[Observed]:
    for cache, (hits, misses, evictions, _) in reading.agent.caches.items():
        for result, count in (("hit", hits), ("miss", misses), ("evicted", evictions)):
            yield count, {names.OTELBPF_CACHE_NAME: cache, names.OTELBPF_CACHE_RESULT: result}


def series(reading: Reading) -> Iterator[Observed]:
    for metric, count in reading.agent.series.items():
        yield count, {names.OTELBPF_METRIC_NAME: metric}


def series_overflow(reading: Reading) -> Iterator[Observed]:
    for metric, count in reading.agent.series_overflows.items():
        yield count, {names.OTELBPF_METRIC_NAME: metric}


def log_records(reading: Reading) -> Iterator[Observed]:
    for probe, detail in reading.agent.details.items():
        of_probe: dict[str, str] = {names.OTELBPF_PROBE_NAME: probe}
        yield detail.made, of_probe | {names.OTELBPF_RECORD_OUTCOME: "made"}
        for limit, count in detail.shed.items():
            yield count, of_probe | {names.OTELBPF_RECORD_OUTCOME: "shed", names.ERROR_TYPE: limit}


def guard_step(reading: Reading) -> Iterator[Observed]:
    for guard in reading.agent.guards:
        yield guard.level, {names.OTELBPF_GUARD_NAME: guard.name}


def guard_steps(reading: Reading) -> Iterator[Observed]:
    for guard in reading.agent.guards:
        for direction, count in (("down", guard.downs), ("up", guard.ups)):
            yield count, {names.OTELBPF_GUARD_NAME: guard.name, names.OTELBPF_GUARD_DIRECTION: direction}


def guard_usage(reading: Reading) -> Iterator[Observed]:
    for guard in reading.agent.guards:
        yield guard.used, {names.OTELBPF_GUARD_NAME: guard.name}


def stage_status(reading: Reading) -> Iterator[Observed]:
    """Exporters may have several threads of one name."""
    threads = Counter((one.stage, one.state) for one in reading.agent.stages)
    for (stage, state), count in threads.items():
        yield count, {names.OTELBPF_STAGE_NAME: stage, names.OTELBPF_STAGE_STATE: state}


def stage_overdue(reading: Reading) -> Iterator[Observed]:
    longest: dict[str, float] = {}
    for one in reading.agent.stages:
        longest[one.stage] = max(longest.get(one.stage, 0.0), one.overdue_s)
    for stage, seconds in longest.items():
        yield seconds, {names.OTELBPF_STAGE_NAME: stage}


def hold_rows(reading: Reading) -> Iterator[Observed]:
    for outcome, count in reading.agent.held.items():
        yield count, {names.OTELBPF_HOLD_OUTCOME: outcome}


def watch_status(reading: Reading) -> Iterator[Observed]:
    for watch in reading.agent.watches:
        state = "answered" if watch.answered else "unanswered"
        yield 1, {names.OTELBPF_WATCH_NAME: watch.name, names.OTELBPF_WATCH_STATE: state}


def watch_outage(reading: Reading) -> Iterator[Observed]:
    now_ns = time.time_ns()
    for watch in reading.agent.watches:
        outage_ns = now_ns - watch.since_ns if watch.since_ns else 0
        yield max(0.0, outage_ns / 1e9), {names.OTELBPF_WATCH_NAME: watch.name}


def watch_objects(reading: Reading) -> Iterator[Observed]:
    for watch in reading.agent.watches:
        yield watch.objects, {names.OTELBPF_WATCH_NAME: watch.name}


def watch_undecodable(reading: Reading) -> Iterator[Observed]:
    for watch in reading.agent.watches:
        yield watch.undecodable, {names.OTELBPF_WATCH_NAME: watch.name}


def nat_entries(reading: Reading) -> Iterator[Observed]:
    if reading.agent.nat is not None:
        yield reading.agent.nat[0], {}


def nat_overflows(reading: Reading) -> Iterator[Observed]:
    if reading.agent.nat is not None:
        yield reading.agent.nat[1], {}


def cpu_time(reading: Reading) -> Iterator[Observed]:
    yield reading.process.user_s, {names.CPU_MODE: "user"}
    yield reading.process.system_s, {names.CPU_MODE: "system"}


def memory_usage(reading: Reading) -> Iterator[Observed]:
    yield reading.process.resident_bytes, {}


def descriptors(reading: Reading) -> Iterator[Observed]:
    yield reading.process.descriptors, {}


def _of_signal(
    points: Callable[[Reading, str], Iterator[Observed]], signal: str
) -> Callable[[Reading], Iterator[Observed]]:
    return lambda reading: points(reading, signal)


def _component(reading: Reading, exporter: str) -> dict[str, str]:
    kind = reading.components.get(exporter, "")
    named: dict[str, str] = {names.OTEL_COMPONENT_NAME: exporter}
    return named | ({names.OTEL_COMPONENT_TYPE: kind} if kind else {})


def observe(meter: Any, metric: MetricName, callback: Callable[[Any], Iterable[Any]]) -> None:
    """Creates the observable instrument that *metric* is."""
    create = {
        "Counter": meter.create_observable_counter,
        "UpDownCounter": meter.create_observable_up_down_counter,
        "Gauge": meter.create_observable_gauge,
    }[metric.instrument]
    create(str(metric), [callback], unit=metric.unit, description=metric.description)
