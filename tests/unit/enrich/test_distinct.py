"""Distinct things among rows: compared with what numpy says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelbpf.enrich import distinct as module
from otelbpf.enrich.distinct import distinct, distinct_together, words
from tests.unit.enrich.rows import packed, tcp

SMALL = st.lists(st.tuples(*[st.integers(0, 3)] * 3), max_size=50)


@given(SMALL)
def test_rows_and_codes_give_the_rows_back(found):
    columns = np.array(found, dtype=np.uint64).reshape(-1, 3)
    things = distinct_together(tuple(columns.T))
    assert (columns[things.rows][things.codes] == columns).all()
    assert len(things.rows) == len(set(found))


def test_nothing_is_nothing():
    assert [len(part) for part in distinct(np.array([], dtype=np.uint64))] == [0, 0]


def test_hashes_that_collide_are_told_apart(monkeypatch):
    monkeypatch.setattr(module, "MIX", np.uint64(0))
    first, second = np.arange(8, dtype=np.uint64), np.zeros(8, dtype=np.uint64)
    things = distinct_together((first, second))
    assert len(things.rows) == 8
    assert (first[things.rows][things.codes] == first).all()


@pytest.mark.parametrize("text", ["10.0.0.2", "2001:db8::1"])
def test_words_of_addresses(text):
    pair = words(tcp({"remote_address": text}).rows["remote_address"])
    assert b"".join(word.tobytes() for word in pair) == packed(text)
