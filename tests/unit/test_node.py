"""The ledger of a live node is of one moment, though its terms are read one after the other."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

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
        seen=10, processed=3, filtered=1, pending=4, lost={"ring_full": 2, "pending_full": 0, "unread": 0, "queue_full": 0}
    )


def test_what_never_adds_up_is_told_as_it_is():
    assert not ledger(0).balanced
