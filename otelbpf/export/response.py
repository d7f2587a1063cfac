"""What a peer's answer says, for both transports: partial success, and google.rpc.Status with RetryInfo."""

from __future__ import annotations

import json
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from otelbpf.export.answer import Accepted

if TYPE_CHECKING:
    from datetime import datetime

MESSAGE_LIMIT = 300
"""What is kept of a peer's message: it ends in a log line."""


def partial_success(body: bytes, items: int) -> Accepted:
    """The content of an Export…ServiceResponse. What cannot be parsed is taken as success: the status said so."""
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

    if not body:
        return Accepted()
    try:
        # The three signals' answers have the same fields with the same numbers.
        partial = ExportLogsServiceResponse.FromString(body).partial_success
    except DecodeError:
        return Accepted()
    return Accepted(_within(partial.rejected_log_records, items), shortened(partial.error_message))


def partial_success_json(body: bytes, items: int) -> Accepted:
    """The same in OTLP's JSON form, which some servers answer whatever they were sent."""
    try:
        partial = json.loads(body)["partialSuccess"]
        rejected = next((int(count) for key, count in partial.items() if key.startswith("rejected")), 0)
        return Accepted(_within(rejected, items), shortened(str(partial.get("errorMessage", ""))))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return Accepted()


def status_details(body: bytes) -> tuple[str, float | None]:
    """Message and RetryInfo's delay in seconds of a google.rpc.Status; empty and None where there is none."""
    from google.protobuf.message import DecodeError
    from google.rpc.error_details_pb2 import RetryInfo
    from google.rpc.status_pb2 import Status

    try:
        status = Status.FromString(body)
        for detail in status.details:
            info = RetryInfo()
            if detail.Unpack(info):
                return shortened(status.message), max(0.0, info.retry_delay.ToTimedelta().total_seconds())
    except (DecodeError, OverflowError):
        return "", None
    return shortened(status.message), None


def retry_after_s(header: str, now: datetime) -> float | None:
    """The wait that a Retry-After header asks for, in seconds or as a date; None when it is neither."""
    try:
        return max(0.0, float(int(header)))
    except (ValueError, OverflowError):
        pass
    try:
        return max(0.0, (parsedate_to_datetime(header) - now).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def shortened(message: str) -> str:
    """One line of *message*."""
    line = " ".join(message.split())
    return line if len(line) <= MESSAGE_LIMIT else line[: MESSAGE_LIMIT - 1] + "…"


def _within(rejected: int, items: int) -> int:
    """A server that rejects more than it was sent must not bend the ledger."""
    return min(max(rejected, 0), items)
