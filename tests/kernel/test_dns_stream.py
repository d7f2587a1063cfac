"""DNS over TCP however the stream is cut: each lookup is told once, with its answer, and none as a timeout."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import sys
import threading
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import dns.message
import dns.rrset
import pytest

from otelbpf.kernel.attach import attach
from otelbpf.probes.dns_lookup import ANSWERED, CLIENT, PROBE, SERVER
from otelbpf.protocols.dns import parse_question
from tests.kernel.dns_asking import balance, config, sweep_until_told, tcp, told_of
from tests.kernel.dns_server import Server, prefixed, question, read_message
from tests.kernel.feed import Feed
from tests.kernel.test_dns_lookup import both, record, seen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

TCP = 6


class Answerer:
    """A TCP server that reads *count* questions of each connection, and then writes what *answer* makes of them,
    piece by piece, each a segment."""

    def __init__(self, answer: Callable[[list[bytes]], Sequence[bytes]], count: int = 1) -> None:
        self._answer, self._count = answer, count

    def __enter__(self) -> int:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return int(self._listening.getsockname()[1])

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listening.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = self._listening.accept()
                with accepted:
                    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    queries = [read_message(accepted) for _ in range(self._count)]
                    for piece in self._answer(queries):
                        accepted.send(piece)
                    accepted.recv(1)


@contextlib.contextmanager
def watching(port: int) -> Iterator[Feed]:
    with attach(PROBE, config(port)) as attached:
        feed = Feed(attached)
        yield feed
        attached.sweep()
        balance(feed)


def reply(query: bytes, *, strings: int = 0) -> bytes:
    response = dns.message.make_response(dns.message.from_wire(query))
    name = response.question[0].name
    if strings:
        texts = [f'"{"x" * 99}{i:03d}"' for i in range(strings)]
        response.answer.append(dns.rrset.from_text(name, 60, "IN", "TXT", *texts))
    else:
        response.answer.append(dns.rrset.from_text(name, 60, "IN", "A", "192.0.2.1"))
    return response.to_wire(max_size=65535)


def cut(stream: bytes, *places: int) -> list[bytes]:
    edges = [0, *places, len(stream)]
    return [stream[begin:end] for begin, end in pairwise(edges) if begin < end]


def each_byte(stream: bytes) -> list[bytes]:
    return cut(stream, *range(1, len(stream)))


def ask(port: int, pieces: Sequence[bytes], answers: int = 1) -> tuple[Any, list[bytes]]:
    """Sends *pieces* as segments of their own; gives the ends of the connection and what came back."""
    with tcp("127.0.0.1", port) as asker:
        for piece in pieces:
            asker.send(piece)
        return (asker.getsockname(), asker.getpeername()), [read_message(asker) for _ in range(answers)]


LONG = ".".join(["long"] * 40) + ".example"
QUESTION_CUTS = {
    "in the length": (1,),
    "after the length": (2,),
    "in the header": (7,),
    "after the header": (14,),
    "in the name": (20,),
    "before the type": (-4,),
    "before the last byte": (-1,),
    "everywhere": None,
}


def pieces_of(stream: bytes, places: tuple[int, ...] | None) -> list[bytes]:
    return each_byte(stream) if places is None else cut(stream, *(place % len(stream) for place in places))


@pytest.mark.parametrize("name", ["cut.example", f"cut.{LONG}"])
@pytest.mark.parametrize("places", QUESTION_CUTS.values(), ids=QUESTION_CUTS)
def test_a_query_that_is_cut(places, name):
    query = question(name)
    with Answerer(lambda queries: [prefixed(reply(queries[0]))]) as port, watching(port) as feed:
        ends, (answer,) = ask(port, pieces_of(prefixed(query), places))
        assert seen(told_of(feed, "cut", 2)) == both(ends, answer, transport=TCP)


@pytest.mark.parametrize("name", ["cut.example", f"cut.{LONG}"])
@pytest.mark.parametrize("places", QUESTION_CUTS.values(), ids=QUESTION_CUTS)
def test_an_answer_that_is_cut(places, name):
    with Answerer(lambda queries: pieces_of(prefixed(reply(queries[0])), places)) as port, watching(port) as feed:
        ends, (answer,) = ask(port, [prefixed(question(name))])
        assert seen(told_of(feed, "cut", 2)) == both(ends, answer, transport=TCP)


@pytest.mark.parametrize("strings", [5, 12, 300])
@pytest.mark.parametrize("places", [(3,), (1, 500), (513,), (514,), (515,), None])
def test_a_large_answer_that_is_cut_and_a_second_behind_it(places, strings):
    def answers(queries: list[bytes]) -> list[bytes]:
        stream = prefixed(reply(queries[0], strings=strings), reply(queries[1]))
        return [*each_byte(stream[:700]), stream[700:]] if places is None else cut(stream, *places)

    with Answerer(answers, 2) as port, watching(port) as feed:
        queries = [question("first.big.example", "TXT"), question("second.big.example")]
        ends, replies = ask(port, [prefixed(*queries)], 2)
        assert seen(told_of(feed, "big", 4)) == [
            record(role, ends, answer, transport=TCP) for role in (CLIENT, SERVER) for answer in replies
        ]


@pytest.mark.parametrize("size", [1, 2, 3, 17, 100, 1000, 5000])
def test_many_queries_on_one_connection_answered_in_another_order(size):
    """All of them under way at once, in segments that know nothing of messages."""
    with on_one_cpu(), many_queries(size) as (feed, ends, replies):
        assert seen(told_of(feed, "order", 2 * MANY)) == told_in_order(ends, replies)


@pytest.mark.parametrize("size", [1, 17])
def test_what_two_cpus_bring_at_once_is_told_or_counted(size):
    """One that finds the stream taken passes its segment over; what is lost with it is counted, and nothing is wrong."""
    with many_queries(size) as (feed, ends, replies):
        sweep_until_told(feed)
        told = seen(told_of(feed, "order", feed.count("seen") - feed.count("unread")))
        assert [one for one in told if one not in told_in_order(ends, replies)] == []
        assert len(told) + feed.count("unread") == feed.count("seen")
        assert len(told) == 2 * MANY or feed.count("unread") > 0
        assert feed.count("pending") == 0


MANY = 100


@contextlib.contextmanager
def many_queries(size: int) -> Iterator[tuple[Feed, Any, list[bytes]]]:
    """What the probe told of MANY queries and answers in segments of *size* bytes; the ends; the answers in order."""
    dice = random.Random(size)
    stream = prefixed(*(question(f"n{i}.order.example", id_=i) for i in range(MANY)))

    def answers(got: list[bytes]) -> list[bytes]:
        shuffled = dice.sample(got, len(got))
        stream = prefixed(*(reply(query, strings=dice.choice([0, 0, 0, 1, 4, 9])) for query in shuffled))
        return cut(stream, *range(size, len(stream), size))

    with Answerer(answers, MANY) as port, watching(port) as feed:
        yield feed, *ask(port, cut(stream, *range(size, len(stream), size)), MANY)


def told_in_order(ends: Any, replies: list[bytes]) -> list[dict[str, Any]]:
    return [record(role, ends, answer, transport=TCP) for role in (CLIENT, SERVER) for answer in replies]


@contextlib.contextmanager
def on_one_cpu() -> Iterator[None]:
    """This thread, and those that it starts: what they send on loopback is received on the same CPU, so in order."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def test_a_query_in_the_segment_that_ends_the_handshake():
    """It comes through the socket that listens. Without quick acknowledgements a client sends its data with it."""
    with Server() as server, watching(server.port) as feed:
        with socket.socket() as asker:
            asker.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
            asker.connect(("127.0.0.1", server.port))
            asker.sendall(prefixed(question("handshake.example")))
            answer = read_message(asker)
            ends = asker.getsockname(), asker.getpeername()
        assert seen(told_of(feed, "handshake", 2)) == both(ends, answer, transport=TCP)


def test_a_connection_older_than_the_agent():
    with Server() as server, tcp("127.0.0.1", server.port) as asker:
        asker.sendall(prefixed(question("before.example")))
        read_message(asker)
        with watching(server.port) as feed:
            ends, answers = (asker.getsockname(), asker.getpeername()), []
            for number in range(3):
                asker.sendall(prefixed(question(f"n{number}.older.example")))
                answers.append(read_message(asker))
            unknown = ("pid", "comm", "netns", "executable", "cgroup_id")
            told = seen(told_of(feed, "older", 6))
            wanted = [record(role, ends, answer, transport=TCP) for role in (CLIENT, SERVER) for answer in answers]
            assert [{**one, **dict.fromkeys(unknown)} for one in told] == [
                {**one, **dict.fromkeys(unknown)} for one in wanted
            ]


@pytest.mark.parametrize("chances", ["0.05 0 0", "0 0.2 0", "0 0 0.3", "0.03 0.05 0.1"])
@pytest.mark.parametrize("seed", [1, 2])
def test_segments_lost_repeated_and_overtaken(chances, seed):
    """What was asked and answered is known one by one."""
    port = 20531
    with watching(port) as feed:
        command = [sys.executable, "-m", "tests.kernel.dns_over_loss", str(port), str(seed), *chances.split()]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        count = int(done.stdout)
        records = told_of(feed, "lossy", 2 * count)
        told = sorted((one["role"], one["id"], one["kind"], one["retries"], one["flags"] & 15) for one in records)
        assert told == [(role, id_, ANSWERED, 0, 0) for role in (CLIENT, SERVER) for id_ in range(count)]
        assert all(parse_question(one["message"]).name == f"n{one['id']}.lossy.example" for one in records)
        assert feed.count("unread") == feed.count("pending") == 0
