"""What OpenTelemetry's log exporters forget is kept: the agent's events of an outage, until the peer is back."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

KEPT = 1000
"""Events that wait for the peer; there are a few a minute."""
AGAIN_S = 5.0
"""How long a try waits for the next, if no event comes."""


class KeepingExporter:
    """Another exporter of the SDK's, whose failures cost nothing: what it could not send is tried again, in order.

    The SDK forgets a batch after a few seconds. But what happened while the peer was away is what one wants to know
    when it is back. The next event may be hours away, so a timer tries again too; `shutdown` ends it.
    """

    def __init__(self, exporter: Any) -> None:
        self._exporter = exporter
        self._kept: deque[Any] = deque(maxlen=KEPT)
        self._timer: threading.Timer | None = None
        self._sending = threading.Lock()
        self._ended = threading.Event()

    def export(self, batch: Sequence[Any]) -> Any:
        """Gives the SDK's LogRecordExportResult for *batch* and all that is kept."""
        with self._sending:
            self._kept.extend(batch)
            return self._send()

    def shutdown(self) -> None:
        self._ended.set()
        timer = self._timer
        if timer is not None:
            timer.cancel()
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return bool(self._exporter.force_flush(timeout_millis))

    def _send(self) -> Any:
        from opentelemetry.sdk._logs.export import LogRecordExportResult

        result = self._exporter.export(tuple(self._kept))
        if result is LogRecordExportResult.SUCCESS:
            self._kept.clear()
        elif self._timer is None and not self._ended.is_set():
            self._timer = threading.Timer(AGAIN_S, self._try_again)
            self._timer.daemon = True
            self._timer.start()
        return result

    def _try_again(self) -> None:
        with self._sending:
            self._timer = None
            if self._kept and not self._ended.is_set():
                self._send()
