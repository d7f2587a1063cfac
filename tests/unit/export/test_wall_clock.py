"""What is too old, while somebody sets the clock."""

from __future__ import annotations

from dataclasses import dataclass

from otelbpf.export.wall_clock import WallClock

S = 10**9
DAY_S = 86400
DAY_NS = DAY_S * S


@dataclass
class Clocks:
    wall_ns: int = 1000 * DAY_NS
    steady_ns: int = 5 * S

    def pass_by(self, ns: int) -> None:
        self.wall_ns += ns
        self.steady_ns += ns

    def made(self) -> WallClock:
        return WallClock(lambda: self.wall_ns, lambda: self.steady_ns)


def test_without_steps_it_is_the_wall_clock():
    clocks = Clocks()
    clock = clocks.made()
    clocks.pass_by(10 * S)
    assert clock.before(DAY_S) == 999 * DAY_NS + 10 * S


def test_a_step_forward_makes_nothing_old_until_it_is_old():
    clocks = Clocks()
    clock = clocks.made()
    made_ns = clocks.wall_ns
    clocks.wall_ns += 400 * DAY_NS
    assert clock.before(DAY_S) < made_ns
    clocks.pass_by(DAY_NS - S)
    assert clock.before(DAY_S) < made_ns
    clocks.pass_by(2 * S)
    assert clock.before(DAY_S) > made_ns


def test_a_step_back_keeps_what_there_is_for_longer():
    clocks = Clocks()
    clock = clocks.made()
    made_ns = clocks.wall_ns
    clocks.wall_ns -= DAY_NS
    clocks.pass_by(DAY_NS + S)
    assert clock.before(DAY_S) < made_ns
    clocks.pass_by(DAY_NS)
    assert clock.before(DAY_S) > made_ns


def test_steering_is_no_step():
    clocks = Clocks()
    clock = clocks.made()
    for _ in range(1000):
        clocks.pass_by(10 * S)
        clocks.wall_ns += S // 200
        assert clock.before(DAY_S) == clocks.wall_ns - DAY_NS
