"""What signals cost: a log record, a row in the metrics, an export of 100,000 series; the SDK in the same run.

Run: python -m tests.bench.bench_signals
CPU time of the process, the best of several passes; memory is what tracemalloc sees beyond the series themselves.
"""

from __future__ import annotations

import time
import tracemalloc
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otelbpf.batch import Categorical
from otelbpf.signals.logs import Logs
from otelbpf.signals.metrics import Metrics
from tests.unit.signals import oracle, sample

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otelbpf.batch import Batch

ROWS = 2000


def best_s(action: Callable[[], Any], passes: int) -> float:
    """CPU seconds of the quickest of some passes: others use this machine too."""
    taken = []
    for _ in range(passes):
        began = time.process_time()
        action()
        taken.append(time.process_time() - began)
    return min(taken)


def closed_connections(rows: int, things: sample.Things, *, optional: bool) -> Batch:
    batch = sample.batch(rows, 1, things, optional=optional)
    batch.columns["closed"][:] = True  # type: ignore[index]
    batch.columns["failed"][:] = False  # type: ignore[index]
    return batch


def sdk_records(batch: Batch) -> Sequence[Any]:
    """The same records as the SDK holds them."""

    event = sample.PROBE.events[0]
    scope = InstrumentationScope("otelbpf.tcp", "0.1.0")
    things = batch.things("resource")
    resources = [Resource(dict(facts)) for facts in things.values]
    return [
        ReadableLogRecord(
            LogRecord(
                timestamp=int(batch.number("time_ns")[row]) + batch.clock_offset_ns,
                observed_timestamp=time.time_ns(),
                severity_number=SeverityNumber.INFO,
                body=body,
                attributes=oracle.attributes_of(event.attributes, batch, row, legacy=True),
                event_name=str(event.name),
            ),
            resources[things.codes[row]],
            scope,
        )
        for row, body in enumerate(event.body(batch))
    ]


def sdk_emit(batch: Batch) -> Callable[[], Any]:
    """The SDK from the call of the application on: emit and export of what it was given."""

    provider = LoggerProvider(shutdown_on_exit=False)
    exporter = InMemoryLogRecordExporter()
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    logger = provider.get_logger("otelbpf.tcp", "0.1.0")
    records = [item.log_record for item in sdk_records(batch)]

    def emit() -> None:
        for record in records:
            logger.emit(
                LogRecord(
                    timestamp=record.timestamp,
                    observed_timestamp=record.observed_timestamp,
                    severity_number=record.severity_number,
                    body=record.body,
                    attributes=record.attributes,
                    event_name=record.event_name,
                )
            )
        exporter.clear()

    return emit


def bench_logs() -> None:
    things = sample.Things(resources=50, peers=500)
    engine = Logs(sample.config(), [sample.PROBE])
    full = closed_connections(ROWS, things, optional=False)
    mixed = closed_connections(ROWS, things, optional=True)
    few = closed_connections(5, things, optional=True)
    size = sum(len(request.body) for request in engine.encode(full)) / ROWS
    records = sdk_records(full)
    attributes = np.mean([len(item.log_record.attributes or {}) for item in records]) + 1
    print(f"TCP closed record: {attributes:.1f} attributes, {size:.0f} B, batch of {ROWS}, 50 resources, 500 peers")
    emit = sdk_emit(full)
    actions: dict[str, tuple[Callable[[], Any], int]] = {
        "its body alone": (lambda: list(sample.body(full)), ROWS),
        "encoded, all numbers known": (lambda: list(engine.encode(full)), ROWS),
        "encoded, one in ten unknown": (lambda: list(engine.encode(mixed)), ROWS),
        "encoded, batch of 5": (lambda: list(engine.encode(few)), 5),
        "SDK: encode and serialise": (lambda: encode_logs(records).SerializeToString(), ROWS),
        "SDK: emit to a processor": (emit, ROWS),
    }
    best = dict.fromkeys(actions, float("inf"))
    for _ in range(8):  # in turns, so that what else the machine does meets all alike
        for label, (action, rows) in actions.items():
            best[label] = min(best[label], best_s(action, 1 if label.startswith("SDK") else 3) / rows * 1e6)
    for label, taken in best.items():
        print(f"  {label:35} {taken:7.2f} µs")
    ours, theirs = best["encoded, all numbers known"], best["SDK: encode and serialise"]
    print(
        f"  SDK / otelbpf:                      {theirs / ours:.0f} times to encode; {(theirs + best['SDK: emit to a processor']) / ours:.0f} with emit"
    )


def bench_update() -> None:
    things = sample.Things(resources=50, peers=500)
    engine = Metrics(sample.config(metrics_max_series=100_000), [sample.PROBE])
    print(f"metrics update, {len(sample.METRICS)} series tables of a TCP probe, 50 resources")
    for rows, peers in ((2000, 40), (2000, 500), (100, 500), (5, 500)):
        things = sample.Things(resources=50, peers=peers)
        batch = sample.batch(rows, 1, things)
        engine.update(batch)
        taken = best_s(lambda batch=batch: engine.update(batch), 30)  # type: ignore[misc]
        edges = len(np.unique(batch.things("edge").codes * 50 + batch.things("resource").codes))
        label = f"batch of {rows}, {edges} edges"
        print(f"  {label:35} {taken / rows * 1e6:7.2f} µs a row, {taken * 1e3:.2f} ms a batch")


def many_series(series: int, resources: int) -> Batch:
    """A batch in which every row is another edge."""
    batch = sample.batch(series)
    values = [sample.resource(number) for number in range(resources)]
    batch.columns["resource"] = Categorical(np.arange(series) % resources, values)
    batch.columns["edge"] = Categorical(np.arange(series), [sample.edge(number) for number in range(series)])
    return batch


def bench_export(label: str, metrics: Sequence[Any], batch: Batch) -> None:
    probe = replace(sample.PROBE, metrics=tuple(metrics))
    engine = Metrics(sample.config(metrics_max_series=100_000), [probe])
    engine.update(batch)
    count = sum(engine.series().values())
    size = points = 0

    def export() -> None:
        nonlocal size, points
        size = points = 0
        for request in engine.collect(time.time_ns()):
            size += len(request.body)
            points += request.items

    first_s = best_s(export, 1)
    taken = best_s(export, 5)
    tracemalloc.start()
    export()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(
        f"  {label:35} {count:7} series {taken * 1e3:6.1f} ms (first {first_s * 1e3:.1f}), "
        f"{size / 1e6:.1f} MB, {size / points:.0f} B a point, peak {peak / 1e6:.1f} MB"
    )


def bench_memory() -> None:
    batch = many_series(20_000, 50)
    tracemalloc.start()
    engine = Metrics(sample.config(metrics_max_series=100_000), [sample.PROBE])
    engine.update(batch)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    count = sum(engine.series().values())
    print(f"  memory of series:                   {held / count:.0f} B each, of {count} on {len(batch)} edges")


def bench_exports() -> None:
    print("export of metrics, a request at a time")
    counter, histogram = sample.METRICS[3], replace(sample.METRICS[8], by=sample.E, when=None)
    bench_export("counters, 50 resources", [counter], many_series(100_000, 50))
    bench_export("counters, 2,000 resources", [counter], many_series(100_000, 2000))
    bench_export("histograms of 16 buckets", [histogram], many_series(100_000, 50))
    bench_export("all metrics of the TCP probe", sample.METRICS, many_series(22_000, 50))
    bench_memory()


if __name__ == "__main__":
    bench_logs()
    bench_update()
    bench_exports()
