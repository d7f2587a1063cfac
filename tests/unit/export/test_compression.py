"""Packing: once for each request, and bounded whatever becomes of the requests."""

from __future__ import annotations

import gzip
import os

import pytest

from otelbpf.export.compression import KEPT_BYTES, Compressor
from otelbpf.export.request import Request

LARGEST_BYTES = 3 * 2**20


def test_a_request_is_packed_once():
    compressor = Compressor("gzip")
    request = Request("logs", b"x" * 1000, 1, 0)
    assert compressor.compress(request) is compressor.compress(request)
    assert gzip.decompress(compressor.compress(request)) == request.body


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_what_is_never_answered_is_not_kept_for_ever(compression):
    compressor = Compressor(compression)
    for _ in range(10):
        compressor.compress(Request("logs", os.urandom(LARGEST_BYTES), 1, 0))
        assert compressor.held_bytes <= max(KEPT_BYTES, 2 * LARGEST_BYTES + 1024)
