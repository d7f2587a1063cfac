"""What became of one attempt to send: the peer took it, or it did not and why."""

from __future__ import annotations

from dataclasses import dataclass

REJECTED = "rejected"
"""The peer refused it for good."""
QUEUE_FULL = "queue_full"
MEMORY_LIMIT = "memory_limit"
"""The queue had less room than it was given, for want of memory."""
GIVEN_UP = "given_up"
"""Tried for as long as `retry_on_failure` says."""
SHUTDOWN = "shutdown"
"""Still waiting when the time to stop was over."""
SPOOL_FULL = "spool_full"
"""The oldest on disk when there was no room for the newest."""
SPOOL_EXPIRED = "spool_expired"
"""On disk for longer than `spool.max_age`."""
SPOOL_CORRUPT = "spool_corrupt"
"""On disk, but unreadable."""
MISTAKE = "internal_error"
"""An error that nobody expected, where it was being sent."""
OUTPUT_CLOSED = "output_closed"
"""Nobody reads the console any more."""


UNANSWERED = {"timeout", "connection", "DEADLINE_EXCEEDED"}
LOST_CONNECTION = ("socket closed", "connection reset", "goaway", "rst_stream", "stream removed")
"""What gRPC says when a connection ends under a call; refused ones it says otherwise."""
ONE_RECORD = {"INVALID_ARGUMENT", "INTERNAL", "UNKNOWN", "HTTP 400", "HTTP 422", "HTTP 500"}
"""Refusals of what was sent; the others refuse whoever sends it, or are no answer to it."""


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
    too_large: bool = False
    """The peer takes smaller requests only."""

    @property
    def without_answer(self) -> bool:
        """Whether the peer may have died of the request, or hangs over it."""
        lost = self.code == "UNAVAILABLE" and any(words in self.message.lower() for words in LOST_CONNECTION)
        return lost or self.code in UNANSWERED

    @property
    def may_be_one_record(self) -> bool:
        """Whether a single record may be at fault, and the others be taken without it."""
        return self.code in ONE_RECORD

    @property
    def text(self) -> str:
        return f"{self.code}: {self.message}" if self.message else self.code


Answer = Accepted | Failure
