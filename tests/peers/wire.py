"""OTLP peers that break the connection, not the protocol above it: written on bare sockets, as no server would do it.

Each request plays the next act of `acts`, and is answered when none is left. `taken` holds every request that arrived
whole, and whether its answer was sent, so that a test knows which copies are due to a lost answer.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from typing import BinaryIO

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
RESET_WITH = "reset the stream with "
"""And a number, HTTP/2's error code; in the place of the answer."""
DRIP_S = 0.05
STATUS_200 = b"\x88"
"""An entry of HPACK's static table."""


@dataclass(frozen=True)
class Taken:
    """A request that arrived whole."""

    body: bytes
    answered: bool


class HangUpError(Exception):
    """The connection ends here."""


@dataclass
class WirePeer:
    """A listener on 127.0.0.1. A context manager."""

    acts: deque[str] = field(default_factory=deque)
    taken: list[Taken] = field(default_factory=list)
    connections: int = 0
    played: list[str] = field(default_factory=list)
    port: int = 0

    def __enter__(self) -> Self:
        self._left = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def bodies(self, *, answered: bool) -> list[bytes]:
        return [one.body for one in self.taken if one.answered is answered]

    def act(self) -> str:
        """What is done to the request that begins."""
        act = self.acts.popleft() if self.acts else "answer"
        self.played.append(act)
        return act

    def hang(self) -> None:
        self._left.wait()
        raise HangUpError

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as reading, contextlib.suppress(HangUpError, OSError, EOFError):
            self.converse(connection, reading)

    def converse(self, connection: socket.socket, reading: BinaryIO) -> None:
        """Serves one connection until it ends."""
        raise NotImplementedError


def reset(connection: socket.socket) -> None:
    """Ends it with RST: linger of zero."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raise HangUpError


def half_close(connection: socket.socket, reading: BinaryIO) -> None:
    """Says that nothing more will be said, and reads on until the other end is through."""
    connection.shutdown(socket.SHUT_WR)
    while reading.read(65536):
        pass
    raise HangUpError


def exactly(reading: BinaryIO, size: int) -> bytes:
    found = reading.read(size)
    if len(found) < size:
        raise EOFError
    return found


class Http1Peer(WirePeer):
    """OTLP/HTTP over HTTP/1.1."""

    def converse(self, connection: socket.socket, reading: BinaryIO) -> None:
        while True:
            length = self._head(reading)
            act = self.act()
            body = exactly(reading, length // 2)
            if act == "reset in the request":
                reset(connection)
            if act == "half-close in the request":
                half_close(connection, reading)
            body += exactly(reading, length - length // 2)
            answered = act in ("answer", "close after the answer", "headers that are none")
            self.taken.append(Taken(body, answered))
            self._answer(connection, reading, act)

    def _drip(self, connection: socket.socket, begin: bytes) -> None:
        """One byte after the other, so that something comes all the time, and no end."""
        connection.sendall(begin)
        while not self._left.wait(DRIP_S):
            connection.sendall(b"x")

    def _head(self, reading: BinaryIO) -> int:
        length = -1
        while (line := reading.readline()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if length < 0:
            raise EOFError
        return length

    def _answer(self, connection: socket.socket, reading: BinaryIO, act: str) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: %d\r\n\r\n"
        if act == "hang before the headers":
            self.hang()
        elif act == "hang after the headers":
            connection.sendall(head % 20)
            self.hang()
        elif act == "hang within the headers":
            connection.sendall(head[:30])
            self.hang()
        elif act == "drip the headers":
            self._drip(connection, head[:30])
        elif act == "drip the answer":
            self._drip(connection, head % 2**20)
        elif act == "cut the answer":
            connection.sendall(head % 20 + b"\x0a")
            half_close(connection, reading)
        elif act == "garbage":
            connection.sendall(b"\x00\x01\x02 what?\r\n\r\n")
            raise HangUpError
        elif act == "headers that are none":
            connection.sendall(b"HTTP/1.1 200 OK\r\nthis is no header\r\n\r\n")
            raise HangUpError
        elif act == "half-close after the request":
            half_close(connection, reading)
        elif act == "reset after the request":
            reset(connection)
        else:
            connection.sendall(head % 0)
            if act == "close after the answer":
                raise HangUpError


class Http2Peer(WirePeer):
    """OTLP/gRPC over HTTP/2."""

    def converse(self, connection: socket.socket, reading: BinaryIO) -> None:
        if exactly(reading, len(PREFACE)) != PREFACE:
            raise HangUpError
        connection.sendall(frame(SETTINGS, 0, 0))
        bodies: dict[int, bytes] = {}
        acts: dict[int, str] = {}
        while True:
            size_and_kind, flags, stream = struct.unpack(">IBI", exactly(reading, 9))
            kind, payload = size_and_kind & 255, exactly(reading, size_and_kind >> 8)
            if kind == SETTINGS and not flags & ACK:
                connection.sendall(frame(SETTINGS, ACK, 0))
            elif kind == PING and not flags & ACK:
                connection.sendall(frame(PING, ACK, 0, payload))
            elif kind == HEADERS:
                bodies[stream], acts[stream] = b"", self.act()
            elif kind == DATA and stream in bodies:
                bodies[stream] += payload
                self._begin(connection, reading, stream, acts[stream])
                more = struct.pack(">I", max(1, len(payload)))
                connection.sendall(frame(WINDOW_UPDATE, 0, 0, more))
                if flags & END_STREAM:
                    self._end(connection, reading, stream, acts.pop(stream), bodies.pop(stream)[5:])
                else:
                    connection.sendall(frame(WINDOW_UPDATE, 0, stream, more))

    def _begin(self, connection: socket.socket, reading: BinaryIO, stream: int, act: str) -> None:
        """Some of the request is there; the rest comes only when it is asked for."""
        if act == "reset in the request":
            reset(connection)
        elif act == "half-close in the request":
            half_close(connection, reading)
        elif act == "hang in the request":
            self.hang()
        elif act == "reset the stream":
            connection.sendall(frame(RST_STREAM, 0, stream, struct.pack(">I", 2)))
        elif act == "go away":  # this stream was not looked at
            connection.sendall(frame(GOAWAY, 0, 0, struct.pack(">II", max(0, stream - 2), 0)))
            half_close(connection, reading)

    def _end(self, connection: socket.socket, reading: BinaryIO, stream: int, act: str, body: bytes) -> None:
        if act == "reset the stream":
            return
        answered = act in ("answer", "go away after the answer")
        self.taken.append(Taken(body, answered))
        head = frame(HEADERS, END_HEADERS, stream, STATUS_200 + header("content-type", "application/grpc"))
        if act.startswith(RESET_WITH):
            connection.sendall(frame(RST_STREAM, 0, stream, struct.pack(">I", int(act.removeprefix(RESET_WITH)))))
        elif act == "hang before the headers":
            self.hang()
        elif act == "hang after the headers":
            connection.sendall(head)
            self.hang()
        elif act == "cut the answer":
            connection.sendall(head + frame(DATA, 0, stream, bytes(5)))
            half_close(connection, reading)
        elif act == "garbage":
            connection.sendall(b"\x00\x01\x02 what?" * 10)
            half_close(connection, reading)
        elif act == "half-close after the request":
            half_close(connection, reading)
        elif act == "reset after the request":
            reset(connection)
        else:
            trailers = frame(HEADERS, END_HEADERS | END_STREAM, stream, header("grpc-status", "0"))
            connection.sendall(head + frame(DATA, 0, stream, bytes(5)) + trailers)
            if act == "go away after the answer":
                connection.sendall(frame(GOAWAY, 0, 0, struct.pack(">II", stream, 0)))
                half_close(connection, reading)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">IBI", len(payload) << 8 | kind, flags, stream) + payload


def header(name: str, value: str) -> bytes:
    """One field in HPACK, neither indexed nor packed."""
    return b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
