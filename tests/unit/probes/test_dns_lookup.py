"""Rows of the kernel half → columns; and that the kernel half lets every packet pass."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import dns.flags
import dns.message
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otelbpf.batch import Batch, Categorical, Facts
from otelbpf.config import Config
from otelbpf.kernel.attach import object_path
from otelbpf.kernel.btf import Btf
from otelbpf.kernel.elf import sections
from otelbpf.probes import dns_reading
from otelbpf.probes.dns_lookup import ANSWERED, CLIENT, PROBE, SERVER, TIMED_OUT, DnsLookups
from otelbpf.protocols.dns import parse
from otelbpf.signals import names
from tests.unit.protocols.test_dns import ADDRESS, CHAIN, MIXED, answer

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROW = Btf.read(object_path("dns_lookup")).layout("dns_lookup")
LOOPBACK = bytes(10) + b"\xff\xff\x7f\0\0\1"
QUESTION = dns.message.make_query("silent.example", "AAAA").to_wire()


def row(message: bytes = ADDRESS, *, whole: int | None = None, **others: Any) -> NDArray[np.void]:
    """A row as the kernel half makes it of *message*; what is behind the message is what was there before."""
    made = np.zeros(1, ROW)
    _id, flags, _questions, answers, _, _ = struct.unpack_from(">6H", message) if len(message) >= 12 else (0,) * 6
    made["message"] = (message[:512] + b"\xaa" * 512)[:512]
    made["captured_bytes"], made["message_bytes"] = min(512, len(message)), whole or len(message)
    made["flags"], made["answer_count"] = flags, answers
    made["question_type"], made["question_class"] = 1, 1
    made["role"], made["kind"], made["transport"], made["family"] = CLIENT, ANSWERED, 17, 4
    made["latency_ns"], made["remote_port"], made["local_port"] = 1_200_000, 53, 40000
    made["local_address"], made["remote_address"] = LOOPBACK, LOOPBACK
    made["head"]["pid"], made["head"]["comm"] = 123, b"python3"
    for name, value in others.items():
        made[name] = value
    return made


def prepared(*rows: NDArray[np.void], config: Config | None = None, prepare: DnsLookups | None = None) -> Batch:
    return (prepare or DnsLookups(config or Config()))(Batch("dns_lookup", np.concatenate(rows), 0))


def facts(batch: Batch, column: str) -> list[dict[str, Any]]:
    things = batch.things(column)
    return [dict(things.values[code]) for code in things.codes]


def test_questions_and_answers_become_things() -> None:
    batch = prepared(row(CHAIN), row(MIXED), row(ADDRESS))
    assert facts(batch, "question") == [
        {names.DNS_QUESTION_NAME: name} for name in ("www.example.org", "example.org", "www.example.org")
    ]
    chain, mixed, address = facts(batch, "answer")
    assert chain[names.OTELBPF_DNS_CNAMES] == ["www.example.net", "edge.example.com"]
    assert mixed[names.OTELBPF_DNS_RECORDS][0] == "MX 10 mx.example.org"
    assert address == {names.DNS_ANSWERS: ["192.0.2.1"], names.OTELBPF_DNS_TTL: 300}


def test_a_thing_stands_once_in_its_column() -> None:
    batch = prepared(row(CHAIN), row(ADDRESS), row(ADDRESS))
    assert len({id(thing) for thing in batch.things("question").values}) == len(batch.things("question").values)
    assert batch.things("question").codes.tolist()[0] == batch.things("question").codes.tolist()[1]


def test_the_same_answer_to_another_id_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []
    monkeypatch.setattr(dns_reading, "parse", lambda message, whole: read.append(message) or parse(message, whole))
    prepare = DnsLookups(Config())
    for _ in range(2):
        prepared(row(ADDRESS), row(b"\1\2" + ADDRESS[2:]), row(b"\1\2" + ADDRESS[2:]), prepare=prepare)
    assert len(read) == 1


def test_the_cache_of_messages_is_bounded() -> None:
    reading = dns_reading.Reading()
    rows = [row(ADDRESS[:-1] + bytes([i % 256]) if i < 256 else answer(f"n{i}.org", "A")) for i in range(300)]
    batch = Batch("dns_lookup", np.concatenate(rows), 0)
    for _ in range(2):
        reading.add_messages(batch, np.ones(300, np.bool_))
    assert reading.sizes() == {"messages": 300, "questions": 45, "kinds": 0, "codes": 0}
    dns_reading_limit = dns_reading.MESSAGES
    many = np.concatenate([row(answer(f"n{i}.org", "A")) for i in range(dns_reading_limit // 4)])
    for start in range(8):
        many["flags"] = start
        reading.add_messages(Batch("dns_lookup", many, 0), np.ones(len(many), np.bool_))
    assert reading.sizes()["messages"] <= dns_reading.MESSAGES


@pytest.mark.parametrize(
    ("code", "error"),
    [(0, 0), (3, 1), (2, 2), (5, 3), (1, 3), (4, 3), (16, 3)],
)
def test_codes_and_errors(code: int, error: int) -> None:
    batch = prepared(row(answer("a.org", "A", edns=True, code=code)))
    assert batch.number("response_code").tolist() == [code]
    assert batch.number("error").tolist() == [error]
    assert batch.number("failed").tolist() == [error != 0]


def test_a_timeout_has_no_code_and_no_answers() -> None:
    batch = prepared(row(QUESTION, kind=TIMED_OUT, flags=0, question_type=28))
    assert batch.number("response_code").tolist() == [-1]
    assert facts(batch, "outcome") == [{}]
    assert batch.number("error").tolist() == [4]
    assert batch.number("answers").tolist() == [-1]
    assert facts(batch, "question") == [{names.DNS_QUESTION_NAME: "silent.example"}]
    assert facts(batch, "question_kind") == [{names.OTELBPF_DNS_QUESTION_TYPE: "AAAA"}]


def test_a_question_type_without_a_name() -> None:
    assert facts(prepared(row(question_type=65280)), "question_kind") == [
        {names.OTELBPF_DNS_QUESTION_TYPE: "TYPE65280"}
    ]


def test_truncated() -> None:
    batch = prepared(row(answer("a.org", "A", flags=dns.flags.TC)), row())
    assert batch.number("truncated").tolist() == [1, 0]


def test_what_a_server_here_answers_is_not_read_but_counted() -> None:
    """By the header alone, though the message is nonsense."""
    batch = prepared(row(b"\0" * 17, role=SERVER, flags=0x8183, local_port=53, remote_port=40000), row())
    assert facts(batch, "question")[0] == facts(batch, "answer")[0] == {}
    assert batch.number("response_code").tolist() == [3, 0]
    assert batch.number("server").tolist() == [True, False]
    assert batch.number("server_port").tolist() == [53, 53]


def test_what_a_server_here_answers_is_read_when_it_becomes_a_record() -> None:
    config = msgspec.structs.replace(Config(), logs=msgspec.structs.replace(Config().logs, dns_server="all"))
    assert facts(prepared(row(role=SERVER), config=config), "question") == [
        {names.DNS_QUESTION_NAME: "www.example.org"}
    ]


def test_nonsense_is_counted_and_left_out() -> None:
    prepare = DnsLookups(Config())
    for total in (2, 4):
        batch = prepared(row(b"nonsense"), row(), row(ADDRESS[:20]), prepare=prepare)
        assert len(batch) == 1
        assert prepare.undecodable == total
        assert facts(batch, "answer") == [{names.DNS_ANSWERS: ["192.0.2.1"], names.OTELBPF_DNS_TTL: 300}]


def test_of_an_answer_that_is_nonsense_the_header_and_the_question_count() -> None:
    prepare = DnsLookups(Config())
    cut, worse = row(ADDRESS[:-3]), row(answer("a.org", "A", code=3, edns=True)[:-4], question_type=28)
    batch = prepared(cut, worse, prepare=prepare)
    assert prepare.undecodable == 0
    assert facts(batch, "question") == [{names.DNS_QUESTION_NAME: name} for name in ("www.example.org", "a.org")]
    assert facts(batch, "answer") == [{}, {}]
    assert facts(batch, "outcome") == [{names.OTELBPF_DNS_RESPONSE_CODE: code} for code in ("NOERROR", "NXDOMAIN")]
    assert batch.number("error").tolist() == [0, 1]


def test_a_code_that_nobody_has_been_given_has_its_number() -> None:
    batch = prepared(row(answer("a.org", "A", edns=True, code=3841)))
    assert facts(batch, "outcome") == [{names.OTELBPF_DNS_RESPONSE_CODE: "RCODE3841"}]


def test_the_whole_code_of_what_a_server_here_answers() -> None:
    """Also where the header has only some bits of it, and says NOERROR or YXRRSET."""
    rows = [row(answer("a.org", "A", edns=True, code=code), role=SERVER) for code in (16, 23, 5)]
    batch = prepared(*rows, row(ADDRESS, role=SERVER))
    assert batch.number("response_code").tolist() == [16, 23, 5, 0]


def test_of_a_large_message_the_captured_part_counts() -> None:
    data = tuple(("a.org", "AAAA", f"2001:db8::{i + 1:x}") for i in range(30))
    batch = prepared(row(answer("a.org", "AAAA", *data)))
    assert len(facts(batch, "answer")[0][names.DNS_ANSWERS]) == 17
    assert batch.number("answers").tolist() == [30]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=512), min_size=1, max_size=5))
def test_nothing_in_a_row_can_stop_the_line(messages: list[bytes]) -> None:
    prepare = DnsLookups(Config())
    batch = prepared(*(row(message) for message in messages), prepare=prepare)
    assert len(batch) + prepare.undecodable == len(messages)


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (row(ADDRESS), "client python3[123] A www.example.org → 192.0.2.1 NOERROR 1.2 ms @127.0.0.1:53"),
        (row(CHAIN), "client python3[123] A www.example.org → 192.0.2.1 (+1) NOERROR 1.2 ms @127.0.0.1:53"),
        (row(QUESTION, kind=TIMED_OUT, flags=0, latency_ns=5 * 10**9, question_type=28), "client python3[123] AAAA silent.example → timeout 5.0 s @127.0.0.1:53"),
        (row(answer("a.org", "MX", ("a.org", "MX", "10 m.a.org.")), question_type=15), "client python3[123] MX a.org → MX 10 m.a.org NOERROR 1.2 ms @127.0.0.1:53"),
        (row(answer("no.org", "A", code=3)), "client python3[123] A no.org → NXDOMAIN 1.2 ms @127.0.0.1:53"),
        (row(role=SERVER, local_port=53), "server python3[123] A ? → NOERROR 1.2 ms @127.0.0.1:53"),
    ],
)  # fmt: skip
def test_the_readable_line(made: NDArray[np.void], sentence: str) -> None:
    batch = prepared(made)
    nowhere = np.zeros(1, np.intp)
    batch.columns |= {
        "process": Categorical(nowhere, [Facts()]),
        "local": Categorical(nowhere, [Facts({names.NETWORK_LOCAL_ADDRESS: "127.0.0.1"})]),
        "remote": Categorical(nowhere, [Facts({names.NETWORK_PEER_ADDRESS: "127.0.0.1"})]),
    }
    for event in PROBE.events:
        assert list(event.body(batch)) == [sentence]


def test_ports_become_knobs() -> None:
    default = Config()
    lookup = msgspec.structs.replace(default.probes.dns_lookup, ports=(53, 5353, 53, 8600, 9953, 10053))
    config = msgspec.structs.replace(default, probes=msgspec.structs.replace(default.probes, dns_lookup=lookup))
    constants = PROBE.constants(config)
    assert constants["dns_ports_0"] == 53 | 5353 << 16 | 8600 << 32 | 9953 << 48
    assert [constants[f"dns_ports_{i}"] for i in (1, 2, 3)] == [10053, 0, 0]
    assert PROBE.map_sizes(config) == {"pending": 16384}
    assert constants["pending_share"] == 4096


CALL, EXIT, PSEUDO_CALL, WIDE = 0x85, 0x95, 1, 0x18
RETURN_ONE = struct.pack("<BBhi", 0xB7, 0, 0, 1)
"""r0 = 1"""


@pytest.mark.parametrize("section", ["cgroup_skb/egress", "cgroup_skb/ingress"])
def test_every_packet_passes(section: str) -> None:
    """The compiled program: its only way out comes right behind `r0 = 1`, and no jump leads between the two."""
    (code,) = (found.content for found in sections(object_path("dns_lookup").read_bytes()) if found.name == section)
    instructions = [code[at : at + 8] for at in range(0, len(code), 8)]
    (way_out,) = (at for at, instruction in enumerate(instructions) if instruction[0] == EXIT)
    assert instructions[way_out - 1] == RETURN_ONE
    assert way_out not in set(jump_targets(instructions))


def jump_targets(instructions: list[bytes]) -> list[int]:
    """Where the conditional and unconditional jumps of a program lead (class 5 and 6, without calls and exits)."""
    targets, at = [], 0
    while at < len(instructions):
        opcode, _, offset, _ = struct.unpack("<BBhi", instructions[at])
        if opcode & 7 in (5, 6) and opcode not in (CALL, EXIT):
            targets.append(at + 1 + offset)
        at += 2 if opcode == WIDE else 1
    return targets
