"""The parts together: what is learnt of all batches of a tick before any is enriched."""

from __future__ import annotations

import numpy as np

from otelbpf.batch import Batch
from otelbpf.config import Config
from otelbpf.enrich import Enrichment
from otelbpf.enrich.machine import RecordedMachine
from tests.unit.enrich.rows import CGROUP, DNS, NETNS, PROCESS, SECOND, lookups, rows, tcp, values


def enriched(*batches):
    with Enrichment(Config(), RecordedMachine({})) as enrichment:
        enrichment.learn(list(batches))
        return [enrichment.enrich(batch) for batch in batches]


def test_a_connection_that_is_read_before_its_lookup_and_its_process():
    connection = tcp({"start_ns": 110 * SECOND, "executable": 7, "pid": 3})
    execution = Batch("process", rows(PROCESS, {"kind": 1, "executable": 7, "pid": 3, "filename": b"/usr/bin/curl"}), 0)
    lookup = lookups((109, "db.example.org", ["10.0.0.2"], 60), pid=3)
    found, *_ = enriched(connection, execution, lookup)
    assert values(found, "remote")[0]["server.address"] == "db.example.org"
    assert values(found, "process") == [{"process.executable.name": "curl", "process.executable.path": "/usr/bin/curl"}]


def test_a_process_and_its_parent():
    execution = Batch(
        "process",
        rows(
            PROCESS,
            {
                "kind": 1,
                "executable": 7,
                "pid": 3,
                "filename": b"/bin/a",
                "parent_executable": 8,
                "parent_comm": b"init",
            },
            {"kind": 1, "executable": 8, "pid": 4, "filename": b"/bin/b", "parent_executable": 7},
            {"kind": 1, "executable": 8, "pid": 5, "filename": b"/bin/b", "parent_comm": b"kthreadd"},
        ),
        0,
    )
    (found,) = enriched(execution)
    assert [parent["otelbpf.parent.executable.name"] for parent in values(found, "parent")] == ["b", "a", "kthreadd"]


def test_a_lookup_has_ends_and_its_resolver_no_name():
    lookup = lookups((100, "ns.example.org", ["10.0.0.2"], 60))
    lookup.rows["remote_address"] = tcp({}).rows["remote_address"]
    (found,) = enriched(lookup)
    assert values(found, "remote")[0]["server.address"] == "10.0.0.2"
    assert set(found.columns) == {"question", "answer", "process", "resource", "local", "remote", "edge"}


def test_cgroups_are_not_events():
    batch = Batch("cgroup", rows(CGROUP, {"kind": 1, "cgroup_id": 5, "path": b"/a"}), 0)
    (found,) = enriched(batch)
    assert found.columns == {}


def test_no_rows_are_no_trouble():
    for layout, probe in ((PROCESS, "process"), (DNS, "dns_lookup"), (CGROUP, "cgroup")):
        batch = lookups() if probe == "dns_lookup" else Batch(probe, np.zeros(0, layout), 0)
        assert len(enriched(batch)[0]) == 0


def test_columns_that_were_there_stay_and_the_batch_is_not_changed():
    connection = tcp({"netns": NETNS})
    connection.columns["mine"] = np.ones(1, dtype=bool)
    (found,) = enriched(connection)
    assert "mine" in found.columns
    assert set(connection.columns) == {"mine"}


def test_every_cache_counts():
    with Enrichment(Config(), RecordedMachine({})) as enrichment:
        enrichment.learn([])
        enrichment.enrich(tcp({}))
        assert {name: type(counters).__name__ for name, counters in enrichment.counters().items()} == dict.fromkeys(
            ["executable", "cgroup", "resource", "host_name", "named_connection", "address"], "Counters"
        )
