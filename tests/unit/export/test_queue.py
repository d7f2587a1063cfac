"""The queue: order, bounds, turns, and an account that balances whatever happens."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelbpf.export.account import SignalLedger
from otelbpf.export.queue import Queue
from otelbpf.export.request import Request


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def request(number: int, *, signal: str = "logs", items: int = 1, size: int = 10) -> Request:
    return Request(signal, b"%010d" % number if size == 10 else bytes(size), items, number)


def taken(queue: Queue) -> list[int]:
    """The numbers of everything that is due, settled on the way."""
    found = []
    while (entry := queue.take(0)) is not None:
        found.append(entry.request.oldest_ns)
        queue.settle(entry)
    return found


def test_requests_leave_in_the_order_they_came():
    queue = Queue(1000)
    for number in range(5):
        assert queue.put(request(number)) == 0
    assert taken(queue) == [0, 1, 2, 3, 4]
    assert queue.ledger()["logs"] == SignalLedger(made=5, accepted=5, rejected=0, dropped={}, queued=0)


def test_the_oldest_is_dropped_when_it_is_full():
    queue = Queue(30)
    dropped = [queue.put(request(number, items=number)) for number in range(1, 6)]
    assert dropped == [0, 0, 0, 1, 2]
    assert taken(queue) == [3, 4, 5]
    assert queue.ledger()["logs"].dropped == {"queue_full": 3}


def test_what_is_being_sent_counts_against_the_bound_but_is_not_dropped():
    queue = Queue(30)
    queue.put(request(1))
    entry = queue.take(0)
    for number in range(2, 5):
        queue.put(request(number))
    assert queue.sizes()["logs"].size_bytes == 30
    assert queue.sizes()["logs"].in_flight == 1
    queue.settle(entry)
    assert taken(queue) == [3, 4]
    assert queue.ledger()["logs"].balanced


def test_a_request_larger_than_the_bound_is_dropped_at_once():
    queue = Queue(30)
    assert queue.put(request(1, items=7, size=31)) == 7
    assert queue.take(0) is None
    assert queue.ledger()["logs"].dropped == {"queue_full": 7}


def test_signals_take_turns_and_have_bounds_of_their_own():
    queue = Queue(30)
    for number in range(3):
        queue.put(request(number))
        queue.put(request(10 + number, signal="metrics"))
    assert taken(queue) == [0, 10, 1, 11, 2, 12]


def test_a_request_that_is_tried_again_goes_first_and_its_signal_waits():
    clock = Clock()
    queue = Queue(1000, clock)
    queue.put(request(1))
    queue.put(request(2))
    queue.again(queue.take(0), 5)
    queue.put(request(3, signal="metrics"))
    assert taken(queue) == [3]
    clock.now += 5
    assert taken(queue) == [1, 2]


def test_the_first_try_is_remembered():
    clock = Clock()
    queue = Queue(1000, clock)
    queue.put(request(1))
    entry = queue.take(0)
    clock.now += 7
    queue.again(entry, 0)
    assert queue.take(0).first_try == 100.0


def test_a_hurry_ends_the_waits():
    queue = Queue(1000, Clock())
    queue.put(request(1))
    queue.again(queue.take(0), 1000)
    assert queue.take(0) is None
    queue.hurry()
    assert taken(queue) == [1]


def test_partial_success_splits_a_request():
    queue = Queue(1000)
    queue.put(request(1, items=10))
    queue.settle(queue.take(0), rejected=3)
    assert queue.ledger()["logs"] == SignalLedger(10, 7, 3, {}, 0)


def test_closing_drops_everything_and_an_answer_that_comes_later_changes_nothing():
    queue = Queue(1000)
    for number in range(3):
        queue.put(request(number, items=2))
    entry = queue.take(0)
    assert queue.close("shutdown") == {"logs": 6}
    queue.settle(entry)
    assert queue.again(entry, 0) == 0
    assert queue.put(request(9, items=2)) == 2
    assert queue.take(1000) is None
    assert queue.ledger()["logs"] == SignalLedger(8, 0, 0, {"shutdown": 8}, 0)
    assert queue.sizes()["logs"].size_bytes == 0


def test_take_wakes_for_what_arrives():
    queue = Queue(1000)
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(queue.take(30)))
    thread.start()
    queue.put(request(1))
    thread.join(30)
    assert found[0] is not None


def test_who_can_wait_loses_nothing():
    queue = Queue(max_bytes=25)

    def produce() -> None:
        for number in range(50):
            queue.wait_for_room(request(number))
            queue.put(request(number))

    producer = threading.Thread(target=produce)
    producer.start()
    numbers = []
    while len(numbers) < 50:
        entry = queue.take(5)
        assert entry is not None
        numbers.append(entry.request.oldest_ns)
        queue.settle(entry)
    producer.join()
    assert queue.ledger()["logs"].accepted == 50


def test_nobody_waits_for_room_that_there_will_not_be():
    queue = Queue(max_bytes=25)
    queue.wait_for_room(request(1, size=100))
    queue.put(request(2, size=20))
    queue.close("shutdown")
    queue.wait_for_room(request(3))


def test_waiting_for_the_end_does_not_take_the_wake_up_of_the_sender():
    queue = Queue(1000)
    queue.put(request(1))

    def work() -> None:
        while (entry := queue.take(30)) is not None:
            queue.settle(entry)

    thread = threading.Thread(target=work)
    thread.start()
    assert queue.wait_until_empty(float("inf"))
    queue.close("shutdown")
    thread.join(30)
    assert queue.ledger()["logs"].accepted == 1


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(["logs", "metrics"]), st.integers(0, 50), st.integers(0, 40)),
        st.tuples(st.sampled_from(["accept", "reject", "drop", "again", "leave", "hurry"])),
        st.tuples(st.just("close")),
    ),
    max_size=60,
)


@given(STEPS)
def test_the_account_balances_after_every_step(steps):
    clock = Clock()
    queue = Queue(100, clock)
    made: dict[str, int] = {}
    for step, *rest in steps:
        clock.now += 0.5
        if step == "put":
            signal, items, size = rest
            queue.put(Request(signal, bytes(size), items, 0))
            made[signal] = made.get(signal, 0) + items
        elif step == "close":
            queue.close("shutdown")
        elif step == "hurry":
            queue.hurry()
        elif (entry := queue.take(0)) is not None:
            if step == "again":
                queue.again(entry, 1.0)
            elif step != "leave":
                queue.settle(
                    entry,
                    rejected=entry.request.items if step == "reject" else 0,
                    dropped="given_up" if step == "drop" else "",
                )
        ledger = queue.ledger()
        assert {signal: entry.made for signal, entry in ledger.items()} == made
        assert all(entry.balanced and entry.queued >= 0 for entry in ledger.values())
        assert all(size.size_bytes >= 0 for size in queue.sizes().values())


def test_producers_and_senders_at_once_lose_nothing():
    queue = Queue(50_000)

    def produce() -> None:
        for number in range(2000):
            queue.put(request(number, items=3, size=100))

    def send() -> None:
        while (entry := queue.take(30)) is not None:
            queue.settle(entry, rejected=1)

    sender = threading.Thread(target=send)
    producers = [threading.Thread(target=produce) for _ in range(3)]
    for thread in (sender, *producers):
        thread.start()
    for thread in producers:
        thread.join()
    assert queue.wait_until_empty(float("inf"))
    queue.close("shutdown")
    sender.join(30)
    ledger = queue.ledger()["logs"]
    assert ledger.balanced
    assert (ledger.made, ledger.queued) == (18_000, 0)
    assert ledger.accepted == 2 * ledger.rejected


@pytest.mark.parametrize("reason", ["shutdown"])
def test_the_first_reason_to_close_stays(reason):
    queue = Queue(100)
    queue.close(reason)
    queue.close("other")
    queue.put(request(1))
    assert queue.ledger()["logs"].dropped == {reason: 1}
