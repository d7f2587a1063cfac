"""Log records and metrics as the agent sends them: its names, its scopes, what its probes declare, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    Sum,
)

from otelbpf.probes import PROBES
from otelbpf.probes.probe import Known
from otelbpf.signals import names

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otelbpf.probes.probe import Attribute, Event
    from otelbpf.signals.names import MetricName

CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
Attributes = dict[str, Any]


def keys(attributes: Iterable[Attribute]) -> set[str]:
    """The names that a declaration can give."""
    return {str(name) for one in attributes for name in (one.names if isinstance(one, Known) else (one.name,))}


EVENTS: dict[str, list[Event]] = {}
METRICS: dict[str, tuple[MetricName, set[str]]] = {}
for probe in PROBES:
    for event in probe.events:
        EVENTS.setdefault(str(event.name), []).append(event)
    for metric in probe.metrics:
        METRICS[str(metric.name)] = (
            metric.name,
            METRICS.get(str(metric.name), (None, set()))[1] | keys(metric.by),
        )


def values(attributes: Mapping[str, Any]) -> list[KeyValue]:
    """Attributes on the wire."""
    return [KeyValue(key=key, value=value_of(value)) for key, value in attributes.items()]


def value_of(value: Any) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, list):
        return AnyValue(array_value=ArrayValue(values=[value_of(one) for one in value]))
    return AnyValue(string_value=value)


def record(event: str, time_ns: int, attributes: Mapping[str, Any]) -> LogRecord:
    """One log record; a name that the event does not declare is a mistake of the test."""
    declared = set().union(*(keys(one.attributes) for one in EVENTS[event]))
    assert set(attributes) <= declared, set(attributes) - declared
    return LogRecord(
        time_unix_nano=time_ns,
        observed_time_unix_nano=time_ns,
        severity_number=13 if "error.type" in attributes else 9,
        event_name=event,
        body=AnyValue(string_value=f"{event} of the session"),
        attributes=values({**attributes, str(names.OTEL_EVENT_NAME): event}),
    )


def logs_request(resource: Mapping[str, Any], records: Iterable[LogRecord]) -> ExportLogsServiceRequest:
    """The records of one resource."""
    request = ExportLogsServiceRequest()
    group = request.resource_logs.add()
    group.resource.attributes.extend(values(resource))
    group.scope_logs.add(log_records=records)
    return request


def metrics_request(resource: Mapping[str, Any], metrics: Iterable[Metric]) -> ExportMetricsServiceRequest:
    """The metrics of one resource."""
    request = ExportMetricsServiceRequest()
    group = request.resource_metrics.add()
    group.resource.attributes.extend(values(resource))
    group.scope_metrics.add(metrics=metrics)
    return request


def counter(name: str, points: Iterable[tuple[Attributes, int]], start_ns: int, time_ns: int) -> Metric:
    """A counter's points at one moment."""
    known, declared = METRICS[name]
    found = [
        NumberDataPoint(
            attributes=values(checked(attributes, declared)),
            as_int=value, start_time_unix_nano=start_ns, time_unix_nano=time_ns,
        )
        for attributes, value in points
    ]  # fmt: skip
    total = Sum(data_points=found, aggregation_temporality=CUMULATIVE, is_monotonic=True)
    return Metric(name=name, unit=known.unit, sum=total)


def histogram(name: str, points: Iterable[tuple[Attributes, int, float]], start_ns: int, time_ns: int) -> Metric:
    """A histogram's points at one moment: each so many times the same value."""
    known, declared = METRICS[name]
    found = []
    for attributes, count, value in points:
        buckets = [0] * (len(known.bounds) + 1)
        buckets[sum(bound < value for bound in known.bounds)] = count
        found.append(
            HistogramDataPoint(
                attributes=values(checked(attributes, declared)), count=count, sum=count * value, bucket_counts=buckets,
                explicit_bounds=known.bounds, start_time_unix_nano=start_ns, time_unix_nano=time_ns,
            )
        )  # fmt: skip
    return Metric(
        name=name, unit=known.unit, histogram=Histogram(data_points=found, aggregation_temporality=CUMULATIVE)
    )


def checked(attributes: Attributes, declared: set[str]) -> Attributes:
    assert set(attributes) <= declared, set(attributes) - declared
    return attributes
