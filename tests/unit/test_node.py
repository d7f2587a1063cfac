"""The live end of the line: a snapshot goes with what the rings held, and the ledger is of one moment."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from otelbpf.errors import Unsupported
from otelbpf.ledger import EventLedger
from otelbpf.node import Node

COUNTS = {"seen": 10, "filtered": 1, "throttled": 0, "ring_full": 2, "pending_full": 0, "unread": 0, "pending": 1}


class Drain:
    """Says how many records wait; another number each time it is asked, the last one for ever."""

    shed = (0,)

    def __init__(self, *waiting: int) -> None:
        self.waiting = list(waiting)

    def pending(self, _source: int) -> int:
        return self.waiting.pop(0) if len(self.waiting) > 1 else self.waiting[0]


def ledger(*waiting: int) -> EventLedger:
    source = SimpleNamespace(processed=3, filtered=0, carrying=0, held=0, prepare=SimpleNamespace(undecodable=0))
    probe = SimpleNamespace(probe=SimpleNamespace(name="tcp", events=("one",)), counts=COUNTS)
    line = SimpleNamespace(sources=[source])
    return Node([probe], Drain(*waiting), line, None).ledgers()["tcp"]  # type: ignore[list-item, arg-type]


@pytest.mark.parametrize("waiting", [(3,), (0, 3), (4, 2, 3)], ids=["quiet", "on its way", "busy"])
def test_what_moved_while_it_was_read_is_read_again(waiting):
    assert ledger(*waiting) == EventLedger(
        seen=10,
        processed=3,
        filtered=1,
        pending=4,
        lost={"ring_full": 2, "pending_full": 0, "unread": 0, "queue_full": 0},
    )


def test_what_never_adds_up_is_told_as_it_is():
    assert not ledger(0).balanced


ROW = np.dtype([("number", "<u8")])


class Ring:
    """Stands for drain and line: what the ring holds can be taken once it has caught up; keeps what is carried."""

    def __init__(self) -> None:
        self.in_ring = [np.array([(1,)], ROW).tobytes()]
        self.read: list[bytes] = []
        self.carried: list[list[tuple[bool, list[int]]]] = []

    def catch_up(self, _within_s: float) -> None:
        self.read, self.in_ring = self.in_ring, []

    ticks = 1

    def take(self, before_tick: int) -> list[tuple[int, bytes]]:
        assert before_tick == self.ticks
        taken, self.read = [(0, records) for records in self.read], []
        return taken

    def carry(self, arrived, _clock_offset_ns) -> None:
        self.carried.append([(part.snapshot, part.rows["number"].tolist()) for part in arrived])


def carried_by_a_snapshot(alive) -> list[list[tuple[bool, list[int]]]]:
    ring = Ring()
    probe = SimpleNamespace(
        probe=SimpleNamespace(snapshots=("walk",)), record=ROW, struct=ROW, snapshot=alive, throttle=None
    )
    line = SimpleNamespace(sources=[SimpleNamespace()], carry=ring.carry)
    Node([probe], ring, line, None).snapshot()  # type: ignore[list-item, arg-type]
    return ring.carried


def test_a_snapshot_goes_with_the_events_that_happened_before_it():
    assert carried_by_a_snapshot(np.array([(2,)], ROW).tobytes) == [[(False, [1])], [(True, [2])]]


def test_a_snapshot_that_the_kernel_cannot_take_just_now_is_left_out():
    def fails() -> bytes:
        raise Unsupported("walk", "cannot iterate: Cannot allocate memory")

    assert carried_by_a_snapshot(fails) == [[(False, [1])]]
