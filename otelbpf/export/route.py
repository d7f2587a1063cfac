"""The way to a peer that an exporter's threads share: opened with the first request, closed behind the last one.

An exporter may be given another route while a request is under way on the former one, which then ends there.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from otelbpf.export.answer import Failure

if TYPE_CHECKING:
    from otelbpf.export.answer import Answer
    from otelbpf.export.request import Request
    from otelbpf.export.transport import Transport


class Route:
    """*transport* with those who are on it."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self._lock = threading.Lock()
        self._under_way = 0
        self._open = False
        self._left = False
        self._closed = False

    def send(self, request: Request, timeout_s: float) -> Answer:
        """`Transport.send`."""
        with self._lock:
            if self._closed:
                return Failure("CANCELLED", "the exporter ends", retryable=True)
            # Opened for the first request only: what it imports must not compete with probes being attached.
            if not self._open:
                self.transport.__enter__()
                self._open = True
            self._under_way += 1
        try:
            return self.transport.send(request, timeout_s)
        finally:
            with self._lock:
                self._under_way -= 1
                is_last = self._left and not self._under_way
            if is_last:
                self.transport.close()

    def leave(self) -> None:
        """No request goes this way any more, but for those under way, behind which it closes."""
        with self._lock:
            self._left = True
            is_empty = not self._under_way
        if is_empty:
            self.transport.close()

    def close(self) -> None:
        """Closes it under whoever is on it."""
        with self._lock:
            self._closed = True
        self.transport.close()
