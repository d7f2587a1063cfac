"""Requests made by OpenTelemetry's own messages, numbered so that a test can say which ones arrived."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otelbpf.export.memory import decode_logs, decode_metrics
from otelbpf.export.request import Request

if TYPE_CHECKING:
    from collections.abc import Iterable

START_NS = 1_790_000_000_000_000_000


def log_request(count: int, first: int = 0, *, padding: int = 0) -> Request:
    """*count* log records whose bodies begin with ``record N``, N from *first* on; each longer by *padding* bytes."""
    message = ExportLogsServiceRequest()
    group = message.resource_logs.add()
    resource = group.resource.attributes.add()
    resource.key, resource.value.string_value = "service.name", "web"
    scope = group.scope_logs.add()
    scope.scope.name = "otelbpf.tcp"
    for number in range(first, first + count):
        record = scope.log_records.add()
        record.time_unix_nano = START_NS + number * 1_000_000
        record.event_name = "otelbpf.tcp.connection.closed"
        record.severity_number = 9
        record.body.string_value = f"record {number} " + "x" * padding
    return Request("logs", message.SerializeToString(), count, START_NS + first * 1_000_000)


def metric_request(count: int, first: int = 0) -> Request:
    """One counter with *count* points, whose values count up from *first*."""
    message = ExportMetricsServiceRequest()
    metric = message.resource_metrics.add().scope_metrics.add().metrics.add()
    metric.name = "otelbpf.tcp.connections"
    metric.sum.aggregation_temporality = 2
    metric.sum.is_monotonic = True
    for number in range(first, first + count):
        point = metric.sum.data_points.add()
        point.as_int, point.time_unix_nano, point.start_time_unix_nano = number, START_NS + 1, START_NS
        attribute = point.attributes.add()
        attribute.key, attribute.value.int_value = "server.port", number
    return Request("metrics", message.SerializeToString(), count, START_NS)


def numbers(bodies: Iterable[bytes]) -> list[int]:
    """The numbers of the log records in encoded requests, in order."""
    return [int(str(record.body).split()[1]) for body in bodies for record in decode_logs(body)]


def points(bodies: Iterable[bytes]) -> int:
    """How many points encoded requests hold."""
    return sum(1 for body in bodies for _ in decode_metrics(body))
