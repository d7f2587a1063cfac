"""Encoded log records, held against opentelemetry-proto's own objects row by row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from otelbpf.batch import Batch, Categorical, Facts
from otelbpf.config.settings import Slow
from otelbpf.probes.probe import Address, Choice, Constant, Known, Number
from otelbpf.signals import names
from otelbpf.signals.logs import Logs
from tests.unit.signals import oracle, sample

NOW = 1_800_000_000_000_000_000


def logs(probe: sample.Probe = sample.PROBE, **changes: object) -> Logs:
    return Logs(sample.config(**changes), [probe], lambda: NOW)


@pytest.mark.parametrize("legacy", ["dup", "off"])
@pytest.mark.parametrize("rows", [1, 2, 3, 100, 1500])
def test_records_say_what_the_reference_says(rows: int, legacy: str) -> None:
    batch = sample.batch(rows, seed=rows)
    requests = list(logs(attributes_legacy=legacy).encode(batch))
    assert oracle.parsed_logs(requests) == oracle.log_records(sample.PROBE, batch, NOW, legacy=legacy == "dup")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_number_and_any_text_survives(data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 12))
    batch = sample.batch(rows, seed=rows)
    for name in ("tx_bytes", "rx_bytes", "duration_ns"):
        batch.rows[name] = data.draw(st.lists(st.integers(0, 2**63 - 1), min_size=rows, max_size=rows))
    for name in ("srtt_us", "retransmits"):
        batch.rows[name] = data.draw(st.lists(st.integers(0, 2**32 - 1), min_size=rows, max_size=rows))
    texts = st.text(st.characters(codec="utf-8"), max_size=300)
    things = [
        Facts({"network.peer.address": data.draw(texts), "otelbpf.peer.names": data.draw(st.lists(texts, max_size=3))})
        for _ in range(3)
    ]
    batch.columns["remote"] = Categorical(np.arange(rows) % 3, things)
    assert oracle.parsed_logs(logs().encode(batch)) == oracle.log_records(sample.PROBE, batch, NOW)


def test_an_encoded_thing_is_kept_with_it_and_encodes_the_same_again() -> None:
    engine, things = logs(), sample.Things()
    for seed in range(3):
        batch = sample.batch(50, seed, things)
        assert oracle.parsed_logs(engine.encode(batch)) == oracle.log_records(sample.PROBE, batch, NOW)


def test_what_is_unknown_is_left_out() -> None:
    batch = sample.batch(4)
    batch.columns["closed"][:] = True
    batch.rows["duration_ns"] = batch.rows["handshake_ns"] = 0
    batch.columns["remote"] = Categorical(
        np.zeros(4, np.intp), [Facts({"server.address": "", "network.type": None, "otelbpf.peer.names": []})]
    )
    batch.columns["local_address"] = np.zeros(4, "V16")
    for record in all_records(logs().encode(batch)):
        assert (
            not {
                "otelbpf.tcp.connection.duration",
                "otelbpf.tcp.handshake.duration",
                "server.address",
                "network.type",
                "otelbpf.peer.names",
                "network.local.address",
            }
            & oracle.plain(record.attributes).keys()
        )


def all_records(requests: list) -> list:  # type: ignore[type-arg]
    messages = [ExportLogsServiceRequest.FromString(request.body) for request in requests]
    return [
        record
        for message in messages
        for resource in message.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    ]


def test_a_path_that_is_not_text_does_not_stop_the_record() -> None:
    batch = sample.batch(3)
    batch.columns["process"] = Categorical(np.zeros(3, np.intp), [Facts({"process.executable.path": "/tmp/\udcff"})])
    records = all_records(logs().encode(batch))
    assert {oracle.plain(record.attributes)["process.executable.path"] for record in records} == {"/tmp/?"}


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("all", lambda batch: batch.columns["ended"]),
        ("off", lambda batch: np.zeros(len(batch), bool)),
        (
            "failed",
            lambda batch: (
                (batch.columns["closed"] & (batch.columns["reset"] | batch.columns["out_of_memory"]))
                | batch.columns["failed"]
            ),
        ),
        (
            Slow(slow=0.01),
            lambda batch: (
                batch.columns["failed"]
                | (
                    batch.columns["closed"]
                    & (
                        batch.columns["reset"]
                        | batch.columns["out_of_memory"]
                        | (batch.rows["duration_ns"] >= 10_000_000)
                    )
                )
            ),
        ),
    ],
    ids=["all", "off", "failed", "slow"],
)
def test_the_setting_decides_which_rows_become_records(setting: object, expected) -> None:  # type: ignore[no-untyped-def]
    batch = sample.batch(500, seed=7)
    requests = list(logs(logs_tcp_connection=setting).encode(batch))
    assert sum(request.items for request in requests) == expected(batch).sum()


def test_the_attribute_with_the_events_name_can_be_left_out() -> None:
    records = all_records(logs(logs_event_name_attribute=False).encode(sample.batch(20)))
    assert all("otel.event.name" not in oracle.plain(record.attributes) for record in records)
    assert {record.event_name for record in records} == {
        "otelbpf.tcp.connection.closed",
        "otelbpf.tcp.connection.failed",
    }


def test_a_snapshot_has_no_records() -> None:
    assert not list(logs().encode(sample.batch(20, snapshot=True)))


def test_another_probe_and_no_rows_have_no_records() -> None:
    batch = sample.batch(20)
    assert not list(logs().encode(Batch("unknown", batch.rows, 0, batch.columns)))
    assert list(logs().encode(batch.select(np.zeros(20, bool)))) == []


def test_large_batches_are_split_and_lose_nothing() -> None:
    batch = sample.batch(5000, seed=1)
    requests = list(logs().encode(batch))
    assert len(requests) > 1
    assert all(len(request.body) < 3_000_000 for request in requests)
    assert sum(request.items for request in requests) == batch.columns["ended"].sum()
    assert oracle.parsed_logs(requests) == oracle.log_records(sample.PROBE, batch, NOW)


def test_equal_resources_are_one_even_when_they_are_two_objects() -> None:
    batch = sample.batch(30)
    batch.columns["resource"] = Categorical(
        np.arange(30) % 3, [sample.resource(1), sample.resource(2), sample.resource(1)]
    )
    (request,) = logs().encode(batch)
    assert len(ExportLogsServiceRequest.FromString(request.body).resource_logs) == 2


def test_a_record_without_resource_is_still_sent() -> None:
    batch = sample.batch(5)
    del batch.columns["resource"]
    assert sum(request.items for request in logs().encode(batch)) == 5


@pytest.mark.parametrize(
    "attribute",
    [
        Constant(names.AttributeName("no.such.name", "str"), "x"),
        Known("remote", (names.AttributeName("peer.adress", "str"),)),
        Number(names.SERVER_ADDRESS, "pid"),
        Number(names.SERVER_PORT, "pid", 1e-3),
        Address(names.SERVER_PORT, "local_address"),
        Choice(names.ERROR_TYPE, "error", {-1: "x"}),
    ],
    ids=[
        "not in the table",
        "known not in the table",
        "a number that is a text",
        "an int with a scale",
        "an address that is a number",
        "negative",
    ],
)
def test_a_wrong_declaration_is_refused(attribute: sample.Known) -> None:
    event = replace(sample.PROBE.events[0], attributes=(attribute,))
    with pytest.raises(ValueError, match=r"."):
        logs(replace(sample.PROBE, events=(event,)))
