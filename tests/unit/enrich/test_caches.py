"""Caches that are bounded and count."""

from __future__ import annotations

from otelbpf.enrich.caches import Counters, Made, Memory


def test_memory_forgets_what_was_not_used_for_the_longest_time():
    memory = Memory(2)
    memory["a"], memory["b"] = 1, 2
    assert memory.recall("a") == 1
    memory["c"] = 3
    assert [memory.recall(key) for key in "abc"] == [1, None, 3]
    assert memory.counters() == Counters(hits=3, misses=1, evictions=1, size=2)


def test_made_makes_each_once_while_it_fits():
    asked = []
    made = Made(4, lambda key: asked.append(key) or key.upper())
    assert made.of_all(["a", "b", "a"]) == ["A", "B", "A"]
    assert made.of("a") == "A"
    assert asked == ["a", "b"]
    assert made.counters() == Counters(hits=2, misses=2, evictions=0, size=2)


def test_made_keeps_what_is_used_and_stays_below_its_limit():
    made = Made(100, lambda key: -key)
    for number in range(1, 10_000):
        assert made.of_all([7, number]) == [-7, -number]
        assert made.counters().size <= 100
    counters = made.counters()
    assert counters.misses == 9999
    assert counters.evictions + counters.size == 9999


def test_made_makes_all_anew_after_it_was_cleared():
    sign = [1]
    made = Made(4, lambda key: sign[0] * key)
    made.of(5)
    sign[0] = -1
    made.clear()
    assert made.of(5) == -5
