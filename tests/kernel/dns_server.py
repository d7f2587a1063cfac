"""A DNS server that does what the first label of the question says, over UDP and TCP, and the ways to ask it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import threading
from typing import TYPE_CHECKING, Self

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

if TYPE_CHECKING:
    from collections.abc import Callable

CODES = {"nxdomain": 3, "servfail": 2, "refused": 5, "notimp": 4}
LISTEN = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "127.0.0.2"), (socket.AF_INET6, "::1"))
LARGE = 12
"""Strings in the answer to `large`: more than what an event holds."""


def reply(query: dns.message.Message, transport: str, asked_before: int) -> bytes | None:
    """What the server says to *query*; None for silence."""
    question = query.question[0]
    labels = question.name.to_text().lower().split(".")
    response = dns.message.make_response(query)
    if labels[0] == "silent" or (labels[0] == "second" and not asked_before):
        return None
    if labels[0] in CODES:
        response.set_rcode(dns.rcode.Rcode(CODES[labels[0]]))
    elif labels[0] == "truncated" and transport == "udp":
        response.flags |= dns.flags.TC
    elif labels[0] == "large":
        texts = [f'"{"x" * 99}{i:03d}"' for i in range(LARGE)]
        response.answer.append(dns.rrset.from_text(question.name, 60, "IN", "TXT", *texts))
    elif labels[0] == "alias":
        response.answer += [
            dns.rrset.from_text(question.name, 300, "IN", "CNAME", "edge.example.net."),
            dns.rrset.from_text("edge.example.net.", 30, "IN", "A", "192.0.2.7"),
        ]
    else:
        kind, data = ("AAAA", "2001:db8::1") if question.rdtype == 28 else ("A", "192.0.2.1")
        response.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, data))
    wire = response.to_wire(max_size=65535)
    return wire.lower() if labels[0] == "lowered" else wire


class Server:
    """Listens on one port of 127.0.0.1, 127.0.0.2 and ::1; a context manager."""

    def __enter__(self) -> Self:
        self._asked: dict[tuple[int, str], int] = {}
        self._open: list[socket.socket] = []
        self.port = next(port for port in range(20053, 32768, 97) if self._bind(port))
        return self

    def __exit__(self, *_: object) -> None:
        for listening in self._open:
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            listening.close()

    def _bind(self, port: int) -> bool:
        """Whether *port* was free everywhere; it is below those that clients get."""
        with contextlib.ExitStack() as taken:
            listening = []
            for family, address in LISTEN:
                for kind, how in ((socket.SOCK_DGRAM, self._serve_udp), (socket.SOCK_STREAM, self._accept)):
                    listening.append((taken.enter_context(socket.socket(family, kind)), how))
                    try:
                        listening[-1][0].bind((address, port))
                    except OSError:
                        return False
            taken.pop_all()
        for bound, how in listening:
            if bound.type == socket.SOCK_STREAM:
                bound.listen()
            self._serve(bound, how)
        return True

    def _serve(self, listening: socket.socket, how: Callable[[socket.socket], None]) -> None:
        self._open.append(listening)
        threading.Thread(target=self._quietly, args=(how, listening), daemon=True).start()

    @staticmethod
    def _quietly(how: Callable[[socket.socket], None], served: socket.socket) -> None:
        with contextlib.suppress(OSError):
            how(served)

    def _serve_udp(self, udp: socket.socket) -> None:
        while True:
            wire, asker = udp.recvfrom(65535)
            if not wire:  # shut down
                return
            response = self._respond(wire, "udp")
            for _ in range(0 if response is None else 2 if b"\x05twice" in wire else 1):
                udp.sendto(response, asker)

    def _accept(self, tcp: socket.socket) -> None:
        while True:
            accepted, _ = tcp.accept()
            threading.Thread(target=self._quietly, args=(self._serve_tcp, accepted), daemon=True).start()

    def _serve_tcp(self, accepted: socket.socket) -> None:
        with accepted:
            while message := read_message(accepted):
                response = self._respond(message, "tcp")
                if response is not None:
                    accepted.sendall(struct.pack(">H", len(response)) + response)

    def _respond(self, wire: bytes, transport: str) -> bytes | None:
        query = dns.message.from_wire(wire)
        key = query.id, query.question[0].name.to_text()
        before = self._asked.get(key, 0)
        self._asked[key] = before + 1
        return reply(query, transport, before)


def read_message(stream: socket.socket) -> bytes:
    """One message of a DNS/TCP stream, or nothing at its end."""
    prefix = read_bytes(stream, 2)
    return read_bytes(stream, struct.unpack(">H", prefix)[0]) if len(prefix) == 2 else b""


def read_bytes(stream: socket.socket, count: int) -> bytes:
    """*count* bytes, fewer at the end; a socket with a timeout does not heed MSG_WAITALL."""
    found = b""
    while len(found) < count and (more := stream.recv(count - len(found))):
        found += more
    return found


def prefixed(*messages: bytes) -> bytes:
    """Messages as they are in a stream, each behind its length."""
    return b"".join(struct.pack(">H", len(message)) + message for message in messages)


def question(name: str, kind: str = "A", id_: int | None = None, *, edns: bool = False) -> bytes:
    """A query; the letter case of *name* is kept."""
    query = dns.message.make_query(name, kind, use_edns=edns)
    if id_ is not None:
        query.id = id_
    return query.to_wire()


class Piece(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_char_p), ("bytes", ctypes.c_size_t))


class Message(ctypes.Structure):
    """struct msghdr."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("name_bytes", ctypes.c_uint32),
        ("pieces", ctypes.POINTER(Piece)),
        ("count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_bytes", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class Sending(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = (("message", Message), ("sent_bytes", ctypes.c_uint))


def send_many(connected: socket.socket, messages: list[bytes]) -> None:
    """sendmmsg(2), as glibc's resolver asks for A and AAAA."""
    pieces = [Piece(message, len(message)) for message in messages]
    headers = (Sending * len(messages))(*[Sending(Message(pieces=ctypes.pointer(p), count=1)) for p in pieces])
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.sendmmsg(connected.fileno(), headers, len(messages), 0) != len(messages):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
