"""The watchdog, with real threads that hang, end or go on; only its clock is ours."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from otelbpf.conveyor import Conveyor, Timer
from otelbpf.guards.watchdog import StageState, Watchdog
from otelbpf.pulse import Pulse

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT_S = 60.0


class Clock:
    """Runs ahead of the real one."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead_s


def pass_time(dog: Watchdog, clock: Clock, until_s: float) -> None:
    """Lets the clock run, with looks every now and then that see nothing."""
    while clock.ahead_s < until_s:
        assert (dog.look(), dog.hopeless()) == ([], "")
        clock.ahead_s = min(until_s, clock.ahead_s + LIMIT_S / 4)


@contextmanager
def working(pulse: Pulse, allowed_s: float = 0.0) -> Iterator[threading.Event]:
    """A thread that hangs in its first piece of work until the event is set; then it rests."""
    go, resting, end = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        pulse.beat(allowed_s)
        begun.set()
        go.wait()
        pulse.rest()
        resting.set()
        end.wait()
        pulse.end()

    begun = threading.Event()
    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    try:
        yield go
    finally:
        go.set()
        end.set()
        thread.join()


def test_who_works_or_rests_is_left_alone() -> None:
    clock, pulse = Clock(), Pulse("line")
    dog = Watchdog(lambda: [pulse], LIMIT_S, clock)
    with working(pulse) as go:
        assert (dog.look(), dog.troubles(), dog.hopeless()) == ([], [], "")
        go.set()
        while pulse.overdue_s(time.monotonic() + LIMIT_S):
            time.sleep(0.001)
        clock.ahead_s = 1e6
        assert (dog.look(), dog.troubles(), dog.hopeless()) == ([], [], "")
        assert dog.states() == [StageState("line", "runs", 0.0)]


def test_who_is_stuck_is_told_once_with_the_place_and_again_when_it_moves() -> None:
    clock, pulse = Clock(), Pulse("export away")
    dog = Watchdog(lambda: [pulse], LIMIT_S, clock)
    with working(pulse) as go:
        pass_time(dog, clock, LIMIT_S)
        (told,) = dog.look()
        assert (told.stage, told.stuck) == ("export away", True)
        assert told.sentence.startswith("export away has been stuck for 60 s, in wait (threading.py:")
        assert dog.look() == []
        assert dog.troubles() == [told.sentence]
        assert dog.hopeless() == ""
        go.set()
        while pulse.overdue_s(time.monotonic() + 2 * LIMIT_S):
            time.sleep(0.001)
        (told,) = dog.look()
        assert (told.stage, told.stuck, told.sentence) == ("export away", False, "export away moves again")
        assert (dog.look(), dog.troubles()) == ([], [])


def test_what_a_piece_of_work_may_take_comes_on_top() -> None:
    clock, pulse = Clock(), Pulse("export slow")
    dog = Watchdog(lambda: [pulse], LIMIT_S, clock)
    with working(pulse, allowed_s=30):
        pass_time(dog, clock, LIMIT_S + 29)
        assert dog.look() == []
        clock.ahead_s = LIMIT_S + 30
        assert len(dog.look()) == 1


def test_who_was_stopped_with_all_the_others_has_not_hung() -> None:
    """The time in which nobody looked does not count; what hangs all the same is found afterwards."""
    clock, pulse = Clock(), Pulse("line")
    dog = Watchdog(lambda: [pulse], LIMIT_S, clock)
    with working(pulse):
        assert (dog.look(), dog.hopeless()) == ([], "")
        clock.ahead_s = 10 * LIMIT_S
        assert (dog.look(), dog.hopeless(), dog.troubles()) == ([], "", [])
        assert dog.states()[0].state == "runs"
        pass_time(dog, clock, 11 * LIMIT_S)
        (told,) = dog.look()
        assert told.sentence.startswith("line has been stuck for 60 s")
        for _ in range(4):
            assert dog.hopeless() == ""
            clock.ahead_s += LIMIT_S / 4
        assert dog.hopeless().startswith("line has been stuck for ")


def test_who_ended_without_a_word_is_told() -> None:
    pulse = Pulse("drain")
    thread = threading.Thread(target=pulse.beat)
    thread.start()
    thread.join()
    dog = Watchdog(lambda: [pulse], LIMIT_S)
    assert [told.sentence for told in dog.look()] == ["drain is no longer running"]
    assert dog.troubles() == ["drain is no longer running"]
    assert dog.states()[0].state == "ended"
    assert dog.look() == []


def test_who_ended_in_order_is_not() -> None:
    pulse = Pulse("drain")
    with working(pulse):
        pass
    dog = Watchdog(lambda: [pulse], LIMIT_S)
    assert (dog.look(), dog.troubles()) == ([], [])


def test_a_line_that_hangs_is_given_up_and_does_not_hold_the_end() -> None:
    hanging, hangs, arrived = threading.Event(), threading.Event(), threading.Event()

    def tick() -> None:
        hangs.set()
        hanging.wait()

    clock = Clock()
    with Conveyor(tick, [Timer(0.01, lambda: None)], arrived, threading.Event(), tick_s=0) as conveyor:
        dog = Watchdog(lambda: [conveyor.pulse], LIMIT_S, clock)
        arrived.set()
        assert hangs.wait(10)
        pass_time(dog, clock, LIMIT_S)
        assert "line has been stuck for 60 s, in _take_turn (otelbpf/conveyor.py:" in dog.troubles()[0]
        while clock.ahead_s < 2 * LIMIT_S:
            assert dog.hopeless() == ""
            clock.ahead_s += LIMIT_S / 4
        assert dog.hopeless().startswith("line has been stuck for 120 s")
        assert not conveyor.stop(time.monotonic())
        hanging.set()
    assert dog.troubles() == []
