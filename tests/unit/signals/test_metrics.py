"""Series and points, held against sums made row by row."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otelbpf.batch import Batch, Categorical, Facts
from otelbpf.probes.probe import Constant, Counter, Hex, Histogram, Known, Level, Number
from otelbpf.signals import names
from otelbpf.signals.metrics import Metrics
from tests.unit.signals import oracle, sample

SECOND = 1_000_000_000
START = 1_800_000_000 * SECOND


class Clock:
    def __init__(self) -> None:
        self.now_ns = START

    def __call__(self) -> int:
        return self.now_ns


def metrics(clock: Clock | None = None, probe: Any = sample.PROBE, **changes: Any) -> Metrics:
    changes = {"metrics_max_series": 100_000} | changes
    return Metrics(sample.config(**changes), [probe], clock or Clock())


def collected(engine: Metrics, now_ns: int = START + SECOND) -> oracle.Points:
    return oracle.parsed_metrics(engine.collect(now_ns))


@pytest.mark.parametrize("rows", [1, 7, 300])
def test_points_say_what_the_reference_says(rows: int) -> None:
    engine, reference, things = metrics(), oracle.MetricsOracle(sample.PROBE), sample.Things()
    for seed, snapshot in ((1, False), (2, True), (3, False), (4, True)):
        batch = sample.batch(rows, seed, things, snapshot=snapshot)
        engine.update(batch)
        reference.update(batch)
        oracle.assert_same(collected(engine), reference)


def test_facts_of_other_batches_are_the_same_series() -> None:
    engine, reference = metrics(), oracle.MetricsOracle(sample.PROBE)
    for seed in range(3):
        batch = sample.batch(50, seed, sample.Things())
        engine.update(batch)
        reference.update(batch)
    oracle.assert_same(collected(engine), reference)


def test_what_changes_from_run_to_run_does_not_split_a_series() -> None:
    engine = metrics(probe=only(Counter(names.METRIC_OTELBPF_PROCESS_EXECS, None, ())))
    batch = sample.batch(2)
    first, second = sample.resource(1), sample.resource(1)
    second["container.id"] = "another"
    batch.columns["resource"] = Categorical(np.array([0, 1]), [first, second])
    engine.update(batch)
    (point,) = collected(engine).values()
    assert point.as_int == 2


def only(*declared: Any) -> Any:
    return replace(sample.PROBE, metrics=declared)


def test_a_series_begins_when_it_was_made_and_keeps_that() -> None:
    clock = Clock()
    engine = metrics(clock, only(Counter(names.METRIC_OTELBPF_PROCESS_EXECS, None, ())))
    engine.update(sample.batch(1))
    clock.now_ns += 10 * SECOND
    engine.update(sample.batch(1))
    (point,) = collected(engine, clock.now_ns).values()
    assert (point.start_time_unix_nano, point.time_unix_nano, point.as_int) == (START, START + 10 * SECOND, 2)


def test_a_silent_series_is_forgotten_and_begins_anew() -> None:
    clock = Clock()
    engine = metrics(clock, only(Counter(names.METRIC_OTELBPF_PROCESS_EXECS, None, ())), metrics_series_ttl=60.0)
    engine.update(sample.batch(1))
    assert collected(engine, START + 300 * SECOND)  # never sent before
    assert not collected(engine, START + 301 * SECOND)
    assert engine.series() == {"otelbpf.process.execs": 0}
    clock.now_ns = START + 400 * SECOND
    engine.update(sample.batch(1))
    (point,) = collected(engine, START + 401 * SECOND).values()
    assert (point.start_time_unix_nano, point.as_int) == (START + 400 * SECOND, 1)


def test_a_clock_that_is_set_back_leaves_no_point_that_begins_after_its_time() -> None:
    clock = Clock()
    engine = metrics(clock, only(Counter(names.METRIC_OTELBPF_PROCESS_EXECS, None, ())), metrics_series_ttl=60.0)
    engine.update(sample.batch(1))
    clock.now_ns -= 3600 * SECOND
    for since in (0, 10):
        (point,) = collected(engine, clock.now_ns + since * SECOND).values()
        assert (point.start_time_unix_nano, point.as_int) == (clock.now_ns, 1)
    assert not collected(engine, clock.now_ns + 61 * SECOND)


def test_forgotten_series_leave_nothing_behind() -> None:
    clock = Clock()
    engine = metrics(clock, metrics_series_ttl=60.0)
    engine.update(sample.batch(500, 1))
    engine.update(sample.batch(500, 2, snapshot=True))
    for _ in range(3):
        clock.now_ns += 100 * SECOND
        collected(engine, clock.now_ns)
    assert set(engine.series().values()) == {0}
    assert len(engine._resources) == 0
    for index in engine._plans["sample", False]._indexes.values():
        assert not len(index._keys)
        assert not index.users.any()
        assert sorted(index._free) == list(range(index.capacity))
        assert not index._caps._users
        assert not index._caps._held


def test_a_level_is_counted_afresh_and_says_0_once_when_it_is_gone() -> None:
    engine = metrics(probe=only(Level(names.METRIC_OTELBPF_TCP_CONNECTION_ACTIVE, (), when="alive")))
    engine.update(sample.batch(3))
    assert not collected(engine)
    for rows in (5, 2):
        engine.update(sample.batch(rows, things=sample.Things(resources=1), snapshot=True))
        (point,) = collected(engine).values()
        assert point.as_int == rows
    engine.update(sample.batch(0, snapshot=True))
    (point,) = collected(engine).values()
    assert point.as_int == 0
    assert not collected(engine)


def test_a_snapshot_of_nothing_needs_no_columns() -> None:
    engine = metrics()
    alive = sample.batch(9, snapshot=True)
    engine.update(alive)
    engine.update(Batch("sample", alive.rows[:0], 0, {name: np.empty(0, bool) for name in CONDITIONS}, snapshot=True))
    levels = {
        key: point.as_int for key, point in collected(engine).items() if key[1] == "otelbpf.tcp.connection.active"
    }
    assert levels
    assert set(levels.values()) == {0}


CONDITIONS = ("ended", "closed", "alive", "handshake_seen", "rtt_seen")


def test_a_level_that_comes_back_before_it_was_forgotten_goes_on() -> None:
    engine = metrics(probe=only(Level(names.METRIC_OTELBPF_TCP_CONNECTION_ACTIVE, (), when="alive")))
    one = sample.Things(resources=1)
    for rows in (1, 0, 1):
        engine.update(sample.batch(rows, things=one, snapshot=True))
    (point,) = collected(engine).values()
    assert point.as_int == 1


def test_what_is_beyond_the_cap_is_summed_up_for_each_resource() -> None:
    probe = only(Counter(names.METRIC_OTELBPF_TCP_IO, "tx_bytes", (sample.EDGE, sample.TRANSMIT)))
    engine, things = metrics(probe=probe, metrics_max_series=7), sample.Things(resources=3)
    batches = [sample.batch(200, seed, things) for seed in range(3)]
    for batch in batches:
        engine.update(batch)
    points = collected(engine)
    overflow = [key for key in points if "otel.metric.overflow" in key[2]]
    assert len(points) - len(overflow) == 7
    assert len(overflow) == 3
    assert engine.overflows() == {"otelbpf.tcp.io": 3}
    assert engine.series() == {"otelbpf.tcp.io": 10}
    assert sum(point.as_int for point in points.values()) == sum(int(batch.rows["tx_bytes"].sum()) for batch in batches)


def test_keys_beyond_the_cap_take_bounded_room() -> None:
    probe = only(Counter(names.METRIC_OTELBPF_TCP_IO, "tx_bytes", (sample.EDGE,)))
    engine = metrics(probe=probe, metrics_max_series=100)
    total = 0
    for first in range(0, 5000, 500):
        batch = sample.batch(500, things=sample.Things(resources=1))
        things = [Facts({"service.peer.name": f"peer-{number}"}) for number in range(first, first + 500)]
        batch.columns["edge"] = Categorical(np.arange(500), things)
        engine.update(batch)
        total += int(batch.rows["tx_bytes"].sum())
    (index,) = engine._plans["sample", False]._indexes.values()
    assert len(index) < 2000
    points = collected(engine)
    assert len(points) == 101
    assert sum(point.as_int for point in points.values()) == total
    assert len(index) == 101


def test_two_tables_of_one_metric_share_its_cap() -> None:
    engine = metrics(metrics_max_series=10)
    engine.update(sample.batch(500))
    counts: dict[str, int] = {}
    for _, name, attributes in collected(engine):
        counts[name] = counts.get(name, 0) + ("otel.metric.overflow" not in attributes)
    assert max(counts.values()) == 10


def test_resources_beyond_the_cap_are_summed_up_for_the_host() -> None:
    engine = metrics(probe=only(Counter(names.METRIC_OTELBPF_PROCESS_EXECS, None, ())), metrics_max_series=4)
    engine.update(sample.batch(500, things=sample.Things(resources=20)))
    points = collected(engine)
    assert sum(point.as_int for point in points.values()) == 500
    assert len(points) == 5
    assert sum("unknown_service" in resource for resource, _, _ in points) == 1


def test_the_host_that_takes_them_has_what_the_user_said_of_it() -> None:
    """The namespace stands for any attribute that the user gave to all resources."""
    probe = only(Counter(names.METRIC_OTELBPF_PROCESS_EXECS, None, ()))
    engine = metrics(probe=probe, metrics_max_series=1, resource_attributes={"service.namespace": "shop"})
    engine.update(sample.batch(50, things=sample.Things(resources=2)))
    (host,) = (resource for resource, _, _ in collected(engine) if "unknown_service" in resource)
    assert '"shop"' in host or "'shop'" in host


def test_values_beyond_the_cap_of_an_attribute_become_other() -> None:
    question = Known("remote", (names.DNS_QUESTION_NAME,))
    probe = only(Histogram(names.METRIC_DNS_LOOKUP_DURATION, "duration_ns", 1e-9, (question,)))
    clock = Clock()
    engine = metrics(clock, probe, metrics_series_ttl=60.0)

    def ask(first: int, last: int) -> None:
        batch = sample.batch(last - first, things=sample.Things(resources=1))
        batch.columns["remote"] = Categorical(
            np.arange(last - first), [Facts({"dns.question.name": f"{number}.test"}) for number in range(first, last)]
        )
        engine.update(batch)

    ask(0, 150)
    ask(100, 200)
    ask(200, 300)
    ask(200, 300)
    points = collected(engine)
    assert len(points) == 201
    (other,) = (point for key, point in points.items() if "_other" in key[2])
    assert other.count == 200
    assert sum(point.count for point in points.values()) == 450
    clock.now_ns += 100 * SECOND
    collected(engine, clock.now_ns)
    ask(200, 400)  # there is room for those now that were others
    assert not any("_other" in key[2] for key in collected(engine, clock.now_ns))


def test_delta_counts_from_one_collection_to_the_next() -> None:
    clock = Clock()
    engine, things = metrics(clock, metrics_temporality="delta"), sample.Things()
    for seed in range(3):
        reference = oracle.MetricsOracle(sample.PROBE)
        for batch in (sample.batch(100, seed, things), sample.batch(100, seed, things, snapshot=True)):
            engine.update(batch)
            reference.update(batch)
        clock.now_ns += 10 * SECOND
        points = collected(engine, clock.now_ns)
        oracle.assert_same(points, reference, vanished_levels=True)
    later = collected(engine, clock.now_ns + SECOND)
    assert all(name == "otelbpf.tcp.connection.active" for _, name, _ in later)


def test_temporality_is_said() -> None:
    for setting, expected in (("cumulative", 2), ("delta", 1)):
        engine = metrics(metrics_temporality=setting)
        engine.update(sample.batch(50))
        engine.update(sample.batch(50, snapshot=True))
        for metric in all_metrics(engine):
            data = metric.histogram if metric.HasField("histogram") else metric.sum
            level = metric.name == "otelbpf.tcp.connection.active"
            assert data.aggregation_temporality == (2 if level else expected)
            if not metric.HasField("histogram"):
                assert data.is_monotonic is not level


def all_metrics(engine: Metrics) -> list[Any]:
    return [
        metric
        for request in engine.collect(START + SECOND)
        for resource in ExportMetricsServiceRequest.FromString(request.body).resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    ]


def test_a_metric_is_described_as_the_table_says() -> None:
    engine = metrics()
    engine.update(sample.batch(50))
    for metric in all_metrics(engine):
        name = names.METRICS[metric.name]
        assert (metric.unit, metric.description) == (name.unit, name.description)
        for point in metric.histogram.data_points:
            assert tuple(point.explicit_bounds) == name.bounds


def test_an_upper_bound_belongs_to_its_bucket() -> None:
    engine = metrics(probe=only(Histogram(names.METRIC_OTELBPF_TCP_RTT, "srtt_us", 1e-6, ())))
    bounds = names.METRIC_OTELBPF_TCP_RTT.bounds
    batch = sample.batch(len(bounds), things=sample.Things(resources=1))
    batch.rows["srtt_us"] = [round(bound * 1e6) for bound in bounds]
    engine.update(batch)
    (point,) = collected(engine).values()
    assert list(point.bucket_counts) == [1] * len(bounds) + [0]
    assert point.sum == pytest.approx(sum(bounds))


@pytest.mark.parametrize("resources", [1, 40, 3000])
def test_many_series_are_split_and_lose_nothing(resources: int) -> None:
    engine = metrics(probe=only(*sample.METRICS[3:6]))
    batch = many(12_000, resources)
    engine.update(batch)
    requests = list(engine.collect(START))
    assert all(len(request.body) < 3_000_000 for request in requests)
    assert len(requests) > 2
    points = oracle.parsed_metrics(requests)
    assert len(points) == 36_000
    total = sum(int(batch.rows[column].sum()) for column in ("tx_bytes", "rx_bytes", "retransmits"))
    assert sum(point.as_int for point in points.values()) == total


def many(series: int, resources: int) -> Batch:
    """A batch in which every row is another series."""
    batch = sample.batch(series)
    batch.columns["resource"] = Categorical(
        np.arange(series) % resources, [sample.resource(number) for number in range(resources)]
    )
    things = [Facts({"service.peer.name": f"peer-{number}", "otelbpf.peer.type": "pod"}) for number in range(series)]
    batch.columns["edge"] = Categorical(np.arange(series), things)
    return batch


def test_another_probe_is_no_business_of_ours() -> None:
    batch = sample.batch(3)
    engine = metrics()
    engine.update(Batch("unknown", batch.rows, 0, batch.columns))
    assert not collected(engine)


@pytest.mark.parametrize(
    "metric",
    [
        Counter(names.MetricName("no.such.metric", "Counter", "1", ""), None, ()),
        Counter(names.METRIC_OTELBPF_TCP_RTT, None, ()),
        Level(names.METRIC_OTELBPF_TCP_IO, ()),
        Counter(names.METRIC_OTELBPF_TCP_IO, None, (Hex(names.OTELBPF_CONNECTION_ID, "connection_id"),)),
        Counter(names.METRIC_OTELBPF_TCP_IO, None, (Number(names.OTELBPF_TCP_RTT_MIN, "srtt_us", 1e-6),)),
        Counter(names.METRIC_OTELBPF_TCP_IO, None, (Constant(names.AttributeName("made.up", "str"), "x"),)),
    ],
    ids=["not in the table", "a histogram", "a counter", "by an id", "by a double", "attribute not in the table"],
)
def test_a_wrong_declaration_is_refused(metric: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        metrics(probe=only(metric))
