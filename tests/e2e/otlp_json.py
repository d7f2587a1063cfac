"""OTLP JSON, as the collector's file exporter writes it, as simple values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Value = str | int | float | bool | list[Any]
Attributes = dict[str, Value]


@dataclass(frozen=True)
class Record:
    """One log record as it arrived."""

    resource: Attributes
    scope: str
    event_name: str
    attributes: Attributes
    body: str
    severity: int
    time_ns: int
    observed_ns: int
    trace_id: str
    """32 hex digits, empty when the record has none."""

    def __getitem__(self, name: str) -> Value | None:
        """The attribute *name*, None when it was left out."""
        return self.attributes.get(name)


@dataclass(frozen=True)
class Point:
    """One data point. *value* is the sum of a histogram, whose *count* and *buckets* are given as well."""

    resource: Attributes
    metric: str
    unit: str
    kind: str
    """sum, gauge or histogram."""
    attributes: Attributes
    value: float
    count: int
    buckets: tuple[int, ...]
    bounds: tuple[float, ...]
    start_ns: int
    time_ns: int
    cumulative: bool
    monotonic: bool

    @property
    def series(self) -> tuple[Any, ...]:
        """What a point must share with another to belong to the same series."""
        return (self.metric, frozen(self.resource), frozen(self.attributes))


def frozen(attributes: Attributes) -> frozenset[tuple[str, str]]:
    """Attributes as something that can be a key."""
    return frozenset((name, repr(value)) for name, value in attributes.items())


def value(given: Mapping[str, Any]) -> Value:
    """An AnyValue; 64-bit integers come as text."""
    if "intValue" in given:
        return int(given["intValue"])
    if "arrayValue" in given:
        return [value(element) for element in given["arrayValue"].get("values", ())]
    for key in ("stringValue", "doubleValue", "boolValue"):
        if key in given:
            result: Value = given[key]
            return result
    return ""


def attributes(given: Sequence[Mapping[str, Any]]) -> Attributes:
    """A list of key-values; a key that comes twice is an error of the sender."""
    result: Attributes = {}
    for pair in given:
        if pair["key"] in result:
            raise ValueError(f"attribute {pair['key']} comes twice")
        result[pair["key"]] = value(pair["value"])
    return result


def records(request: Mapping[str, Any]) -> Iterator[Record]:
    """The log records of one ExportLogsServiceRequest."""
    for of_resource in request.get("resourceLogs", ()):
        resource = attributes(of_resource.get("resource", {}).get("attributes", ()))
        for of_scope in of_resource.get("scopeLogs", ()):
            for record in of_scope.get("logRecords", ()):
                yield Record(
                    resource=resource,
                    scope=of_scope.get("scope", {}).get("name", ""),
                    event_name=record.get("eventName", ""),
                    attributes=attributes(record.get("attributes", ())),
                    body=str(value(record.get("body", {}))),
                    severity=record.get("severityNumber", 0),
                    time_ns=int(record.get("timeUnixNano", 0)),
                    observed_ns=int(record.get("observedTimeUnixNano", 0)),
                    trace_id=record.get("traceId", ""),
                )


def points(request: Mapping[str, Any]) -> Iterator[Point]:
    """The data points of one ExportMetricsServiceRequest."""
    for of_resource in request.get("resourceMetrics", ()):
        resource = attributes(of_resource.get("resource", {}).get("attributes", ()))
        for of_scope in of_resource.get("scopeMetrics", ()):
            for metric in of_scope.get("metrics", ()):
                yield from points_of(resource, metric)


def points_of(resource: Attributes, metric: Mapping[str, Any]) -> Iterator[Point]:
    """The data points of one metric."""
    kind = next(kind for kind in ("sum", "gauge", "histogram", "exponentialHistogram", "summary") if kind in metric)
    data = metric[kind]
    for point in data.get("dataPoints", ()):
        number = point["asInt"] if "asInt" in point else point.get("asDouble", point.get("sum", 0))
        yield Point(
            resource=resource,
            metric=metric["name"],
            unit=metric.get("unit", ""),
            kind=kind,
            attributes=attributes(point.get("attributes", ())),
            value=float(number),
            count=int(point.get("count", 0)),
            buckets=tuple(int(count) for count in point.get("bucketCounts", ())),
            bounds=tuple(point.get("explicitBounds", ())),
            start_ns=int(point.get("startTimeUnixNano", 0)),
            time_ns=int(point.get("timeUnixNano", 0)),
            cumulative=data.get("aggregationTemporality", 2) == 2,
            monotonic=bool(data.get("isMonotonic", False)),
        )
