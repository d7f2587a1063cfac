"""The ladder of steps: down under pressure, up when there is room, and no swinging."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from otelbpf.guards.ladder import LONGEST_QUIET_S, Ladder


def ladder() -> Ladder:
    return Ladder(steps=3, over=0.8, under=0.6, patience_s=1, quiet_s=10, urgent=0.9)


def levels(one: Ladder, *pressures: float, every_s: float = 1.0, start_s: float = 0.0) -> list[int]:
    return [one.follow(pressure, start_s + index * every_s) for index, pressure in enumerate(pressures)]


def test_the_first_step_is_taken_at_once_the_next_ones_after_a_while() -> None:
    assert levels(ladder(), 0.79, 0.8, 0.8, 0.8, 0.8, 0.8, every_s=0.5) == [0, 1, 1, 2, 2, 3]


def test_at_urgent_pressure_steps_follow_one_another() -> None:
    assert levels(ladder(), 0.95, 0.95, 0.95, 0.95, every_s=0.1) == [1, 2, 3, 3]


def test_between_the_marks_nothing_changes() -> None:
    one = ladder()
    levels(one, 0.8)
    assert set(levels(one, *[0.61, 0.79] * 100, start_s=1)) == {1}


def test_a_step_up_needs_quiet_without_a_break() -> None:
    one = ladder()
    levels(one, 0.8)
    assert levels(one, *[0.6] * 9, 0.7, *[0.6] * 10, start_s=1) == [1] * 20
    assert one.follow(0.6, 21) == 0


def test_a_step_up_that_was_too_early_makes_the_next_one_wait_twice_as_long() -> None:
    one, now_s, waits = ladder(), 0.0, []
    one.follow(0.8, now_s)
    for _ in range(8):
        began_s = now_s + 1
        while one.level:
            now_s += 1
            one.follow(0.5, now_s)
        waits.append(now_s - began_s)
        one.follow(0.8, now_s + 1)
        now_s += 1
    assert waits == [10, 20, 40, 80, 160, LONGEST_QUIET_S, LONGEST_QUIET_S, LONGEST_QUIET_S]


def test_after_a_long_time_above_it_waits_as_at_the_beginning() -> None:
    one = ladder()
    levels(one, 0.8, *[0.5] * 12)
    assert one.level == 0
    one.follow(0.8, 100)
    levels(one, *[0.5] * 10, start_s=101)
    assert one.follow(0.5, 111) == 0


@given(st.lists(st.tuples(st.floats(0, 2), st.floats(0.01, 30)), max_size=200))
def test_it_is_never_off_the_ladder_and_counts_each_step(moves: list[tuple[float, float]]) -> None:
    one, now_s, before = ladder(), 0.0, 0
    for pressure, seconds in moves:
        now_s += seconds
        level = one.follow(pressure, now_s)
        assert abs(level - before) <= 1
        assert level <= before or pressure >= 0.8
        assert level >= before or pressure <= 0.6
        assert 0 <= level <= 3
        assert level == one.downs - one.ups
        before = level
