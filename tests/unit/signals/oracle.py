"""The same signals the slow and obvious way: row by row, with opentelemetry-proto's own objects."""

from __future__ import annotations

import ipaddress
from bisect import bisect_left
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from otelbpf.batch import Batch, Categorical
from otelbpf.probes.probe import Address, Choice, Constant, Counter, Hex, Histogram, Known, Level, Number
from otelbpf.signals import names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from otelbpf.export.request import Request
    from otelbpf.probes.probe import Attribute, Event, Metric, Probe

Attributes = dict[str, Any]
ANY = ipaddress.IPv4Address(0)


def any_value(value: Any) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, str):
        return AnyValue(string_value=value)
    message = AnyValue()
    message.array_value.values.extend(any_value(item) for item in value)
    return message


def python_value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [python_value(item) for item in value.array_value.values]
    return getattr(value, kind)


def plain(attributes: Iterable[KeyValue]) -> Attributes:
    """Attributes as a dict; an attribute that is there twice is an error."""
    result: Attributes = {}
    for attribute in attributes:
        assert attribute.key not in result, f"{attribute.key} is there twice"
        result[attribute.key] = python_value(attribute.value)
    return result


def attributes_of(declared: Iterable[Attribute], batch: Batch, row: int, *, legacy: bool) -> Attributes:
    """What row *row* says, by the declaration."""
    said: Attributes = {}
    for attribute in declared:
        for name, value in _said(attribute, batch, row):
            if value is None or value in ("", []) or (name in names.LEGACY_ONLY and not legacy):
                continue
            said[str(name)] = value
            if legacy and name in names.LEGACY:
                older = names.LEGACY[name]
                said[str(older)] = names.LEGACY_VALUES.get(older, {}).get(value, value)
    return said


def _said(attribute: Attribute, batch: Batch, row: int) -> Iterator[tuple[str, Any]]:
    match attribute:
        case Constant(name, value):
            yield name, value
        case Choice(name, column, values):
            yield name, values.get(int(batch.number(column)[row]))
        case Hex(name, column):
            text = bytes(batch.number(column)[row]).hex()
            yield name, text if text.strip("0") else None
        case Address(name, column):
            address = ipaddress.IPv6Address(bytes(batch.number(column)[row]))
            yield (
                name,
                None if address.is_unspecified or address.ipv4_mapped == ANY else str(address.ipv4_mapped or address),
            )
        case Number(name, column, scale, absent):
            raw = batch.number(column)[row]
            if absent is None or raw != absent:
                yield name, int(raw) if scale is None else float(raw) / round(1 / scale)
        case Known(column, chosen):
            things = batch.columns.get(column)
            if isinstance(things, Categorical):
                facts = things.values[things.codes[row]]
                for name in chosen:
                    yield name, facts.get(name)


def record(event: Event, batch: Batch, row: int, body: str, now_ns: int, *, legacy: bool) -> LogRecord:
    made = LogRecord(
        time_unix_nano=int(batch.number("time_ns")[row]) + batch.clock_offset_ns,
        observed_time_unix_nano=now_ns,
        event_name=str(event.name),
        severity_number=9,  # type: ignore[arg-type]
        body=any_value(body),
    )
    if event.failed and batch.number(event.failed)[row]:
        made.severity_number = 13  # type: ignore[assignment]
    if event.error and batch.number(event.error)[row]:
        made.severity_number = 17  # type: ignore[assignment]
    if event.trace_id:
        identity = bytes(batch.number(event.trace_id)[row])
        made.trace_id = identity if any(identity) else b""
    said = {"otel.event.name": str(event.name), **attributes_of(event.attributes, batch, row, legacy=legacy)}
    made.attributes.extend(KeyValue(key=key, value=any_value(value)) for key, value in said.items())
    return made


def log_records(probe: Probe, batch: Batch, now_ns: int, *, legacy: bool = True) -> list[tuple[str, str]]:
    """(resource, record) of every record of *batch*, as texts that can be compared, sorted."""
    found = []
    for event in probe.events:
        chosen = np.flatnonzero(batch.number(event.when)) if event.when else np.arange(len(batch))
        bodies = list(event.body(batch.select(chosen)))
        for row, body in zip(chosen.tolist(), bodies, strict=True):
            made = record(event, batch, row, body, now_ns, legacy=legacy)
            things = batch.things("resource")
            found.append((repr(sorted(things.values[things.codes[row]].items())), comparable(made)))
    return sorted(found)


def comparable(made: LogRecord) -> str:
    """A record as text, in which the order of attributes means nothing."""
    said = sorted(plain(made.attributes).items())
    rest = LogRecord()
    rest.CopyFrom(made)
    del rest.attributes[:]
    return f"{rest} {said}"


def parsed_logs(requests: Iterable[Request]) -> list[tuple[str, str]]:
    """The same of encoded requests; asserts what must hold of every request."""
    found = []
    for request in requests:
        message = ExportLogsServiceRequest.FromString(request.body)
        assert request.signal == "logs"
        assert len(request.body) < 4 * 2**20
        resources = [repr(sorted(plain(item.resource.attributes).items())) for item in message.resource_logs]
        assert len(set(resources)) == len(resources), "two ResourceLogs of one resource in a request"
        records = []
        for resource, logs in zip(resources, message.resource_logs, strict=True):
            assert logs.schema_url == names.SCHEMA_URL
            for scope in logs.scope_logs:
                assert scope.schema_url == names.SCHEMA_URL
                assert scope.scope.name.startswith("otelbpf.")
                assert scope.scope.version
                records += [(resource, item) for item in scope.log_records]
        assert request.items == len(records)
        assert request.oldest_ns == min(item.time_unix_nano for _, item in records)
        found += [(resource, comparable(item)) for resource, item in records]
    return sorted(found)


Series = tuple[str, str, str]
"""Resource, metric and attributes, as texts."""


class MetricsOracle:
    """Adds up points in plain dicts, one row and one metric at a time. Knows neither caps nor ageing."""

    def __init__(self, probe: Probe) -> None:
        self._metrics = probe.metrics
        self.sums: dict[Series, int] = {}
        self.histograms: dict[Series, list[float]] = {}
        self.levels: dict[Series, int] = {}

    def update(self, batch: Batch) -> None:
        if batch.snapshot:
            self.levels = dict.fromkeys(self.levels, 0)
        for metric in self._metrics:
            if isinstance(metric, Level) and not batch.snapshot:
                continue
            for row in range(len(batch)):
                if metric.when is None or batch.number(metric.when)[row]:
                    self._take(metric, batch, row)

    def _take(self, metric: Metric, batch: Batch, row: int) -> None:
        things = batch.things("resource")
        facts = things.values[things.codes[row]]
        resource = {key: value for key, value in facts.items() if key not in names.RUN_ONLY}
        said = attributes_of(metric.by, batch, row, legacy=False)
        key = (repr(sorted(resource.items())), str(metric.name), repr(sorted(said.items())))
        match metric:
            case Counter(_, column):
                self.sums[key] = self.sums.get(key, 0) + (1 if column is None else int(batch.number(column)[row]))
            case Level():
                self.levels[key] = self.levels.get(key, 0) + 1
            case Histogram(name, column, scale):
                value = float(batch.number(column)[row]) / round(1 / scale)
                counts = self.histograms.setdefault(key, [0.0] * (len(name.bounds) + 2))
                counts[bisect_left(name.bounds, value)] += 1
                counts[-1] += value


Points = dict[Series, Any]


def parsed_metrics(requests: Iterable[Request]) -> Points:
    """The points of encoded requests; asserts what must hold of every request."""
    found: Points = {}
    for request in requests:
        message = ExportMetricsServiceRequest.FromString(request.body)
        assert request.signal == "metrics"
        assert len(request.body) < 4 * 2**20
        resources = [repr(sorted(plain(item.resource.attributes).items())) for item in message.resource_metrics]
        assert len(set(resources)) == len(resources), "two ResourceMetrics of one resource in a request"
        items = 0
        for resource, metrics in zip(resources, message.resource_metrics, strict=True):
            assert metrics.schema_url == names.SCHEMA_URL
            assert len({scope.scope.name for scope in metrics.scope_metrics}) == len(metrics.scope_metrics)
            for scope in metrics.scope_metrics:
                assert scope.schema_url == names.SCHEMA_URL
                assert len({metric.name for metric in scope.metrics}) == len(scope.metrics)
                for metric in scope.metrics:
                    points = metric.sum.data_points or metric.histogram.data_points
                    items += len(points)
                    for point in points:
                        key = (resource, metric.name, repr(sorted(plain(point.attributes).items())))
                        assert key not in found, f"{key} is there twice"
                        assert point.start_time_unix_nano
                        found[key] = point
        assert request.items == items
    return found


def assert_same(points: Points, reference: MetricsOracle, *, vanished_levels: bool = False) -> None:
    """*points* are exactly those of *reference*; with *vanished_levels* there may be more levels, of 0."""
    expected = reference.sums | reference.levels | reference.histograms
    more = points.keys() - expected.keys()
    assert all(vanished_levels and points[key].as_int == 0 for key in more)
    assert expected.keys() <= points.keys()
    for key, value in (reference.sums | reference.levels).items():
        assert points[key].as_int == value
    for key, counts in reference.histograms.items():
        assert list(points[key].bucket_counts) == counts[:-1]
        assert points[key].count == sum(counts[:-1])
        assert points[key].sum == pytest.approx(counts[-1])
