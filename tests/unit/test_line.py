"""The line learns before it enriches, and its thread stops when it is told, or fails where it is seen."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from otelbpf.batch import Batch
from otelbpf.conveyor import Conveyor, Timer
from otelbpf.errors import OtelbpfError
from otelbpf.ledger import EventLedger
from otelbpf.line import PIECE_ROWS, Line
from otelbpf.probes.probe import Probe
from otelbpf.source import Rows, Source, event_ledger

if TYPE_CHECKING:
    from collections.abc import Sequence

LAYOUT = np.dtype([("head", [("time_ns", "<u8")]), ("good", "?")])


class KeepGood:
    """Drops rows that are not good, as a probe drops what it cannot decode."""

    undecodable = 0

    def __call__(self, batch: Batch) -> Batch:
        good = batch.rows["good"]
        self.undecodable += int(np.count_nonzero(~good))
        return batch.select(good)


class Stages:
    """Stands for enrichment, filter, hold, logs and metrics: keeps the order in which the line called it."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def learn(self, batches: Sequence[Batch]) -> None:
        self.calls.append(("learn", [(batch.probe, len(batch)) for batch in batches]))

    def keep(self, batch: Batch) -> Batch:
        return batch if batch.probe != "half" else batch.select(np.arange(len(batch)) % 2 == 0)

    def enrich(self, batch: Batch) -> Batch:
        self.calls.append(("enrich", batch.probe))
        return batch

    def sifted(self, source: Source, batch: Batch) -> Batch:
        return batch

    def released(self, *, everything: bool = False) -> list[Batch]:
        return []

    def update(self, batch: Batch) -> None:
        self.calls.append(("update", batch.probe))

    def encode(self, batch: Batch) -> list[Any]:
        return [f"records of {batch.probe}"]

    def collect(self, now_ns: int) -> list[Any]:
        return [f"metrics at {now_ns}"]


def source(name: str) -> Source:
    probe = Probe(name, name, "scope", "", (), lambda _config: KeepGood(), lambda _config: {})
    return Source(probe, KeepGood())


def rows(*good: bool) -> np.ndarray[Any, Any]:
    return np.array([((0,), flag) for flag in good], LAYOUT)


def test_everything_is_learnt_before_anything_is_enriched() -> None:
    stages, requests = Stages(), []
    sources = [source("tcp"), source("dns"), source("idle")]
    line = Line(stages, stages, stages, stages, requests.append, sources, stages)  # type: ignore[arg-type]  # one stand-in for five
    line.carry([Rows(sources[0], rows(True, True)), Rows(sources[1], rows(True, False)), Rows(sources[2], rows())], 7)
    assert stages.calls == [
        ("learn", [("tcp", 2), ("dns", 1)]),
        ("learn", [("tcp", 2), ("dns", 1)]),
        ("enrich", "tcp"),
        ("update", "tcp"),
        ("enrich", "dns"),
        ("update", "dns"),
    ]
    assert requests == ["records of tcp", "records of dns"]
    assert [part.processed for part in sources] == [2, 1, 0]


def test_a_snapshot_is_carried_and_is_not_an_event() -> None:
    stages, one = Stages(), source("tcp")
    line = Line(stages, stages, stages, stages, lambda _request: None, [one], stages)  # type: ignore[arg-type]
    line.carry([Rows(one, rows(True), snapshot=True)], 0)
    assert ("update", "tcp") in stages.calls
    assert one.processed == 0


def test_many_rows_are_encoded_in_pieces_and_a_snapshot_whole() -> None:
    stages, one = Stages(), source("tcp")
    line = Line(stages, stages, stages, stages, lambda _request: None, [one], stages)  # type: ignore[arg-type]
    many = rows(*[True] * (PIECE_ROWS + 1))
    line.carry([Rows(one, many)], 0)
    line.carry([Rows(one, many, snapshot=True)], 0)
    assert [call for call in stages.calls if call[0] == "update"] == [("update", "tcp")] * 3
    assert one.processed == PIECE_ROWS + 1


def test_what_the_filter_drops_is_counted_and_goes_no_further() -> None:
    stages, half = Stages(), source("half")
    line = Line(stages, stages, stages, stages, lambda _request: None, [half], stages)  # type: ignore[arg-type]
    line.carry([Rows(half, rows(True, True, True))], 0)
    assert (half.processed, half.filtered) == (2, 1)


def test_the_event_ledger_joins_the_kernels_terms_and_the_lines() -> None:
    one = source("tcp")
    one.prepare(Batch("tcp", rows(False), 0))
    one.processed = 3
    kernel = EventLedger(seen=12, filtered=1, pending=2, lost={"ring_full": 4})
    assert event_ledger(one, kernel, waiting=1) == EventLedger(
        seen=12, processed=3, filtered=1, undecodable=1, pending=3, lost={"ring_full": 4}
    )
    assert event_ledger(one, kernel, waiting=1).balanced


def test_the_conveyor_ticks_when_something_arrives_and_runs_timers() -> None:
    ticked, timed, arrived = threading.Event(), threading.Event(), threading.Event()
    with Conveyor(ticked.set, [Timer(0.01, timed.set)], arrived, threading.Event(), tick_s=0.0) as conveyor:
        arrived.set()
        assert ticked.wait(10)
        assert timed.wait(10)
    assert conveyor.failure is None


def test_an_error_in_the_thread_is_kept() -> None:
    arrived = threading.Event()

    def fail() -> None:
        raise ValueError("broken")

    conveyor = Conveyor(fail, [], arrived, threading.Event(), tick_s=0.0)
    with conveyor:
        arrived.set()
        conveyor._thread.join(10)
    with pytest.raises(OtelbpfError, match=r"bug in otelbpf: ValueError: broken"):
        conveyor.check()


def test_the_conveyor_stands_between_two_ticks_while_it_is_paused() -> None:
    ticks, arrived = [], threading.Event()
    with Conveyor(
        lambda: ticks.append(1), [Timer(0.001, lambda: None)], arrived, threading.Event(), tick_s=0.0
    ) as conveyor:
        for _ in range(20):
            with conveyor.paused():
                before = len(ticks)
                threading.Event().wait(0.005)
                assert len(ticks) == before
            while len(ticks) == before:
                threading.Event().wait(0.001)


def test_a_line_that_does_not_come_to_rest_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otelbpf.conveyor.PAUSED_WITHIN_S", 0.01)
    ticking, goes_on, arrived = threading.Event(), threading.Event(), threading.Event()

    def tick() -> None:
        ticking.set()
        goes_on.wait(30)

    with Conveyor(tick, [], arrived, threading.Event(), tick_s=0.0) as conveyor:
        arrived.set()
        ticking.wait(30)
        with pytest.raises(OtelbpfError, match="busy"), conveyor.paused():
            pass
        goes_on.set()
        ticking.clear()


def test_a_timer_takes_another_interval_at_once() -> None:
    timer = Timer(100.0, lambda: None, due=1000.0)
    timer.every(10.0)
    assert (timer.interval_s, timer.due) == (10.0, 910.0)
    timer.every(60.0)
    assert (timer.interval_s, timer.due) == (60.0, 910.0)
