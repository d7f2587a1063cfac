"""Answers that are not as a textbook has them: whose lookup each is, and what is told of it."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from otelbpf.batch import Batch
from otelbpf.config import Config
from otelbpf.kernel.attach import attach
from otelbpf.probes.dns_lookup import ANSWERED, CLIENT, PROBE, SERVER, TIMED_OUT, DnsLookups
from otelbpf.protocols.dns import parse
from otelbpf.signals import names
from tests.kernel.dns_asking import balance, config, told_of, udp
from tests.kernel.dns_server import Server, question
from tests.kernel.feed import Feed
from tests.kernel.test_dns_lookup import both

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RESPONSE = 0x8180


@contextlib.contextmanager
def answering(answer: Callable[[bytes], list[bytes]]) -> Iterator[int]:
    """A UDP server on 127.0.0.1 that sends what *answer* makes of each question; gives its port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as serving:
        serving.bind(("127.0.0.1", 0))

        def serve() -> None:
            while query := serving.recvfrom(65535):
                if not query[0]:
                    return
                for wire in answer(query[0]):
                    serving.sendto(wire, query[1])

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield serving.getsockname()[1]
        with udp() as last:
            last.sendto(b"", serving.getsockname())
        thread.join()


@contextlib.contextmanager
def watching(port: int) -> Iterator[Feed]:
    with attach(PROBE, config(port)) as attached:
        feed = Feed(attached)
        yield feed
        balance(feed)


def header(query: bytes, code: int, *counts: int) -> bytes:
    return query[:2] + struct.pack(">5H", RESPONSE | code, *counts)


def outcomes(feed: Feed, name: str) -> list[tuple[Any, ...]]:
    """(role, question, code, answers as counted) of each lookup of *name*, as the line would have it."""
    batch = DnsLookups(Config())(Batch("dns_lookup", feed.rows(), 0))
    asked, code = batch.things("question"), batch.things("outcome")
    found = zip(
        batch.rows["role"].tolist(),
        (asked.values[which].get(names.DNS_QUESTION_NAME) for which in asked.codes),
        (code.values[which].get(names.OTELBPF_DNS_RESPONSE_CODE) for which in code.codes),
        batch.number("answers").tolist(),
        strict=True,
    )
    return sorted(one for one in found if one[1] == name)


CODES = {1: "FORMERR", 4: "NOTIMP", 5: "REFUSED", 2: "SERVFAIL"}


@pytest.mark.parametrize("code", CODES)
def test_an_answer_without_a_question(code):
    with answering(lambda query: [header(query, code, 0, 0, 0, 0)]) as port, watching(port) as feed:
        with udp("127.0.0.1", port) as asker:
            query = question("Bare.example")
            asker.send(query)
            ends, answer = (asker.getsockname(), asker.getpeername()), asker.recv(4096)
        told = told_of(feed, "bare", 2)
        asked = header(answer, code, 1, 0, 0, 0) + query[12 : query.index(0, 12) + 5]
        wanted = both(ends, asked)
        assert [{**one, "message": one["message"][: one["captured_bytes"]]} for one in told] == wanted
        assert outcomes(feed, "Bare.example") == [(CLIENT, "Bare.example", CODES[code], 0)]


def test_the_code_of_an_answer_without_a_question_is_whole():
    """BADVERS: one bit of it is in EDNS, behind a question that is not there."""
    edns = b"\0\0\x29\x10\0" + bytes([1, 0, 0, 0]) + b"\0\0"
    with answering(lambda query: [header(query, 0, 0, 0, 0, 1) + edns]) as port, watching(port) as feed:
        with udp("127.0.0.1", port) as asker:
            asker.send(question("version.example"))
            asker.recv(4096)
        told = told_of(feed, "version", 2)
        assert {parse(one["message"][: one["captured_bytes"]]).code for one in told} == {16}
        assert outcomes(feed, "version.example") == [
            (role, "version.example", "BADVERS", 0) for role in (CLIENT, SERVER)
        ]


NONSENSE = {
    "records that end too early": lambda query: header(query, 0, 1, 9, 0, 0) + query[12:],
    "a record longer than the message": lambda query: (
        header(query, 0, 1, 1, 0, 0) + query[12:] + b"\xc0\x0c\0\1\0\1\0\0\0\1\xff\xff\1"
    ),
    "a pointer forward": lambda query: (
        header(query, 0, 1, 1, 0, 0) + query[12:] + b"\xc0\x0c\0\5\0\1\0\0\0\1\0\2\xc1\xff"
    ),
    "a question that cannot be read": lambda query: header(query, 0, 1, 0, 0, 0) + b"\xff" * 20,
    "two questions": lambda query: header(query, 0, 2, 0, 0, 0) + query[12:] * 2,
    "half a question": lambda query: header(query, 0, 1, 0, 0, 0) + query[12:16],
}


@pytest.mark.parametrize("answer", NONSENSE.values(), ids=NONSENSE)
def test_of_an_answer_that_makes_no_sense_the_lookup_is_told(answer):
    with answering(lambda query: [answer(query)]) as port, watching(port) as feed:
        with udp("127.0.0.1", port) as asker:
            asker.send(question("nonsense.example"))
            wire = asker.recv(4096)
        told_of(feed, "nonsense", 2)
        (_, answers) = struct.unpack_from(">2H", wire, 4)
        assert outcomes(feed, "nonsense.example") == [(CLIENT, "nonsense.example", "NOERROR", answers)]


def test_an_answer_to_something_else_is_none():
    """Resolvers throw it away, and go on waiting."""
    other = question("other.example")[12:]
    server = answering(lambda query: [header(query, 0, 1, 0, 0, 0) + other])
    with server as port, watching(port) as feed, udp("127.0.0.1", port) as asker:
        asker.send(question("asked.example"))
        asker.recv(4096)
        told = told_of(feed, "asked", 2, sweep=True)
        assert [one["kind"] for one in told] == [TIMED_OUT, TIMED_OUT]


def test_without_a_question_it_is_not_guessed_which_of_two_was_answered():
    """Both have the id: neither is told, neither is called a timeout; both are counted as lost."""
    server = answering(lambda query: [header(query, 5, 0, 0, 0, 0)] if b"second" in query else [])
    with server as port, watching(port) as feed, udp("127.0.0.1", port) as asker:
        for name in ("first.two.example", "second.two.example"):
            asker.send(question(name, id_=7))
        asker.recv(4096)
        told_of(feed, "two", 0, sweep=True)
        assert len(feed.rows()) == feed.count("pending") == 0
        assert feed.count("seen") == feed.count("unread") == 4


def test_many_questions_with_one_id_on_one_socket():
    with Server() as server, watching(server.port) as feed, udp("127.0.0.1", server.port) as asker:
        questions = [question(f"n{number}.same.example", kind, id_=0) for number in range(4) for kind in ("A", "AAAA")]
        for query in questions:
            asker.send(query)
        for _ in questions:
            asker.recv(4096)
        told = told_of(feed, "same", 16)
        assert [one["kind"] for one in told] == [ANSWERED] * 16
        names_told = sorted((one["role"], parse(one["message"][:512], one["message_bytes"]).name) for one in told)
        assert names_told == sorted(
            (role, f"n{n}.same.example") for role in (CLIENT, SERVER) for n in [0, 0, 1, 1, 2, 2, 3, 3]
        )


@pytest.mark.parametrize(
    "name",
    ["a\\000b.zero.example", ".".join(["l" * 61] * 4), ".".join(["x"] * 127), "a\\255\\032\\.c.zero.example", "."],
)
def test_names_of_every_shape(name):
    with Server() as server, watching(server.port) as feed, udp("127.0.0.1", server.port) as asker:
        asker.send(question(name, "AAAA"))
        answer = asker.recv(4096)
        rows = feed.where(lambda rows: rows["head"]["pid"] == os.getpid(), 2)
        assert [row["question_type"] for row in rows] == [28, 28]
        assert [row["message"].tobytes()[: row["captured_bytes"]] for row in rows] == [answer] * 2
        assert {parse(row["message"].tobytes()[: row["captured_bytes"]]).name for row in rows} == {name}


UDP_SEGMENT = 103


def test_several_queries_that_the_kernel_takes_as_one():
    """UDP_SEGMENT: one buffer, cut into datagrams of one size below the hook."""
    with Server() as server, watching(server.port) as feed, udp("127.0.0.1", server.port) as asker:
        queries = [question(f"n{number}.pieces.example") for number in range(5)]
        asker.setsockopt(socket.SOL_UDP, UDP_SEGMENT, len(queries[0]))
        asker.send(b"".join(queries))
        for _ in queries:
            asker.recv(4096)
        told = told_of(feed, "pieces", 10)
        assert sorted(parse(one["message"][: one["captured_bytes"]]).name for one in told) == sorted(
            2 * [f"n{number}.pieces.example" for number in range(5)]
        )
        assert [one["kind"] for one in told] == [ANSWERED] * 10


def test_a_child_that_asks_on_the_socket_of_its_parent():
    with Server() as server, watching(server.port) as feed, udp("127.0.0.1", server.port) as asker:
        child = os.fork()
        if not child:
            asker.send(question("child.example"))
            os._exit(0)
        os.waitpid(child, 0)
        asker.recv(4096)
        client, _ = told_of(feed, "child", 2)
        assert client["pid"] == child


TRANSLATE = """
    set -e
    ip link set lo up
    nft add table ip nat
    nft add chain ip nat output '{{ type nat hook output priority -100 ; }}'
    nft add rule ip nat output ip daddr {asked} udp dport 53 dnat to {resolver}
    exec {python} - <<'END'
import socket, threading
address, port = "{resolver}".split(":")
serving = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
serving.bind((address, int(port)))
def serve():
    while True:
        query, asker = serving.recvfrom(4096)
        if b"silent" not in query:
            serving.sendto(query[:2] + b"\\x81\\x80" + query[4:], asker)
threading.Thread(target=serve, daemon=True).start()
asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range(3):
    asker.sendto(bytes([0, number]) + b"\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\3nat\\7example\\0\\0\\1\\0\\1", ("{asked}", 53))
    assert asker.recvfrom(4096)[1] == ("{asked}", 53)
asker.sendto(b"\\0\\x09\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\6silent\\3nat\\7example\\0\\0\\1\\0\\1", ("{asked}", 53))
END
"""


@pytest.mark.parametrize(
    ("asked", "resolver"),
    [("127.9.9.9", "127.0.0.5:53"), ("127.0.0.11", "127.0.0.11:41053")],
    ids=["service", "docker"],
)
def test_a_socket_that_is_not_connected_behind_nat_on_this_machine(asked, resolver):
    """An answer comes from the address that the program asked, which is told; of a timeout only where it went is known."""
    with watching(53) as feed:
        script = TRANSLATE.format(asked=asked, resolver=resolver, python=sys.executable)
        subprocess.run(["unshare", "--net", "bash", "-c", script], check=True, timeout=30)
        told = [one for one in told_of(feed, "nat", 4, sweep=True) if one["role"] == CLIENT]
        ends = [
            (one["kind"], one["id"], socket.inet_ntoa(one["remote_address"][-4:]), one["remote_port"]) for one in told
        ]
        address, port = resolver.split(":")
        assert ends == [*((ANSWERED, id_, asked, 53) for id_ in range(3)), (TIMED_OUT, 9, address, int(port))]
