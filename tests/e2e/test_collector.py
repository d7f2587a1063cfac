"""The harness itself, with opentelemetry-sdk as the sender: what the tests read is what was sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogs
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetrics
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogs
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetrics
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from tests.e2e.collector import Collector
from tests.e2e.polling import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from opentelemetry.util.types import AnyValue

    from tests.e2e.collector import Protocol


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    with Collector(tmp_path) as running:
        yield running


def send_log(collector: Collector, protocol: Protocol) -> None:
    exporter = (
        GrpcLogs(endpoint=collector.grpc_endpoint, insecure=True)
        if protocol == "grpc"
        else HttpLogs(endpoint=f"{collector.http_endpoint}/v1/logs")
    )
    provider = LoggerProvider(Resource({"service.name": protocol}))
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    attributes: dict[str, AnyValue] = {"text": "a", "number": 2**40, "double": 0.5, "yes": True, "list": ["x", "y"]}
    record = LogRecord(
        timestamp=123, body="hello", severity_number=SeverityNumber.WARN, attributes=attributes, event_name="an.event"
    )
    provider.get_logger("a.scope").emit(record)
    provider.shutdown()


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_log_records_come_back_as_they_were_sent(collector: Collector, protocol: Protocol) -> None:
    send_log(collector, protocol)
    (record,) = collector.wait_for_records(lambda record: record.event_name == "an.event", 1, protocol)
    assert record.attributes == {"text": "a", "number": 2**40, "double": 0.5, "yes": True, "list": ["x", "y"]}
    assert (record.body, record.severity, record.time_ns, record.scope) == ("hello", 13, 123, "a.scope")
    assert record.resource["service.name"] == protocol
    assert record.trace_id == ""


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_data_points_come_back_as_they_were_sent(collector: Collector, protocol: Protocol) -> None:
    exporter = (
        GrpcMetrics(endpoint=collector.grpc_endpoint, insecure=True)
        if protocol == "grpc"
        else HttpMetrics(endpoint=f"{collector.http_endpoint}/v1/metrics")
    )
    provider = MeterProvider([PeriodicExportingMetricReader(exporter)], resource=Resource({"service.name": "x"}))
    meter = provider.get_meter("a.scope")
    meter.create_counter("c", "By").add(7, {"k": "v"})
    meter.create_histogram("h", "s", explicit_bucket_boundaries_advisory=[1.0, 2.0]).record(1.5)
    provider.shutdown()
    points = wait_for(lambda: sorted(collector.points(protocol), key=lambda point: point.metric), "points")
    counter, histogram = (point for point in points if point.metric in "ch")
    assert (counter.value, counter.unit, counter.attributes, counter.monotonic) == (7, "By", {"k": "v"}, True)
    assert (histogram.count, histogram.value, histogram.buckets, histogram.bounds) == (1, 1.5, (0, 1, 0), (1.0, 2.0))


def test_a_collector_comes_back_at_the_same_place(collector: Collector) -> None:
    send_log(collector, "grpc")
    collector.wait_for_records(lambda _: True, 1)
    collector.stop()
    collector.start()
    send_log(collector, "grpc")
    collector.wait_for_records(lambda _: True, 2)
