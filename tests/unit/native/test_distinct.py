"""Distinct things among rows: compared with what numpy says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelbpf.native.distinct import distinct, distinct_together, words
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


@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 5), max_size=200))
def test_they_come_in_the_order_in_which_they_first_appear(numbers):
    things = distinct(np.array(numbers, dtype=np.uint64))
    seen = list(dict.fromkeys(numbers))
    assert things.rows.tolist() == [numbers.index(number) for number in seen]
    assert things.codes.tolist() == [seen.index(number) for number in numbers]


def test_many_are_found_whatever_their_low_bits_are():
    numbers = np.arange(50_000, dtype=np.uint64) << np.uint64(40)
    things = distinct(np.concatenate([numbers, numbers]))
    assert (things.rows == np.arange(50_000)).all()
    assert (things.codes == np.tile(np.arange(50_000), 2)).all()


def test_columns_of_a_packed_struct_and_of_other_integers():
    rows = np.array([(1, 7, -1), (2, 7, 3), (1, 7, -1)], [("odd", "u1"), ("number", "u8"), ("signed", "i4")])
    things = distinct_together((rows["number"], rows["signed"], rows["odd"] == 1))
    assert (things.rows.tolist(), things.codes.tolist()) == ([0, 1], [0, 1, 0])


@pytest.mark.parametrize("text", ["10.0.0.2", "2001:db8::1"])
def test_words_of_addresses(text):
    pair = words(tcp({"remote_address": text}).rows["remote_address"])
    assert b"".join(word.tobytes() for word in pair) == packed(text)
