"""Messages of connection tracking, whatever is in them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from otelbpf.kernel.conntrack import connections


@given(st.binary(max_size=300))
def test_what_is_no_message_of_conntrack_is_skipped(data):
    list(connections(data))
