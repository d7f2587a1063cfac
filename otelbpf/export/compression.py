"""How bodies are compressed for HTTP. gRPC compresses by itself, and knows gzip only."""

from __future__ import annotations

import sys
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otelbpf.export.request import Request

GZIP_LEVEL = 1
"""Log records shrink 14-fold at a fraction of level 6's time, which gains a quarter more."""
ZSTD_LEVEL = 1
KEPT_BYTES = 4 * 2**20
"""Of compressed requests that are kept for their retries: each also keeps the request itself, outside of the queue."""


class Compressor:
    """Compresses each request once, however often it is sent. For any thread."""

    def __init__(self, compression: str) -> None:
        self.compression = compression
        self._compressed: dict[int, tuple[Request, bytes]] = {}

    def compress(self, request: Request) -> bytes:
        """The body as it goes over the wire."""
        if self.compression == "none":
            return request.body
        kept, compressed = self._compressed.get(id(request), (None, b""))
        if kept is not request:
            compressed = _zstd(request.body) if self.compression == "zstd" else _gzip(request.body)
            self._remember(request, compressed)
        return compressed

    def _remember(self, request: Request, compressed: bytes) -> None:
        size = len(request.body) + len(compressed)
        if self.held_bytes + size > KEPT_BYTES:
            self._compressed.clear()
        self._compressed[id(request)] = (request, compressed)

    @property
    def held_bytes(self) -> int:
        """What is kept here, with what it was made of."""
        return sum(len(one.body) + len(small) for one, small in tuple(self._compressed.values()))

    def forget(self, request: Request) -> None:
        """*request* will not be sent again."""
        self._compressed.pop(id(request), None)


def _gzip(body: bytes) -> bytes:
    return zlib.compress(body, GZIP_LEVEL, zlib.MAX_WBITS | 16)


def _zstd(body: bytes) -> bytes:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    compressed: bytes = zstd.compress(body, ZSTD_LEVEL)
    return compressed
