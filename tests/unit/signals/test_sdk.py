"""What we encode, held against what opentelemetry-sdk's own exporter sends for the same records and points."""

from __future__ import annotations

from typing import Any

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import NonRecordingSpan, SpanContext, set_span_in_context

from otelbpf import __version__
from otelbpf.probes.probe import Counter, Histogram
from otelbpf.signals import names
from otelbpf.signals.logs import Logs
from otelbpf.signals.metrics import Metrics
from tests.unit.signals import oracle, sample

NOW = 1_800_000_000_000_000_000


def test_log_records_are_what_the_sdk_sends():
    batch = sample.batch(60, seed=4)
    (ours,) = Logs(sample.config(), [sample.PROBE], lambda: NOW).encode(batch)
    theirs = encode_logs(list(sdk_records(batch)))
    assert log_messages(ExportLogsServiceRequest.FromString(ours.body)) == log_messages(theirs)


def sdk_records(batch):
    scope = InstrumentationScope(names.SCOPE_TCP, __version__, names.SCHEMA_URL)
    for event in sample.PROBE.events:
        for row in range(len(batch)):
            if batch.number(event.when)[row]:
                (body,) = event.body(batch.select(slice(row, row + 1)))
                reference = oracle.record(event, batch, row, body, NOW, legacy=True)
                yield ReadableLogRecord(sdk_record(reference), resource_of(batch, row), scope)


def sdk_record(reference: Any) -> LogRecord:
    span = NonRecordingSpan(SpanContext(int.from_bytes(reference.trace_id), 0, is_remote=False))
    return LogRecord(
        timestamp=reference.time_unix_nano,
        observed_timestamp=reference.observed_time_unix_nano,
        context=set_span_in_context(span),
        severity_number=SeverityNumber(reference.severity_number),
        body=reference.body.string_value,
        attributes=oracle.plain(reference.attributes),
        event_name=reference.event_name,
    )


def resource_of(batch, row, without=frozenset()):
    things = batch.things("resource")
    facts = things.values[things.codes[row]]
    return Resource({name: value for name, value in facts.items() if name not in without}, names.SCHEMA_URL)


def log_messages(request):
    """Everything that a request says, in an order of its own."""
    return sorted(
        (
            str(sorted(oracle.plain(resource.resource.attributes).items())),
            resource.schema_url,
            (scope.scope.name, scope.scope.version, scope.schema_url),
            sorted(oracle.comparable(record) for record in scope.log_records),
        )
        for resource in request.resource_logs
        for scope in resource.scope_logs
    )


def test_points_are_what_the_sdk_sends():
    batch = sample.batch(300, seed=5, snapshot=True)
    batch.columns["ended"][:] = batch.columns["closed"][:] = True
    engine = Metrics(sample.config(), [sample.PROBE])
    engine.update(batch)
    (ours,) = engine.collect(NOW)
    theirs = [message for row_set in by_resource(batch) for message in metric_messages(sdk_metrics(batch, row_set))]
    assert sorted(metric_messages(ExportMetricsServiceRequest.FromString(ours.body))) == sorted(theirs)


def by_resource(batch):
    codes = batch.things("resource").codes
    return [[row for row in range(len(batch)) if codes[row] == code] for code in sorted(set(codes.tolist()))]


def sdk_metrics(batch, rows):
    """One provider a resource, as an SDK has it; every row recorded by hand."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], resource_of(batch, rows[0], names.RUN_ONLY), shutdown_on_exit=False)
    meter = provider.get_meter(names.SCOPE_TCP, __version__, names.SCHEMA_URL)
    instruments = {}
    for metric in sample.METRICS:
        record = instruments.setdefault(str(metric.name), instrument(meter, metric))
        for row in rows:
            if metric.when is None or batch.number(metric.when)[row]:
                record(amount(metric, batch, row), oracle.attributes_of(metric.by, batch, row, legacy=False))
    return encode_metrics(reader.get_metrics_data())


def instrument(meter, metric):
    described = {"unit": metric.name.unit, "description": metric.name.description}
    match metric:
        case Counter():
            return meter.create_counter(metric.name, **described).add
        case Histogram():
            bounds = list(metric.name.bounds)
            return meter.create_histogram(metric.name, **described, explicit_bucket_boundaries_advisory=bounds).record
    return meter.create_up_down_counter(metric.name, **described).add


def amount(metric, batch, row):
    match metric:
        case Counter(_, column):
            return 1 if column is None else int(batch.number(column)[row])
        case Histogram(_, column, scale):
            return float(batch.number(column)[row]) / round(1 / scale)
    return 1


def metric_messages(request):
    """Every point of a request with all that stands around it, but its times (and the SDK's minimum and maximum)."""
    return [
        (
            str(sorted(oracle.plain(resource.resource.attributes).items())),
            (resource.schema_url, scope.scope.name, scope.scope.version, scope.schema_url),
            (metric.name, metric.unit, metric.description, metric.WhichOneof("data")),
            (metric.sum.is_monotonic, metric.sum.aggregation_temporality, metric.histogram.aggregation_temporality),
            str(sorted(oracle.plain(point.attributes).items())),
            said(metric, point),
        )
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in (metric.sum.data_points or metric.histogram.data_points)
    ]


def said(metric, point):
    if metric.HasField("sum"):
        return (point.WhichOneof("value"), point.as_int)
    return (list(point.bucket_counts), list(point.explicit_bounds), point.count, f"{point.sum:.9g}")
