"""Chunks and lines, however the network cuts them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelbpf.enrich.kubernetes.stream import Chunks
from otelbpf.errors import ProtocolError


def chunked(parts):
    return b"".join(b"%x;note=1\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.lists(st.integers(0, 200), max_size=12))
def test_content_survives_any_cut(parts, cuts):
    data = chunked(parts)
    chunks, found, before = Chunks(), [], 0
    for cut in [*sorted(min(cut, len(data)) for cut in cuts), len(data)]:
        found += list(chunks.feed(data[before:cut]))
        before = cut
    assert b"".join(found) == b"".join(parts)
    assert chunks.ended


@pytest.mark.parametrize("garbage", [b"xyz\r\n", b"-5\r\n", b"\r\n", b"1" * 5000])
def test_garbage_is_refused(garbage):
    with pytest.raises(ProtocolError):
        list(Chunks().feed(garbage))
