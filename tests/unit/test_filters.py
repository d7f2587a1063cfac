"""What the user does not want to see: what the kernel is told of it, and what the line leaves out by itself."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import msgspec
import pytest

from otelbpf.batch import Batch
from otelbpf.config import Config
from otelbpf.enrich.machine import RecordedMachine
from otelbpf.filters import CgroupFilter
from otelbpf.probes import filters
from tests.unit.enrich.rows import CGROUP, rows, tcp

if TYPE_CHECKING:
    from collections.abc import Iterator

WEB, JOB, NEW, GONE = 11, 12, 13, 14
MACHINE = RecordedMachine(
    {"cgroup_path": {f"{WEB} 1": "/system.slice/web.service", f"{JOB} 2": "/kubepods/job", f"{GONE} 4": None}}
)


def config(**chosen) -> Config:
    return msgspec.convert({"filters": chosen}, Config)


def made(cgroup_id: int, path: bytes) -> Batch:
    return Batch("cgroup", rows(CGROUP, {"cgroup_id": cgroup_id, "kind": 1, "path": path}), 0)


def kept(**lists: list[str]) -> list[int]:
    """The cgroups whose events pass, of one that /proc knows, another, one just made, and one that nobody knows."""
    wanted = CgroupFilter(config(cgroups=lists), MACHINE)
    wanted.learn([made(NEW, b"/system.slice/new.service/worker")])
    owners = [(WEB, 1), (JOB, 2), (NEW, 3), (GONE, 4), (WEB, 1)]
    batch = wanted.keep(tcp(*({"cgroup_id": cgroup_id, "pid": pid} for cgroup_id, pid in owners)))
    return batch.number("cgroup_id").tolist()


def test_without_a_list_everything_passes():
    assert kept() == [WEB, JOB, NEW, GONE, WEB]


def test_of_a_list_to_include_only_what_is_known_to_be_in_it():
    assert kept(include=["/system.slice/*"]) == [WEB, NEW, WEB]


def test_of_a_list_to_exclude_what_is_not_known_passes():
    assert kept(exclude=["/system.slice"]) == [JOB, GONE]


def test_cgroups_that_were_there_before_the_agent_are_known_although_their_processes_are_gone():
    machine = RecordedMachine({"cgroup_walk": {"": [[WEB, "/system.slice/web.service"]]}})
    wanted = CgroupFilter(config(cgroups={"include": ["/system.slice/*"]}), machine)
    wanted.learn([])
    assert wanted.keep(tcp({"cgroup_id": WEB, "pid": 1})).number("cgroup_id").tolist() == [WEB]


def test_exclusion_wins():
    assert kept(include=["/system.slice/*"], exclude=["*/new.service"]) == [WEB, WEB]


def test_a_batch_that_teaches_passes_whole():
    wanted = CgroupFilter(config(cgroups={"include": ["/none"]}), MACHINE)
    assert len(wanted.keep(made(NEW, b"/other"))) == 1


class Maps:
    """The filter maps of a loaded object, as far as `fill` sees them."""

    max_entries = 4

    def __init__(self) -> None:
        self.content: dict[str, dict[bytes, bytes]] = {}
        self.chosen: dict[bytes, bytes] = {}
        self.lists: dict[str, int] = {}

    def map(self, name: str) -> Maps:
        chosen = Maps()
        chosen.chosen = self.content.setdefault(name, {})
        return chosen

    def set(self, variable: str, value: int) -> None:
        self.lists[variable] = value

    def update(self, key: bytes, value: bytes) -> None:
        self.chosen[key] = value

    def delete(self, key: bytes) -> None:
        del self.chosen[key]

    def __iter__(self) -> Iterator[bytes]:
        return iter(list(self.chosen))


def test_the_kernel_is_told_of_ports_addresses_and_as_many_cgroups_as_it_has_room_for():
    settings = config(
        ports={"include": [443], "exclude": [22]},
        addresses={"include": ["10.0.0.0/8"], "exclude": ["2001:db8::/32"]},
        cgroups={"exclude": ["/a*"]},
    )
    maps = Maps()
    filters.fill(maps, settings, [(1, "/a"), (2, "/b"), (3, "/a/below"), (4, "/aa")])
    assert maps.content == {
        "filter_ports": {struct.pack("=H", 443): b"\x01", struct.pack("=H", 22): b"\x02"},
        "filter_addresses": {
            struct.pack("=I", 104) + bytes(10) + b"\xff\xff\x0a\0\0\0": b"\x01",
            struct.pack("=I", 32) + b"\x20\x01\x0d\xb8" + bytes(12): b"\x02",
        },
        "filter_cgroups": {struct.pack("=Q", 1): b"\x02", struct.pack("=Q", 3): b"\x02"},
    }
    assert maps.lists == {"filter_lists": 31}


def test_the_kernel_forgets_what_is_in_no_list_any_more():
    maps = Maps()
    filters.fill(maps, config(ports={"include": [443], "exclude": [22]}, cgroups={"exclude": ["/a"]}), [(1, "/a")])
    filters.fill(maps, config(ports={"exclude": [443]}))
    assert maps.content == {
        "filter_ports": {struct.pack("=H", 443): b"\x02"},
        "filter_addresses": {},
        "filter_cgroups": {},
    }
    assert maps.lists == {"filter_lists": filters.PORTS_EXCLUDE}


@pytest.mark.parametrize(
    ("chosen", "used"),
    [
        ({"ports": {"include": [1]}}, filters.PORTS_INCLUDE),
        ({"ports": {"exclude": [1]}}, filters.PORTS_EXCLUDE),
        ({"addresses": {"include": ["::/0"]}}, filters.ADDRESSES_INCLUDE),
        ({"addresses": {"exclude": ["::/0"]}}, filters.ADDRESSES_EXCLUDE),
        ({"cgroups": {"exclude": ["/a"]}}, filters.CGROUPS_EXCLUDE),
        ({"cgroups": {"include": ["/a"]}}, 0),
    ],
)
def test_only_lists_that_are_used_are_looked_at_in_the_kernel(chosen, used):
    assert filters.lists_used(config(**chosen)) == used
    assert filters.lists_used(Config()) == 0


def test_other_lists_hold_for_cgroups_that_are_known_and_for_those_that_there_are():
    machine = RecordedMachine({"cgroup_walk": {"": [(WEB, "/web"), (JOB, "/job")]}})
    owned = tcp({"cgroup_id": WEB}, {"cgroup_id": JOB}, {"cgroup_id": NEW})
    wanted = CgroupFilter(config(cgroups={"exclude": ["/new"]}), machine)
    wanted.learn([made(NEW, b"/new")])
    for lists, passing in (
        ({"include": ["/job"]}, [JOB]),
        ({"exclude": ["/web"]}, [JOB, NEW]),
        ({}, [WEB, JOB, NEW]),
    ):
        wanted.follow(config(cgroups=lists))
        assert wanted.keep(owned).number("cgroup_id").tolist() == passing
