"""HTTP connections that are made, and whose answer is there, in time as a whole.

The standard library's timeout is for each address of a name and for each read: one with many addresses that lead nowhere,
or a peer that sends a byte now and then, would hold a request, and those behind it, for as long as it likes.
"""

from __future__ import annotations

import io
import socket
import time
from http.client import HTTPResponse
from typing import TYPE_CHECKING, Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class _Reading(io.RawIOBase):
    """What *sock* receives, until the timeout that it has now is over."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw = raw
        self._sock = sock
        allowed_s = sock.gettimeout()
        self._until = float("inf") if allowed_s is None else time.monotonic() + allowed_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        remaining_s = self._until - time.monotonic()
        if remaining_s <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(None if remaining_s == float("inf") else remaining_s)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Answer(HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_Reading(self.fp.detach(), sock))


class _Plain(HTTPConnection):
    response_class = _Answer

    def _new_conn(self) -> socket.socket:
        """Each address of the name has the same share of the time to connect; what follows has it whole again."""
        whole_s = self.timeout
        if not isinstance(whole_s, int | float):
            return super()._new_conn()
        self.timeout = whole_s / _addresses(self.host, self.port)
        try:
            sock = super()._new_conn()
        finally:
            self.timeout = whole_s
        sock.settimeout(whole_s)
        return sock


class _Secure(_Plain, HTTPSConnection):
    pass


def _addresses(host: str, port: int) -> int:
    try:
        return len(socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)) or 1
    except OSError:  # connecting will say so
        return 1


class Connections(HTTPConnectionPool):
    ConnectionCls = _Plain


class SecureConnections(HTTPSConnectionPool):
    ConnectionCls = _Secure


POOLS: dict[str, type[HTTPConnectionPool]] = {"http": Connections, "https": SecureConnections}
"""By scheme, as urllib3's managers take them."""
