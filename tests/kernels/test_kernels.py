"""The agent on the kernels of Debian 12 and of its backport, each booted in a guest."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e import expect, otlp_json
from tests.e2e.agent import Summary, parse_summary
from tests.e2e.collector import latest
from tests.kernels import qemu
from tests.kernels.expected import KERNELS, Kernel, Records, probes
from tests.kernels.guest import scenes

if TYPE_CHECKING:
    from tests.e2e.otlp_json import Point, Record
    from tests.kernels.guest.forked import Truth


class Guest:
    """What one of them told."""

    def __init__(self, kernel: Kernel, told: dict[str, Any]) -> None:
        agent = told["agent"]
        self.kernel = kernel
        self.check: dict[str, Any] = told["check"]
        self.truth: Truth = agent["truth"]
        self.said: str = agent["said"]
        self.exit_code: int = agent["exit_code"]
        self.records: list[Record] = [one for sent in agent["logs"] for one in otlp_json.records(sent)]
        self.points: list[Point] = latest(one for sent in agent["metrics"] for one in otlp_json.points(sent))

    @property
    def summary(self) -> Summary:
        return parse_summary(self.said.splitlines())

    def of_container(self, container_id: str | None) -> list[Record]:
        return [record for record in self.records if record.resource.get("container.id") == container_id]


@pytest.fixture(scope="module")
def guests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Guest]:
    """All of them side by side."""
    if not qemu.Cache.found().is_there:
        pytest.skip("no kernels to boot are here; `make test-kernels` fetches them")
    project = qemu.project_disk(tmp_path_factory.mktemp("project"))
    with ThreadPoolExecutor(len(KERNELS)) as pool:
        running = [pool.submit(qemu.run, one.name, project, tmp_path_factory.mktemp(one.name)) for one in KERNELS]
    return {one.name: Guest(one, run.result()) for one, run in zip(KERNELS, running, strict=True)}


@pytest.fixture(params=[kernel.name for kernel in KERNELS])
def guest(request: pytest.FixtureRequest, guests: dict[str, Guest]) -> Guest:
    return guests[request.param]


def test_check_reports_the_way_of_each_probe_and_what_is_lost(guest: Guest) -> None:
    report = guest.check["report"]
    measured = ("ways", "memory_bytes", "ring_bytes", "attach_ms")
    found = [{name: value for name, value in one.items() if name not in measured} for one in report["probes"]]
    assert found == probes(guest.kernel)
    assert report["kernel"].startswith(f"{guest.kernel.name}.")
    assert {row["subject"] for row in report["rows"] if row["state"] != "ok"} == set()
    assert (guest.check["exit_code"], guest.check["errors"]) == (guest.kernel.exit_code, "")


def test_the_agent_ends_well_and_has_lost_nothing(guest: Guest) -> None:
    assert guest.exit_code == 0, guest.said
    rows = guest.summary.events
    assert set(rows) == {"cgroup", "dns_lookup", "process", "tcp_connection"}
    for name, row in rows.items():
        assert row.balanced, (name, row)
        assert row.terms["lost"] == row.terms["undecodable"] == row.terms["pending"] == 0, (name, row)
    assert all(row.balanced for row in guest.summary.records.values())


def test_every_event_is_told_whole(guest: Guest) -> None:
    """Connections by IPv4 and IPv6, one refused, one with a worker; lookups by UDP and TCP; programs that end any way."""
    expected = list(Records(guest.truth, guest.kernel).all())
    others = {guest.truth["container"]["pid"], guest.truth["flood"]["pid"]}
    told = [record for record in guest.of_container(None) if record["process.pid"] not in others]
    assert expect.differences(expected, told) == []
    assert expect.repeated(told) == []


def test_a_container_that_is_gone_is_named(guest: Guest) -> None:
    scene = guest.truth["container"]
    told = [
        (one.event_name, one["process.pid"], one["process.exit.code"]) for one in guest.of_container(scene["container"])
    ]
    true = scene["program"]["pid"]
    assert sorted(told, key=repr) == sorted(
        [(expect.EXEC, true, None), (expect.EXIT, true, 0), (expect.EXIT, scene["pid"], 0)], key=repr
    )


def test_a_flood_is_counted_to_the_last_one(guest: Guest) -> None:
    scene = guest.truth["flood"]
    told = Counter(one.event_name for one in guest.of_container(scene["container"]))
    throttled = guest.summary.events["tcp_connection"].terms["throttled"]
    counted: Counter[Any] = Counter()
    for point in guest.points:
        if point.metric == "otelbpf.tcp.connections" and point.resource["service.instance.id"] == scene["container"]:
            counted[point.attributes["error.type"]] += point.value
    assert counted == {"connection_refused": scene["connects"]}
    assert told == {expect.FAILED: scene["connects"] - throttled, expect.EXIT: 1}
    assert throttled > 0


def test_a_port_that_is_left_out_is_filtered_in_the_kernel(guest: Guest) -> None:
    assert [one for one in guest.records if one["network.peer.port"] == scenes.FILTERED_PORT] == []
    # The connections of the sink are left out as well, if they have ended by then.
    assert guest.summary.events["tcp_connection"].terms["filtered"] >= guest.truth["filtered"]["connects"]
