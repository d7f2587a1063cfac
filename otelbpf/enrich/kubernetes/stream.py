"""The body of an endless answer, read without waiting: so one thread can listen to several.

urllib3 makes the connection and reads the head; from there on the socket does not block, and the chunks of the body
are taken apart here, because the standard library's reader of chunks can only wait for a whole one.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from otelbpf.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterator

READ_BYTES = 1 << 17
LINE_LIMIT_BYTES = 16 << 20
"""No object is larger than the 3 MB that etcd takes."""
CHUNK_HEAD_LIMIT_BYTES = 4096
LINE_END = 2
"""Bytes behind the content of a chunk."""
MORE_BYTES = 1 << 20
"""Read of one stream before the others are looked at."""


class Chunks:
    """Takes an HTTP body in chunks apart; `ended` once the last one was seen."""

    def __init__(self) -> None:
        self._head = b""
        self._left = 0
        self.ended = False

    @property
    def cut(self) -> bool:
        """Whether there must be more."""
        return not self.ended

    def feed(self, data: bytes) -> list[bytes]:
        """The content in *data*, which goes on where the last left off. Raises ProtocolError when it is no chunk."""
        at, found = 0, []
        while at < len(data) and not self.ended:
            if not self._left:
                at = self._read_head(data, at)
            if self._left > LINE_END:
                found.append(data[at : at + self._left - LINE_END])
                at += len(found[-1])
                self._left -= len(found[-1])
            if self._left <= LINE_END:
                skipped = min(self._left, len(data) - at)
                at += skipped
                self._left -= skipped
        return found

    def _read_head(self, data: bytes, at: int) -> int:
        end = data.find(b"\n", at)
        head = self._head + data[at : end if end >= 0 else None]
        if len(head) > CHUNK_HEAD_LIMIT_BYTES:
            raise ProtocolError("a chunk of the answer has no length")
        if end < 0:
            self._head = head
            return len(data)
        try:
            size = int(head.partition(b";")[0], 16)
        except ValueError as error:
            raise ProtocolError("a chunk of the answer has no length") from error
        if size < 0:
            raise ProtocolError("a chunk of the answer has no length")
        self._head = b""
        self.ended = size == 0
        self._left = size + LINE_END
        return end + 1


class Whole:
    """An HTTP body that has a length, or ends with its connection (*size* is None)."""

    def __init__(self, size: int | None) -> None:
        self._left = size
        self.ended = size == 0

    @property
    def cut(self) -> bool:
        """Whether there must be more."""
        return bool(self._left)

    def feed(self, data: bytes) -> list[bytes]:
        """What of *data* is content."""
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
            self.ended = not self._left
        return [data]


class Stream:
    """Lines of an answer as they come. *response* was made with preload_content=False and its head is read."""

    def __init__(self, response: Any) -> None:
        self._response = response
        self.kind = response.headers.get("Content-Type", "")
        """The type of its content, as the server says."""
        self._body = _body(response.headers)
        self._rest: list[bytes] = []
        self._rest_bytes = 0
        self._has_lines = False
        file = response._fp.fp  # noqa: SLF001 - urllib3 has no reading without waiting
        self.ended = file is None
        """Whether there is nothing more to come; a body without any content has no file to read from."""
        self.more = True
        """Whether there may be more without the socket's saying so: TLS has read ahead, or enough was read at once."""
        self._first = b""
        if file is not None:
            self._socket = file.raw._sock  # noqa: SLF001
            self._socket.settimeout(0)
            self._first = _buffered(file)
            self._room = memoryview(bytearray(READ_BYTES))

    def fileno(self) -> int:
        return int(self._socket.fileno())

    def lines(self) -> Iterator[bytes]:
        """The whole lines that are there now. Raises OSError when the connection broke, ProtocolError on garbage."""
        taken = 0
        self.more = True
        while taken < MORE_BYTES and not self.ended:
            data = self._read()
            if data is None:
                self.more = False
                return
            taken += len(data)
            for content in self._body.feed(data):
                if (
                    not self._rest_bytes and content.find(b"\n") == len(content) - 1 > 0
                ):  # a line a chunk, as API servers do
                    self._has_lines = True
                    yield content
                else:
                    yield from self._split(content)
            self.ended = not data or self._body.ended
        if not self.ended:
            return
        if not self._has_lines and self._rest_bytes:  # not even one line: an error page, say
            yield b"".join(self._rest)
        if self._body.cut:
            raise ProtocolError("the connection ended in the middle of the answer")

    def close(self) -> None:
        """Ends the connection: the peer is not done, so nobody else could use it."""
        self._response.close()

    def _read(self) -> bytes | None:
        """What is there, empty at the end, None when nothing is there yet."""
        if self._first:
            first, self._first = self._first, b""
            return first
        size = 0
        while size < READ_BYTES:  # TLS gives a record at a time, and each event is one or two
            try:
                more = self._socket.recv_into(self._room[size:])
            except (BlockingIOError, ssl.SSLWantReadError):
                return bytes(self._room[:size]) if size else None
            if not more:
                break
            size += more
        return bytes(self._room[:size])

    def _split(self, content: bytes) -> Iterator[bytes]:
        first, *others = content.split(b"\n")
        self._rest.append(first)
        self._rest_bytes += len(first)
        if self._rest_bytes > LINE_LIMIT_BYTES:
            raise ProtocolError(f"a line of the answer is longer than {LINE_LIMIT_BYTES >> 20} MiB")
        for other in others:
            line = b"".join(self._rest)
            self._rest, self._rest_bytes = [other], len(other)
            if line.strip():
                self._has_lines = True
                yield line


def _body(headers: Any) -> Chunks | Whole:
    if headers.get("Transfer-Encoding", "").lower() == "chunked":
        return Chunks()
    length = headers.get("Content-Length", "")
    return Whole(int(length) if length.isdecimal() else None)


def _buffered(file: Any) -> bytes:
    """What was read together with the head."""
    try:
        return bytes(file.read1(READ_BYTES))
    except (BlockingIOError, ssl.SSLWantReadError):
        return b""
