"""An exporter that keeps what it is given: for tests, ours and those of users."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from otelbpf.export.account import SignalLedger

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from otelbpf.export.keeper import SpoolSize
    from otelbpf.export.news import Watcher
    from otelbpf.export.queue import QueueSize
    from otelbpf.export.request import Request
    from otelbpf.pulse import Pulse

Value = str | bool | int | float | bytes | list[Any] | dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One log record as a reader sees it."""

    resource: dict[str, Value]
    scope: str
    event_name: str
    time_ns: int
    severity: int
    body: Value
    attributes: dict[str, Value]
    trace_id: str = ""


@dataclass(frozen=True, slots=True)
class Point:
    """One data point of one metric."""

    resource: dict[str, Value]
    metric: str
    unit: str
    attributes: dict[str, Value]
    start_ns: int
    time_ns: int
    value: float
    """A histogram's sum, else the number itself."""
    count: int | None = None
    bounds: tuple[float, ...] = ()
    buckets: tuple[int, ...] = ()


@dataclass(slots=True)
class Memory:
    """Takes every request at once; what came is in `requests`, decoded by `logs()` and `points()`."""

    name: str = "memory"
    component: str = "otelbpf_memory"
    watchers: list[Watcher] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def export(self, request: Request) -> None:
        with self._lock:
            self.requests.append(request)
        for watcher in self.watchers:
            watcher.acknowledged(self.name, request)

    def wait_for_room(self, request: Request) -> None:
        """There always is."""

    def keep_within(self, share: float, signals: Collection[str]) -> None:
        """Nothing waits here."""

    def begin_flush(self, deadline: float) -> None:
        pass

    def flush(self, deadline: float) -> bool:
        return True

    def ledger(self) -> dict[str, SignalLedger]:
        items: dict[str, int] = {}
        for request in self._taken():
            items[request.signal] = items.get(request.signal, 0) + request.items
        return {signal: SignalLedger(count, count, 0, {}, 0) for signal, count in items.items()}

    def sizes(self) -> dict[str, QueueSize]:
        return {}

    def pulses(self) -> list[Pulse]:
        """None: it has no thread."""
        return []

    def spool_size(self) -> SpoolSize | None:
        return None

    def logs(self) -> list[LogRecord]:
        """Every log record so far, in order."""
        return [record for request in self._taken() if request.signal == "logs" for record in decode_logs(request.body)]

    def points(self, metric: str | None = None) -> list[Point]:
        """Every data point so far, in order; those of one *metric* when it is named."""
        return [
            point
            for request in self._taken()
            if request.signal == "metrics"
            for point in decode_metrics(request.body)
            if metric in (None, point.metric)
        ]

    def _taken(self) -> list[Request]:
        with self._lock:
            return list(self.requests)


def decode_logs(body: bytes) -> Iterator[LogRecord]:
    """The records in an ExportLogsServiceRequest."""
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    for group in ExportLogsServiceRequest.FromString(body).resource_logs:
        resource = attributes(group.resource.attributes)
        for scope_logs in group.scope_logs:
            for record in scope_logs.log_records:
                yield LogRecord(
                    resource,
                    scope_logs.scope.name,
                    record.event_name,
                    record.time_unix_nano,
                    record.severity_number,
                    value(record.body),
                    attributes(record.attributes),
                    record.trace_id.hex(),
                )


def decode_metrics(body: bytes) -> Iterator[Point]:
    """The points in an ExportMetricsServiceRequest: sums, gauges and histograms."""
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    for group in ExportMetricsServiceRequest.FromString(body).resource_metrics:
        resource = attributes(group.resource.attributes)
        for scope_metrics in group.scope_metrics:
            for metric in scope_metrics.metrics:
                data = getattr(metric, metric.WhichOneof("data") or "gauge")
                for point in data.data_points:
                    yield _point(resource, metric, point)


def attributes(pairs: Any) -> dict[str, Value]:
    """KeyValue messages as a dictionary."""
    return {pair.key: value(pair.value) for pair in pairs}


def value(message: Any) -> Value:
    """An AnyValue message as a Python value; None when it holds nothing."""
    kind = message.WhichOneof("value")
    if kind is None:
        return None
    content = getattr(message, kind)
    if kind == "array_value":
        return [value(item) for item in content.values]
    if kind == "kvlist_value":
        return attributes(content.values)
    result: Value = content
    return result


def _point(resource: dict[str, Value], metric: Any, point: Any) -> Point:
    histogram = hasattr(point, "bucket_counts")
    return Point(
        resource,
        metric.name,
        metric.unit,
        attributes(point.attributes),
        point.start_time_unix_nano,
        point.time_unix_nano,
        point.sum if histogram else getattr(point, point.WhichOneof("value") or "as_int"),
        point.count if histogram else None,
        tuple(point.explicit_bounds) if histogram else (),
        tuple(point.bucket_counts) if histogram else (),
    )
