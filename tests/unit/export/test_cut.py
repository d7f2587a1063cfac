"""Cutting encoded requests: OpenTelemetry's own messages say what is in the halves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otelbpf.export.cut import LEVELS, count, halves
from otelbpf.export.memory import decode_logs, decode_metrics
from otelbpf.export.request import Request
from tests.peers.otlp import log_request, metric_request, numbers, points

KINDS = ("gauge", "sum", "histogram", "exponential_histogram", "summary")
TREE = st.lists(st.lists(st.integers(0, 6), max_size=4), max_size=4)


def logs(tree) -> Request:
    """Resources of scopes of so many records."""
    message, number = ExportLogsServiceRequest(), 0
    for resource_number, scopes in enumerate(tree):
        group = message.resource_logs.add(schema_url="s")
        group.resource.attributes.add(key="service.name").value.string_value = f"r{resource_number}"
        for scope_number, records in enumerate(scopes):
            scope = group.scope_logs.add(schema_url="t")
            scope.scope.name = f"s{scope_number}"
            for _ in range(records):
                record = scope.log_records.add(time_unix_nano=number, flags=7)
                record.body.string_value = f"record {number}"
                number += 1
    return Request("logs", message.SerializeToString(), number, 5)


def metrics(tree) -> Request:
    message, number = ExportMetricsServiceRequest(), 0
    for resource_number, counts in enumerate(tree):
        group = message.resource_metrics.add(schema_url="s")
        group.resource.attributes.add(key="service.name").value.string_value = f"r{resource_number}"
        scope = group.scope_metrics.add()
        for kind, size in enumerate(counts):
            metric = scope.metrics.add(name=f"m{kind}", unit="s")
            data = getattr(metric, KINDS[kind])
            data.SetInParent()
            if hasattr(data, "aggregation_temporality"):
                data.aggregation_temporality = 2
            for _ in range(size):
                data.data_points.add(time_unix_nano=number)
                number += 1
    return Request("metrics", message.SerializeToString(), number, 5)


def times(request: Request) -> list[int]:
    message = ExportMetricsServiceRequest.FromString(request.body)
    return [
        point.time_unix_nano
        for group in message.resource_metrics
        for scope in group.scope_metrics
        for metric in scope.metrics
        for point in getattr(metric, metric.WhichOneof("data")).data_points
    ]


@given(TREE)
def test_the_halves_of_logs_are_the_whole(tree):
    request = logs(tree)
    parts = halves(request)
    if request.items < 2:
        assert parts is None
        return
    whole = list(decode_logs(request.body))
    assert [len(list(decode_logs(part.body))) for part in parts] == [request.items // 2, -(-request.items // 2)]
    assert [record for part in parts for record in decode_logs(part.body)] == whole
    assert [part.items for part in parts] == [request.items // 2, -(-request.items // 2)]


@given(st.lists(st.lists(st.integers(0, 6), max_size=5), max_size=4))
def test_the_halves_of_metrics_are_the_whole(tree):
    request = metrics(tree)
    parts = halves(request)
    if request.items < 2:
        assert parts is None
        return
    assert [time for part in parts for time in times(part)] == list(range(request.items))
    for part in parts:
        message = ExportMetricsServiceRequest.FromString(part.body)
        for group in message.resource_metrics:
            assert group.schema_url == "s"
            assert all(metric.unit == "s" for scope in group.scope_metrics for metric in scope.metrics)
            assert all(
                metric.sum.aggregation_temporality == 2
                for metric in group.scope_metrics[0].metrics
                if metric.HasField("sum")
            )


def test_metrics_keep_what_their_points_mean():
    first, second = halves(metric_request(5))
    assert [*decode_metrics(first.body), *decode_metrics(second.body)] == list(decode_metrics(metric_request(5).body))
    assert points([first.body]) == 2


def test_spans():
    message = ExportTraceServiceRequest()
    scope = message.resource_spans.add().scope_spans.add()
    for number in range(3):
        scope.spans.add(name=str(number))
    first, second = halves(Request("traces", message.SerializeToString(), 3, 0))
    names = [
        span.name
        for part in (first, second)
        for span in ExportTraceServiceRequest.FromString(part.body).resource_spans[0].scope_spans[0].spans
    ]
    assert names == ["0", "1", "2"]


def test_halving_down_to_single_records_finds_each():
    def singles(request):
        parts = halves(request)
        return [request] if parts is None else [one for part in parts for one in singles(part)]

    found = singles(log_request(37))
    assert [one.items for one in found] == [1] * 37
    assert numbers([one.body for one in found]) == list(range(37))


@given(st.binary(max_size=200))
def test_nonsense_is_not_cut(body):
    parts = halves(Request("logs", body, 4, 0))
    assert parts is None or count(parts[0].body, LEVELS["logs"]) == 2
