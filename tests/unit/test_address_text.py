"""Columns of addresses as text: compared with what the standard library says."""

from __future__ import annotations

import ipaddress

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from otelbpf.address_text import is_mapped, port_words, texts, words
from otelbpf.lines import Part
from tests.unit.enrich.rows import packed

SPARSE = st.lists(st.sampled_from([0, 0, 0, 1, 0xFF, 0x1234]), min_size=8, max_size=8).map(
    lambda groups: ":".join(f"{group:x}" for group in groups)
)
ADDRESSES = st.one_of(
    SPARSE,
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.sampled_from(["0.0.0.0", "::", "::1", "::ffff:0:0", "0.0.0.1", "1.0.0.0", "255.255.255.255"]),
)


def wanted(raw: bytes) -> str:
    address = ipaddress.IPv6Address(raw)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped) if int(address.ipv4_mapped) else ""
    return ipaddress.IPv6Address(raw).compressed if int(address) else ""


@given(st.lists(ADDRESSES, max_size=40))
def test_texts(addresses: list[str]) -> None:
    raw = [packed(address) for address in addresses]
    column = np.array(raw, "V16") if raw else np.zeros(0, "V16")
    assert texts(column) == [wanted(one) for one in raw]
    in_brackets = [text.decode() for text in Part(words(column, bracketed=True)).texts()]
    assert in_brackets == [f"[{text}]" if ":" in text else text for text in texts(column)]
    assert is_mapped(column).tolist() == [one.startswith(bytes(10) + b"\xff\xff") for one in raw]


def test_a_member_of_a_struct() -> None:
    rows = np.zeros(3, [("before", "u1"), ("address", "V16"), ("after", "u2")])
    rows["address"] = np.void(packed("10.1.2.3"))
    assert texts(rows["address"]) == ["10.1.2.3"] * 3


@given(st.lists(st.integers(0, 0xFFFF), max_size=40))
def test_ports(ports: list[int]) -> None:
    assert Part(port_words(np.array(ports, ">u2"))).texts() == [str(port).encode() for port in ports]


def test_a_column_that_may_not_be_written() -> None:
    column, ports = np.frombuffer(packed("10.1.2.3"), "V16"), np.frombuffer(b"\x35\x00", "<u2")
    assert (texts(column), Part(port_words(ports)).texts()) == (["10.1.2.3"], [b"53"])
