"""What became of one attempt to send: the peer took it, or it did not and why."""

from __future__ import annotations

from dataclasses import dataclass

REJECTED = "rejected"
"""The peer looked at it and does not want it."""
QUEUE_FULL = "queue_full"
GIVEN_UP = "given_up"
"""Tried for as long as `retry_on_failure` says."""
SHUTDOWN = "shutdown"
"""Still waiting when the time to stop was over."""
OUTPUT_CLOSED = "output_closed"
"""Nobody reads the console any more."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The peer took the request, but for *rejected* of its items (OTLP's partial success)."""

    rejected: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """The peer did not take the request."""

    code: str
    """A gRPC code (`UNAVAILABLE`), `HTTP 503`, or `connection`, `timeout`, `tls`, `name` when nobody answered."""
    message: str
    """What the peer or the library said."""
    retryable: bool
    after_s: float | None = None
    """The wait that the peer asked for (RetryInfo, Retry-After)."""
    reason: str = REJECTED
    """How its items are counted when it is not tried again."""

    @property
    def text(self) -> str:
        return f"{self.code}: {self.message}" if self.message else self.code


Answer = Accepted | Failure
