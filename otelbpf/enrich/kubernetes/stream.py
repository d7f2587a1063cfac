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

READ_BYTES = 1 << 16
LINE_LIMIT_BYTES = 16 << 20
"""No object is larger than the 3 MB that etcd takes."""
CHUNK_HEAD_LIMIT_BYTES = 4096
MORE_BYTES = 1 << 18
"""Read of one stream before the others are looked at."""


class Chunks:
    """Takes an HTTP body in chunks apart; `ended` once the last one was seen."""

    def __init__(self) -> None:
        self._head = b""
        self._left = 0
        self.ended = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The content in *data*, which goes on where the last left off. Raises ProtocolError when it is no chunk."""
        at = 0
        while at < len(data) and not self.ended:
            if self._left > 2:  # two bytes behind the content are a line end
                content = data[at : at + self._left - 2]
                yield content
                at += len(content)
                self._left -= len(content)
            elif self._left:
                skipped = min(self._left, len(data) - at)
                at += skipped
                self._left -= skipped
            else:
                at = self._read_head(data, at)

    def _read_head(self, data: bytes, at: int) -> int:
        end = data.find(b"\n", at)
        self._head += data[at:] if end < 0 else data[at:end]
        if len(self._head) > CHUNK_HEAD_LIMIT_BYTES:
            raise ProtocolError("a chunk of the answer has no length")
        if end < 0:
            return len(data)
        try:
            size = int(self._head.split(b";")[0].strip(), 16)
        except ValueError as error:
            raise ProtocolError("a chunk of the answer has no length") from error
        if size < 0:
            raise ProtocolError("a chunk of the answer has no length")
        self._head = b""
        self.ended = size == 0
        self._left = size + 2
        return end + 1


class Stream:
    """Lines of an answer as they come. *response* was made with preload_content=False and its head is read."""

    def __init__(self, response: Any) -> None:
        self._response = response
        file = response._fp.fp  # noqa: SLF001 - urllib3 has no reading without waiting
        self._socket = file.raw._sock  # noqa: SLF001
        self._socket.settimeout(0)
        self._first = _buffered(file)
        self._chunks = Chunks() if response.headers.get("Transfer-Encoding", "").lower() == "chunked" else None
        self._rest: list[bytes] = []
        self._rest_bytes = 0
        self.ended = False
        self.more = True
        """Whether there may be more without the socket's saying so: TLS has read ahead, or enough was read at once."""

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
            self.ended = not data
            for content in self._chunks.feed(data) if self._chunks is not None else (data,):
                yield from self._split(content)
            self.ended |= self._chunks is not None and self._chunks.ended

    def close(self) -> None:
        """Ends the connection: the peer is not done, so nobody else could use it."""
        self._response.close()
        self._socket.close()

    def _read(self) -> bytes | None:
        """What is there, empty at the end, None when nothing is there yet."""
        if self._first:
            first, self._first = self._first, b""
            return first
        try:
            return bytes(self._socket.recv(READ_BYTES))
        except (BlockingIOError, ssl.SSLWantReadError):
            return None

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
                yield line


def _buffered(file: Any) -> bytes:
    """What was read together with the head."""
    try:
        return bytes(file.read1(READ_BYTES))
    except (BlockingIOError, ssl.SSLWantReadError):
        return b""
