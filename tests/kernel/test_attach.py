from __future__ import annotations

import gc
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from otelbpf.errors import CannotRun
from otelbpf.kernel import features
from otelbpf.kernel.attach import attach, attach_all, examine
from otelbpf.probes.probe import Probe, Walk, Way
from tests.kernel.sample import open_files
from tests.kernel.walks import skip_without_walks_of_maps

GOOD = Way("good", ("produce", "on_getppid"))
UNSAFE = Way("unsafe", ("produce", "unsafe"))
ABSENT = Way("absent", ("produce", "absent"))
NOT_ATTACHED = Way("not attached", ("produce", "absent_when_attached"))

PROBE = Probe(
    name="sample",
    struct="sample",
    scope="test",
    summary="",
    ways=(GOOD,),
    prepare=lambda _config: None,
    constants=lambda _config: {"burst": 5},
    snapshots=(Walk("each_task"),),
    adopt="each_task",
    sweep="produce",
    map_sizes=lambda _config: {"table": 10},
)
CONFIG = SimpleNamespace(
    filters=SimpleNamespace(exclude_self=True),
    probes=SimpleNamespace(sample=SimpleNamespace(ring_size=100_000)),
)


def with_ways(*ways: Way) -> Probe:
    return replace(PROBE, ways=ways)


def test_the_first_way_that_the_kernel_accepts_is_taken(sample):
    with attach(with_ways(ABSENT, UNSAFE, NOT_ATTACHED, GOOD), CONFIG, path=sample) as attached:
        assert (attached.state, attached.way) == ("attached", GOOD)
        assert [refusal.what for refusal in attached.refused] == ["way absent", "way unsafe", "way not attached"]
        assert "this kernel has no otelbpf_no_such_tracepoint" in attached.refused[0].reason
        assert "refused by the verifier" in attached.refused[1].reason
        assert "this kernel has no otelbpf/no_such_tracepoint" in attached.refused[2].reason
        assert attached.lost == []


@pytest.mark.parametrize("optional", ["absent", "unsafe", "absent_when_attached"])
def test_an_optional_program_costs_its_detail_only(sample, optional):
    way = Way("good", GOOD.programs, (optional, "on_packet"), {optional: "how it ended"})
    with attach(with_ways(way), CONFIG, path=sample) as attached:
        assert (attached.state, attached.way, attached.lost) == ("degraded", way, ["how it ended"])
        assert [refusal.what for refusal in attached.refused] == [optional]
        attached.sweep()
        assert attached.counts["seen"] == 5


def test_a_probe_that_the_kernel_refuses_fails_and_nothing_else(sample):
    with attach(with_ways(UNSAFE, ABSENT), CONFIG, path=sample) as attached:
        assert (attached.state, attached.way, attached.object, attached.ring) == ("failed", None, None, None)
        assert len(attached.refused) == 2
        assert attached.adopt() == attached.snapshot() == b""
        attached.sweep()
        attached.detach()


def test_iterators_and_sweep_run_by_their_role(sample):
    with attach(PROBE, CONFIG, path=sample) as attached:
        for walked in (attached.snapshot(), attached.adopt()):
            assert features.initial_pid() in np.frombuffer(walked, attached.struct)["sequence"]
        attached.sweep()
        rows = np.frombuffer(attached.ring.drain(attached.ring.producer), attached.record)
        assert rows["sequence"].tolist() == [0, 1, 2, 3, 4]


def test_a_refused_iterator_is_a_detail(sample):
    with attach(replace(PROBE, snapshots=(Walk("unsafe"), Walk("absent"))), CONFIG, path=sample) as attached:
        assert (attached.state, attached.lost) == ("degraded", ["what is alive, until it ends"])
        assert [refusal.what for refusal in attached.refused] == ["unsafe", "absent"]
        assert attached.snapshot() == b""


def test_the_first_walk_that_the_kernel_accepts_gives_the_snapshot(sample):
    walks = (Walk("unsafe"), Walk("each_task", misses="little"), Walk("each_entry", over="table"))
    with attach(replace(PROBE, snapshots=walks), CONFIG, path=sample) as attached:
        assert (attached.state, attached.walk, attached.lost) == ("attached", walks[1], [])
        assert [refusal.what for refusal in attached.refused] == ["unsafe"]
        assert not attached.has("each_entry")
        assert features.initial_pid() in np.frombuffer(attached.snapshot(), attached.struct)["sequence"]


def test_a_walk_may_be_over_a_map(sample):
    skip_without_walks_of_maps()
    with attach(replace(PROBE, snapshots=(Walk("each_entry", over="table"),)), CONFIG, path=sample) as attached:
        attached.object.map("table").update(bytes([1, 0, 0, 0]), bytes(8))
        assert len(attached.snapshot()) == 16


def test_sizes_come_from_the_configuration_rounded_up(sample):
    with attach(PROBE, CONFIG, path=sample) as attached:
        assert attached.object.map("events").max_entries == 131072
        assert attached.object.map("table").max_entries == 10


def test_maps_can_be_filled_before_anything_runs(sample):
    def fill(loaded):
        loaded.map("table").update(bytes([7, 0, 0, 0]), bytes(8))
        assert int(loaded.bss("calls")) == 0

    with attach(PROBE, CONFIG, path=sample, before_attach=fill) as attached:
        assert len(attached.object.map("table")) == 1


def test_counts_and_what_was_left_can_be_told_afterwards(sample):
    with attach(PROBE, CONFIG, path=sample) as attached:
        attached.sweep()
    assert attached.counts["seen"] == attached.ring.pending == 5


def test_probes_are_attached_side_by_side_and_keep_their_order(sample, monkeypatch):
    monkeypatch.setattr("otelbpf.kernel.attach.object_path", lambda _name: sample)
    names = ["one", "two", "three"]
    probes = [replace(PROBE, name=name) for name in names]
    probes.insert(1, replace(with_ways(UNSAFE), name="refused"))
    config = SimpleNamespace(filters=CONFIG.filters, probes=SimpleNamespace())
    with attach_all(probes, config) as attached:
        assert [one.probe.name for one in attached] == ["one", "refused", "two", "three"]
        assert [one.state for one in attached] == ["attached", "failed", "attached", "attached"]
        for one in attached:
            one.sweep()
    assert [one.counts["seen"] for one in attached if one.way] == [5, 5, 5]


def test_when_one_probe_cannot_be_opened_none_stays(sample, tmp_path, monkeypatch):
    before = open_files()
    monkeypatch.setattr(
        "otelbpf.kernel.attach.object_path", lambda name: tmp_path / "none.bpf.o" if name == "gone" else sample
    )
    with (
        pytest.raises(CannotRun, match="`make bpf` makes it"),
        attach_all([PROBE, replace(PROBE, name="gone")], CONFIG),
    ):
        pass
    gc.collect()  # the error's frames hold the counts of the one that was attached, which outlive their object
    assert open_files() == before


def test_a_missing_object_is_told(tmp_path):
    with pytest.raises(CannotRun, match="`make bpf` makes it"), attach(PROBE, CONFIG, path=tmp_path / "none.bpf.o"):
        pass


def test_each_way_can_be_examined(sample):
    answers = examine(with_ways(UNSAFE, GOOD, ABSENT), CONFIG, path=sample)
    assert list(answers) == ["unsafe", "good", "absent"]
    assert answers["good"] is None
    assert "refused by the verifier" in answers["unsafe"]
    assert "this kernel has no" in answers["absent"]
