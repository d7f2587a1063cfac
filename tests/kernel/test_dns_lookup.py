"""Real lookups, whole records: each way to ask, each way to answer, and none."""

from __future__ import annotations

import ctypes
import os
import random
import socket
import struct
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from otelbpf.kernel.attach import attach
from otelbpf.kernel.libbpf import TestRun as ProgramRun
from otelbpf.kernel.libbpf import libbpf
from otelbpf.probes.dns_lookup import ANSWERED, CLIENT, PROBE, SERVER, TIMED_OUT
from otelbpf.protocols.dns import parse
from tests.kernel.dns_asking import TIMEOUT_S, balance, config, sweep_until_told, tcp, told_of, udp
from tests.kernel.dns_server import Server, prefixed, question, read_message, send_many
from tests.kernel.feed import Feed
from tests.kernel.owner import head

if TYPE_CHECKING:
    from collections.abc import Iterator

UDP, TCP = 17, 6


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture
def feed(server) -> Iterator[Feed]:
    with attach(PROBE, config(server.port)) as attached:
        feed = Feed(attached)
        yield feed
        balance(feed)


def mapped(address: str) -> bytes:
    if ":" in address:
        return socket.inet_pton(socket.AF_INET6, address)
    return bytes(10) + b"\xff\xff" + socket.inet_pton(socket.AF_INET, address)


def record(role: int, ends: tuple[Any, Any], message: bytes, **others: Any) -> dict[str, Any]:
    """What the probe tells of the answer (or, of a timeout, the question) *message* between *ends*, client first."""
    (client, client_port, *_), (server, server_port, *_) = ends
    near, far = ((client, client_port), (server, server_port))[:: 1 if role == CLIENT else -1]
    id_, flags, _, answers, _, _ = struct.unpack_from(">6H", message)
    name_ends = message.index(0, 12) + 1
    type_, class_ = struct.unpack_from(">HH", message, name_ends)
    captured = min(len(message), 512)
    return {
        **head(),
        "local_address": mapped(near[0]),
        "local_port": near[1],
        "remote_address": mapped(far[0]),
        "remote_port": far[1],
        "id": id_,
        "flags": flags,
        "question_type": type_,
        "question_class": class_,
        "answer_count": answers,
        "message_bytes": len(message),
        "captured_bytes": captured,
        "family": 6 if ":" in client else 4,
        "transport": UDP,
        "role": role,
        "kind": ANSWERED,
        "retries": 0,
        "message": message[:captured],
        **others,
    }


def both(ends: tuple[Any, Any], message: bytes, **others: Any) -> list[dict[str, Any]]:
    """A lookup on one machine is two: the client's and the server's."""
    return [record(role, ends, message, **others) for role in (CLIENT, SERVER)]


def seen(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records with the used part of the message only."""
    return [{**record, "message": record["message"][: record["captured_bytes"]]} for record in records]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_an_unconnected_socket(feed, server, address):
    with udp(address) as asker:
        asker.sendto(question("unconnected.example"), (address, server.port))
        answer = asker.recv(4096)
        ends = asker.getsockname(), (address, server.port)
        assert seen(told_of(feed, "unconnected", 2)) == both(ends, answer)


@pytest.mark.parametrize("receive", [socket.socket.recv, lambda asker, size: asker.recvmsg(size)[0]])
def test_a_connected_socket(feed, server, receive):
    with udp("127.0.0.1", server.port) as asker:
        asker.send(question("connected.example"))
        asker.recv(4096, socket.MSG_PEEK)
        answer = receive(asker, 4096)
        ends = asker.getsockname(), asker.getpeername()
        assert seen(told_of(feed, "connected", 2)) == both(ends, answer)


def test_a_socket_of_version_6_that_asks_version_4(feed, server):
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as asker:
        asker.settimeout(3)
        asker.bind(("::ffff:127.0.0.1", 0))
        asker.sendto(question("mapped.example"), ("::ffff:127.0.0.1", server.port))
        answer = asker.recv(4096)
        ends = ("127.0.0.1", asker.getsockname()[1]), ("127.0.0.1", server.port)
        assert seen(told_of(feed, "mapped", 2)) == both(ends, answer)


def test_two_questions_in_one_system_call(feed, server):
    with udp("127.0.0.1", server.port) as asker:
        send_many(asker, [question("many.example", "A"), question("many.example", "AAAA")])
        answers = sorted((asker.recv(4096), asker.recv(4096)), key=lambda answer: parse(answer).type)
        records = seen(told_of(feed, "many", 4))
        ends = asker.getsockname(), asker.getpeername()
        wanted = [record for answer in answers for record in both(ends, answer)]
        assert sorted(records, key=str) == sorted(wanted, key=str)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_tcp(feed, server, address):
    with tcp(address, server.port) as asker:
        asker.sendall(prefixed(question("stream.example")))
        answer = read_message(asker)
        ends = asker.getsockname(), asker.getpeername()
        assert seen(told_of(feed, "stream", 2)) == both(ends, answer, transport=TCP)


def test_tcp_with_the_length_in_a_segment_of_its_own(feed, server):
    with tcp("127.0.0.1", server.port) as asker:
        query = question("apart.example")
        asker.send(struct.pack(">H", len(query)))
        asker.send(query)
        answer = read_message(asker)
        ends = asker.getsockname(), asker.getpeername()
        assert seen(told_of(feed, "apart", 2)) == both(ends, answer, transport=TCP)


def test_tcp_with_several_questions_in_one_segment(feed, server):
    with tcp("127.0.0.1", server.port) as asker:
        asker.send(prefixed(*(question(f"n{i}.pipelined.example") for i in range(8))))
        answers = [read_message(asker) for _ in range(8)]
        ends = asker.getsockname(), asker.getpeername()
        wanted = [record(role, ends, answer, transport=TCP) for role in (CLIENT, SERVER) for answer in answers]
        assert seen(told_of(feed, "pipelined", 16)) == wanted


def test_tcp_asked_twice_on_one_connection(feed, server):
    with tcp("127.0.0.1", server.port) as asker:
        for name in ("one.again.example", "two.again.example"):
            asker.sendall(prefixed(question(name)))
            read_message(asker)
        records = told_of(feed, "again", 4)
        assert [parse(record["message"]).name for record in seen(records)] == [
            "one.again.example",
            "two.again.example",
        ] * 2


@pytest.mark.parametrize("ask_by", [UDP, TCP])
def test_of_a_large_answer_the_beginning(feed, server, ask_by):
    if ask_by == TCP:
        with tcp("127.0.0.1", server.port) as asker:
            asker.sendall(prefixed(question("large.example", "TXT")))
            answer = read_message(asker)
            ends = asker.getsockname(), asker.getpeername()
    else:
        with udp("127.0.0.1", server.port) as asker:
            asker.send(question("large.example", "TXT", edns=True))
            answer = asker.recv(65535)
            ends = asker.getsockname(), asker.getpeername()
    assert len(answer) > 1232
    records = seen(told_of(feed, "large", 2))
    assert records == both(ends, answer, transport=ask_by)
    understood = parse(records[0]["message"], records[0]["message_bytes"])
    assert len(understood.records) == 4
    assert not understood.complete


def test_a_truncated_answer_and_the_second_try_by_tcp_are_two_lookups(feed, server):
    with udp("127.0.0.1", server.port) as asker, tcp("127.0.0.1", server.port) as second:
        query = question("truncated.example")
        asker.send(query)
        short = asker.recv(4096)
        second.sendall(prefixed(query))
        whole = read_message(second)
        ends = [(socket.getsockname(), socket.getpeername()) for socket in (asker, second)]
        wanted = [record for role in (CLIENT, SERVER) for record in (
            record_of(role, ends[0], short, UDP), record_of(role, ends[1], whole, TCP)
        )]  # fmt: skip
        assert seen(told_of(feed, "truncated", 4)) == wanted
        assert parse(short).truncated


def record_of(role: int, ends: tuple[Any, Any], answer: bytes, transport: int) -> dict[str, Any]:
    return record(role, ends, answer, transport=transport)


@pytest.mark.parametrize(("label", "code"), [("nxdomain", 3), ("servfail", 2), ("refused", 5), ("notimp", 4)])
def test_an_answer_that_is_a_refusal(feed, server, label, code):
    with udp("127.0.0.1", server.port) as asker:
        asker.send(question(f"{label}.example"))
        answer = asker.recv(4096)
        ends = asker.getsockname(), asker.getpeername()
        records = seen(told_of(feed, label, 2))
        assert records == both(ends, answer)
        assert {record["flags"] & 15 for record in records} == {code}


def test_a_chain_of_aliases(feed, server):
    with udp("127.0.0.1", server.port) as asker:
        asker.send(question("alias.example"))
        answer = asker.recv(4096)
        assert seen(told_of(feed, "alias", 2)) == both((asker.getsockname(), asker.getpeername()), answer)
        understood = parse(answer)
        assert (understood.cnames, understood.addresses, understood.ttl) == (["edge.example.net"], ["192.0.2.7"], 30)


def test_the_letter_case_of_the_question_is_kept(feed, server):
    """Resolvers play with it (0x20); a server that answers in lower case is understood too."""
    with udp("127.0.0.1", server.port) as asker:
        asker.send(question("OdD.CaSe.ExAmPlE"))
        answer = asker.recv(4096)
        assert seen(told_of(feed, "case", 2)) == both((asker.getsockname(), asker.getpeername()), answer)
        assert parse(answer).name == "OdD.CaSe.ExAmPlE"


def test_an_answer_in_another_letter_case_belongs_to_the_question(feed, server):
    with udp("127.0.0.1", server.port) as asker:
        asker.send(question("LOWERED.Example", id_=1))
        answer = asker.recv(4096)
        assert seen(told_of(feed, "lowered", 2)) == both((asker.getsockname(), asker.getpeername()), answer)
        assert parse(answer).name == "lowered.example"


@pytest.mark.parametrize("edns", [False, True])
def test_a_question_with_edns(feed, server, edns):
    with udp("127.0.0.1", server.port) as asker:
        asker.send(question("edns.example", edns=edns))
        answer = asker.recv(4096)
        assert seen(told_of(feed, "edns", 2)) == both((asker.getsockname(), asker.getpeername()), answer)


def test_the_same_question_again_on_the_same_socket_is_a_retry(feed, server):
    with udp("127.0.0.1", server.port) as asker:
        query = question("second.retry.example")
        asker.send(query)
        asker.send(query)
        answer = asker.recv(4096)
        ends = asker.getsockname(), asker.getpeername()
        assert seen(told_of(feed, "retry", 2)) == both(ends, answer, retries=1)


def test_one_id_for_different_names_on_one_socket(feed, server):
    with udp("127.0.0.1", server.port) as asker:
        for name in ("a.oneid.example", "b.oneid.example"):
            asker.send(question(name, id_=99))
        answers = [asker.recv(4096), asker.recv(4096)]
        ends = asker.getsockname(), asker.getpeername()
        wanted = [record(role, ends, answer) for role in (CLIENT, SERVER) for answer in answers]
        assert seen(told_of(feed, "oneid", 4)) == wanted


def test_one_name_on_two_sockets(feed, server):
    with udp("127.0.0.1", server.port) as one, udp("127.0.0.1", server.port) as other:
        wanted = []
        for asker in (one, other):
            asker.send(question("twosockets.example", id_=5))
            answer = asker.recv(4096)
            wanted += both((asker.getsockname(), asker.getpeername()), answer)
        assert seen(told_of(feed, "twosockets", 4)) == sorted(wanted, key=lambda record: record["role"])


def test_two_resolvers_asked_with_one_id_on_one_socket_are_two_lookups(feed, server):
    """As musl does; here the first does not answer."""
    with udp("127.0.0.1") as asker:
        query = question("silent.tworesolvers.example", id_=6)
        for address in ("127.0.0.1", "127.0.0.2"):
            asker.sendto(query, (address, server.port))
        wanted = [
            record(role, (asker.getsockname(), (address, server.port)), query, kind=TIMED_OUT, flags=0)
            for role in (CLIENT, SERVER)
            for address in ("127.0.0.1", "127.0.0.2")
        ]
        records = seen(told_of(feed, "tworesolvers", 4, sweep=True))
        assert [record for record in records if record["role"] == CLIENT] == wanted[:2]


def test_no_answer_is_a_timeout(feed, server):
    with udp("127.0.0.1", server.port) as asker:
        query = question("silent.example")
        asker.send(query)
        ends = asker.getsockname(), asker.getpeername()
    client, server_ = seen(told_of(feed, "silent", 2, sweep=True))
    assert client == record(CLIENT, ends, query, kind=TIMED_OUT, flags=0)
    unknown = {name: server_[name] for name in ("pid", "comm", "netns", "executable", "cgroup_id")}
    assert server_ == {**record(SERVER, ends, query, kind=TIMED_OUT, flags=0), **unknown}


def test_of_a_timeout_the_time_waited(feed, server):
    with udp("127.0.0.1", server.port) as asker:
        asker.send(question("silent.waited.example"))
        time.sleep(0.1)
        asker.send(question("silent.waited.example", id_=1))
    told_of(feed, "waited", 4, sweep=True)
    rows = feed.rows()
    assert set(rows["latency_ns"].tolist()) == {int(TIMEOUT_S * 1e9)}


def test_an_answer_that_comes_twice_is_told_once(feed, server):
    query = question("twice.example", id_=3)
    with udp("127.0.0.1", server.port) as asker:
        asker.send(query)
        assert asker.recv(4096) == asker.recv(4096)
    assert len(told_of(feed, "twice", 2)) == 2


def test_an_answer_that_nobody_asked_for_is_nothing(feed, server):
    before = feed.count("seen")
    with udp("127.0.0.1") as asker, udp("127.0.0.1") as other:
        asker.connect(other.getsockname())
        other.sendto(question("unasked.example"), asker.getsockname())
    assert feed.count("seen") == before


def test_who_asks_is_the_process_that_sends(feed, server):
    """dig is another process than the server; each is the owner of its side."""
    dig = subprocess.Popen(
        ["dig", "+tries=1", "@127.0.0.1", "-p", str(server.port), "dig.example"], stdout=subprocess.PIPE
    )
    dig.communicate()
    client, answerer = told_of(feed, "dig", 2)
    assert (client["pid"], client["comm"]) == (dig.pid, client["comm"])
    assert answerer["pid"] == os.getpid()


def test_dig_falls_back_to_tcp(feed, server):
    command = ["dig", "+tries=1", "@127.0.0.1", "-p", str(server.port), "truncated.dig.example"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as dig:
        dig.communicate()
    clients = told_of(feed, "truncated", 4)[:2]
    assert [(client["transport"], client["pid"]) for client in clients] == [(UDP, dig.pid), (TCP, dig.pid)]


def test_the_agent_itself_is_left_out(server):
    with attach(PROBE, config(server.port, exclude_self=True)) as attached:
        feed = Feed(attached)
        with udp("127.0.0.1", server.port) as asker:
            asker.send(question("own.example"))
            asker.recv(4096)
            asker.send(question("silent.own.example"))
        sweep_until_told(feed)
        assert len(feed.rows()) == 0
        assert feed.count("filtered") == feed.count("seen") == 4
        balance(feed)


ETHERNET = bytes(12)
QUERY = question("fuzz.example", edns=True)


def packets(port: int, count: int) -> Iterator[bytes]:
    """Packets to and from *port* with each kind of damage: cut short, wrong lengths, changed bytes, headers between."""
    dice = random.Random(20261121)
    answer = bytes([QUERY[0], QUERY[1], 0x81, 0x80]) + QUERY[4:]
    for _ in range(count):
        message = dice.choice([QUERY, answer, dice.randbytes(40), b""])
        ports = dice.choice([(port, 40000), (40000, port), (port, port), (1, 2)])
        if dice.random() < 0.5:
            kind, segment = 17, struct.pack(">4H", *ports, 8 + len(message), 0) + message
        else:
            doff, flags = dice.choice([5, 5, 8, 15]), dice.randrange(64)
            kind = 6
            segment = struct.pack(">2H2I2BHI", *ports, dice.randrange(2**32), 0, doff << 4, flags, 0, 0)
            segment += bytes(max(0, doff * 4 - 20)) + prefixed(message) * dice.randrange(12)
        if dice.random() < 0.5:
            frame = b"\x08\0" + struct.pack(">BBHHHBBH8s", 0x45, 0, 20 + len(segment), 0, 0, 64, kind, 0, bytes(8))
        else:
            between = dice.choice(
                [b"", b"", bytes([kind, 0]) + bytes(6), bytes([60, 0]) + bytes(6) + bytes([kind, 200])]
            )
            first = dice.choice([0, 43, 44, 60]) if between else kind
            frame = b"\x86\xdd" + struct.pack(">IHBB32s", 6 << 28, len(segment), first, 64, bytes(32)) + between
        whole = bytearray(ETHERNET + frame + segment)
        for _ in range(dice.choice([0, 0, 1, 4])):
            whole[dice.randrange(14, len(whole))] = dice.randrange(256)
        yield bytes(whole[: dice.choice([len(whole), len(whole), dice.randrange(34, len(whole) + 1)])])


@pytest.mark.parametrize("program", ["dns_sent", "dns_received"])
def test_every_packet_passes(feed, server, program):
    """The kernel runs the program on packets of all kinds and says what it returns."""
    passed = 0
    for packet in packets(server.port, 3000):
        held = ctypes.create_string_buffer(packet, len(packet))
        run = ProgramRun(size=ctypes.sizeof(ProgramRun), data_in=ctypes.addressof(held), data_size_in=len(packet))
        error = libbpf().bpf_prog_test_run_opts(feed.attached.object._program_fd(program), ctypes.byref(run))
        if error == 0:  # the kernel itself refuses some, as too short
            assert run.retval == 1
            passed += 1
    assert passed > 2000
    assert feed.count("seen") > 0
    balance(feed)
