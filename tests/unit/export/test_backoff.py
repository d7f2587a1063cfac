"""Waits between tries."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from otelbpf.config import Retry
from otelbpf.export.backoff import Backoff

STEADY = Retry(initial_interval=5, max_interval=30, multiplier=1.5, randomization_factor=0, max_elapsed_time=300)


def test_waits_grow_to_the_longest():
    backoff = Backoff(STEADY)
    assert [backoff.wait_s(None) for _ in range(6)] == [5, 7.5, 11.25, 16.875, 25.3125, 30]


def test_success_starts_anew():
    backoff = Backoff(STEADY)
    backoff.wait_s(None)
    backoff.reset()
    assert backoff.wait_s(None) == 5


def test_what_the_peer_asks_for_wins():
    assert Backoff(STEADY).wait_s(1.5) == 1.5
    assert Backoff(STEADY).wait_s(77.0) == 77.0


def test_a_peer_that_asks_for_no_wait_is_not_asked_without_end():
    assert Backoff(STEADY).wait_s(0.0) == 1.0
    short = Backoff(Retry(initial_interval=0.1, multiplier=2, randomization_factor=0))
    assert [round(short.wait_s(0.0), 3) for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


@given(st.integers(0, 1000))
def test_jitter_stays_within_its_share(seed):
    backoff = Backoff(Retry(initial_interval=10, randomization_factor=0.5), Random(seed))
    assert 5 <= backoff.wait_s(None) <= 15


def test_a_request_is_given_up_when_its_next_try_would_be_too_late():
    backoff = Backoff(STEADY)
    assert backoff.allows(wait_s=30, tried_for_s=270)
    assert not backoff.allows(wait_s=30, tried_for_s=271)


def test_zero_means_never_and_disabled_means_at_once():
    assert Backoff(Retry(max_elapsed_time=0)).allows(30, 1e9)
    assert not Backoff(Retry(enabled=False)).allows(0, 0)
