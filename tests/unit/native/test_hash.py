"""Hashes of many inputs at once, held against the standard library's."""

from __future__ import annotations

import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from otelbpf.probes.connection_id import hash_each


@given(st.binary(max_size=64), st.lists(st.binary(min_size=8, max_size=8), max_size=20))
def test_each_has_the_hash_that_it_has_alone(key: bytes, inputs: list[bytes]) -> None:
    rows = np.array([*b"".join(inputs)], np.uint8).reshape(-1, 8)
    wanted = [hashlib.blake2b(one, digest_size=16, key=key).digest() for one in inputs]
    assert [digest.tobytes() for digest in hash_each(key, rows)] == wanted
