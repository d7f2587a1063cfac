"""DNS messages: dnspython makes and reads them too, and what is random gives a value or ProtocolError."""

from __future__ import annotations

import contextlib
import ipaddress

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from otelbpf.errors import ProtocolError
from otelbpf.protocols.dns import MAX_RECORDS, Message, parse
from otelbpf.protocols.dns_registry import response_code_name, type_name


def answer(question: str, type_: str, *records: tuple[str, str, str], ttl: int = 300, **options: object) -> bytes:
    """What a server says: *records* are (owner, type, data)."""
    query = dns.message.make_query(dns.name.from_text(question), type_, use_edns=options.pop("edns", False))
    response = dns.message.make_response(query)
    response.flags |= int(options.pop("flags", 0))
    response.set_rcode(options.pop("code", 0))
    assert not options
    for owner, kind, data in records:
        response.answer.append(dns.rrset.from_text(dns.name.from_text(owner), ttl, "IN", kind, data))
    return response.to_wire(max_size=65535)


ADDRESS = answer("www.example.org", "A", ("www.example.org", "A", "192.0.2.1"))
CHAIN = answer(
    "www.example.org",
    "A",
    ("www.example.org", "CNAME", "www.example.net."),
    ("www.example.net", "CNAME", "edge.example.com."),
    ("edge.example.com", "A", "192.0.2.1"),
    ("edge.example.com", "A", "192.0.2.2"),
)
MIXED = answer(
    "example.org",
    "ANY",
    ("example.org", "MX", "10 mx.example.org."),
    ("example.org", "TXT", '"v=spf1 -all" "a \\"quoted\\" one"'),
    ("example.org", "NS", "ns1.example.org."),
    ("example.org", "SOA", "ns1.example.org. hostmaster.example.org. 2026 7200 3600 1209600 300"),
    ("example.org", "CAA", '0 issue "ca.example.net"'),
    ("example.org", "AAAA", "2001:db8::1"),
    ("example.org", "HTTPS", '1 . alpn="h2,h3" port=8443 ipv4hint=192.0.2.1 ipv6hint=2001:db8::1'),
    ("_sip._tcp.example.org", "SRV", "0 5 5060 sip.example.org."),
    ("example.org", "NAPTR", '100 10 "S" "SIP+D2U" "" _sip._udp.example.org.'),
    ("example.org", "TYPE65280", "\\# 3 010203"),
    ("1.2.0.192.in-addr.arpa", "PTR", "www.example.org."),
)
REAL = (ADDRESS, CHAIN, MIXED, answer("a.b", "AAAA", ("a.b", "AAAA", "2001:db8::1"), edns=True))


def test_addresses_of_a_plain_answer() -> None:
    assert parse(ADDRESS) == Message("www.example.org", 1, 0, ["192.0.2.1"], [], [], 300, False, True)


def test_both_ways_of_reading_agree() -> None:
    """With an authority section, even an empty question, the general way is taken: same records, same result."""
    plain = answer("a.example", "A", ("a.example", "A", "192.0.2.1"), edns=True)
    query = dns.message.from_wire(plain)
    query.authority.append(dns.rrset.from_text("example.", 1, "IN", "NS", "ns.example."))
    assert parse(plain) == parse(query.to_wire())


def test_the_chain_of_aliases_is_given_in_order() -> None:
    message = parse(CHAIN)
    assert message.cnames == ["www.example.net", "edge.example.com"]
    assert sorted(message.addresses) == ["192.0.2.1", "192.0.2.2"]


def test_a_chain_that_the_server_gives_backwards_is_put_in_order() -> None:
    wire = answer("a.x", "A", ("c.x", "A", "192.0.2.1"), ("B.x", "CNAME", "c.x."), ("a.x", "CNAME", "b.x."))
    assert [name.lower() for name in parse(wire).cnames] == ["b.x", "c.x"]


def test_a_chain_that_bites_its_tail_ends() -> None:
    wire = answer("a.x", "A", ("a.x", "CNAME", "b.x."), ("b.x", "CNAME", "a.x."))
    assert parse(wire).cnames == ["b.x", "a.x"]


def test_an_alias_of_another_name_is_not_lost() -> None:
    wire = answer("a.x", "A", ("y.x", "CNAME", "z.x."), ("a.x", "CNAME", "b.x."))
    assert parse(wire).cnames == ["b.x", "z.x"]


def test_other_types_read_as_zone_files_have_them() -> None:
    message = parse(MIXED)
    assert message.records == [
        "MX 10 mx.example.org",
        'TXT "v=spf1 -all" "a \\"quoted\\" one"',
        "NS ns1.example.org",
        "SOA ns1.example.org hostmaster.example.org 2026 7200 3600 1209600 300",
        'CAA 0 issue "ca.example.net"',
        'HTTPS 1 . alpn="h2,h3" port=8443 ipv4hint=192.0.2.1 ipv6hint=2001:db8::1',
        "SRV 0 5 5060 sip.example.org",
        'NAPTR 100 10 "S" "SIP+D2U" "" _sip._udp.example.org',
        "TYPE65280 \\# 3 010203",
        "PTR www.example.org",
    ]
    assert message.addresses == ["2001:db8::1"]


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ("ExAmPle.ORG", "ExAmPle.ORG"),
        (".", "."),
        ("org", "org"),
        ("_ldap._tcp.dc-1.example.org", "_ldap._tcp.dc-1.example.org"),
        ("a\\.b.example.org", "a\\.b.example.org"),
        ("a\\032b\\000c\\255.example.org", "a\\032b\\000c\\255.example.org"),
        ('q\\"\\(\\)\\;\\@\\$\\\\.org', 'q\\"\\(\\)\\;\\@\\$\\\\.org'),
        ("a\\003bcd.org", "a\\003bcd.org"),
        ("l" * 63 + ".org", "l" * 63 + ".org"),
        (".".join(["l" * 45] * 3), ".".join(["l" * 45] * 3)),
        (".".join(["x"] * 127), ".".join(["x"] * 127)),
    ],
)
def test_names_are_kept_as_asked(asked: str, text: str) -> None:
    assert parse(answer(asked, "A")).name == text


@pytest.mark.parametrize("code", [*range(24), 24, 3840, 3841, 4095])
def test_response_codes_with_the_bits_of_opt(code: int) -> None:
    for records in ((), (("a.org", "A", "192.0.2.1"),)):
        wire = answer("a.org", "A", *records, edns=True, code=code)
        assert parse(wire).code == code


def test_names_of_codes_and_types_are_the_registered_ones() -> None:
    given = {code: "BADVERS" if code == 16 else code.name for code in dns.rcode.Rcode}
    for code in range(4096):
        assert response_code_name(code) == given.get(code, f"RCODE{code}")
    for number in {*range(1, 300), 32768, 32769, 65280}:
        names = {type_name(number), dns.rdatatype.to_text(dns.rdatatype.RdataType.make(number))}
        assert len(names - {f"TYPE{number}"}) <= 1


def test_the_smallest_ttl_counts_and_a_negative_one_is_none() -> None:
    response = dns.message.from_wire(ADDRESS)
    response.answer.append(dns.rrset.from_text("b.org.", 7, "IN", "A", "192.0.2.9"))
    assert parse(response.to_wire()).ttl == 7
    at = ADDRESS.rindex(b"\0\0\x01\x2c")
    assert parse(ADDRESS[:at] + b"\x80\0\0\1" + ADDRESS[at + 4 :]).ttl == 0
    assert parse(answer("a.org", "A")).ttl is None


def test_a_question_alone() -> None:
    wire = dns.message.make_query("www.Example.org", "HTTPS").to_wire()
    assert parse(wire) == Message("www.Example.org", 65, 0, [], [], [], None, False, True)


def test_a_truncated_answer_says_so() -> None:
    wire = answer("a.org", "A", flags=dns.flags.TC)
    assert parse(wire).truncated


def test_more_answers_than_are_read_are_admitted() -> None:
    data = tuple(("a.org", "A", f"192.0.2.{i}") for i in range(MAX_RECORDS + 8))
    message = parse(answer("a.org", "A", *data))
    assert len(message.addresses) == MAX_RECORDS
    assert not message.complete


def test_whole_records_of_a_captured_beginning_are_used() -> None:
    data = tuple(("a.org", "AAAA", f"2001:db8::{i + 1:x}") for i in range(30))
    wire = answer("a.org", "AAAA", *data)
    for captured in range(24, len(wire)):
        message = parse(wire[:captured], len(wire))
        assert len(message.addresses) == (captured - 23) // 28
        assert message.addresses == parse(wire).addresses[: len(message.addresses)]
        assert not message.complete


@pytest.mark.parametrize("wire", REAL, ids=("address", "chain", "mixed", "edns"))
def test_a_message_that_ends_early_is_refused_at_every_byte(wire: bytes) -> None:
    parse(wire)
    for length in range(len(wire)):
        with pytest.raises(ProtocolError):
            parse(wire[:length])


@pytest.mark.parametrize(
    "name",
    [
        b"\xc0\x0c",  # itself
        b"\xc0\x1d",  # forward
        b"\x01a\xc0\x0c",  # back to its own label, for ever
        b"\x40a\0",  # a label of unknown kind
        b"\x3f" + b"a" * 63 + (b"\x3f" + b"a" * 63) * 3 + b"\0",  # 257 bytes
    ],
)
def test_names_that_must_not_be_followed(name: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse(ADDRESS[:12] + name + b"\0\1\0\1" + b"\0" * 8)


@pytest.mark.parametrize("questions", [0, 2])
def test_one_question_only(questions: int) -> None:
    with pytest.raises(ProtocolError):
        parse(ADDRESS[:4] + bytes([0, questions]) + ADDRESS[6:])


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=600), st.none() | st.integers(0, 2000))
@example(b"", None)
def test_random_bytes(wire: bytes, whole: int | None) -> None:
    check_invariant(wire, whole)


@settings(max_examples=1000, deadline=None)
@given(
    st.sampled_from(REAL),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=6),
    st.integers(0, 400),
)
def test_mutated_messages(wire: bytes, changes: list[tuple[int, int]], end: int) -> None:
    mutated = bytearray(wire)
    for at, byte in changes:
        mutated[at % len(wire)] = byte
    check_invariant(bytes(mutated), None)
    check_invariant(bytes(mutated[:end]), len(wire))


def check_invariant(wire: bytes, whole: int | None) -> None:
    """A value or ProtocolError, nothing else; a value is bounded and can be told."""
    with contextlib.suppress(ProtocolError):
        message = parse(wire, whole)
        assert 0 < len(message.name) <= 4 * 255
        assert len(message.addresses) + len(message.cnames) + len(message.records) <= MAX_RECORDS
        for address in message.addresses:
            ipaddress.ip_address(address)
        "".join([*message.cnames, *message.records, message.name]).encode("ascii")


labels = st.binary(min_size=1, max_size=63)
names = st.lists(labels, max_size=5).map(lambda parts: dns.name.Name([*parts, b""]) if fits(parts) else dns.name.root)


def fits(parts: list[bytes]) -> bool:
    return sum(len(part) + 1 for part in parts) < 255


@settings(max_examples=300, deadline=None)
@example(dns.name.from_text("B"), ["MX 10 a.b."])
@given(names, st.lists(st.sampled_from(["A 192.0.2.1", "AAAA 2001:db8::1", "MX 10 a.b.", 'TXT "x\\200"']), max_size=8))
def test_as_dnspython_reads_it(name: dns.name.Name, data: list[str]) -> None:
    response = dns.message.make_response(dns.message.make_query(name, "A", use_edns=True))
    for text in data:
        kind, rest = text.split(" ", 1)
        response.answer.append(dns.rrset.from_text(name, 60, "IN", kind, rest))
    wire = response.to_wire(max_size=65535)  # a name may be compressed to one of another case
    message = parse(wire)
    assert message.name == (name.to_text(omit_final_dot=True) if name != dns.name.root else ".")
    read = dns.message.from_wire(wire, one_rr_per_rrset=True)
    theirs = [(rrset.rdtype, rdata) for rrset in read.answer for rdata in rrset]
    assert message.addresses == [rdata.to_text() for kind, rdata in theirs if kind in (1, 28)]
    others = [(kind, rdata.to_text().removesuffix(".")) for kind, rdata in theirs if kind not in (1, 28)]
    assert message.records == [f"{dns.rdatatype.to_text(kind)} {text}" for kind, text in others]
