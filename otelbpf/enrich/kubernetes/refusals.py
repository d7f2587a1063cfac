"""What is said when the API server does not answer as it should: one sentence, in its own words where it has some."""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING, Any

import msgspec
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ReadTimeoutError,
)

from otelbpf.enrich.kubernetes import objects
from otelbpf.errors import OtelbpfError

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT_BYTES = 1 << 16
WORDS = 300
NO_ANSWER, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, GONE = 0, 401, 403, 404, 410
LONGEST_WAIT_S = 300.0
"""However long it asks us to wait."""
OBJECT_AT = re.compile(r" object at 0x[0-9a-f]+")
PLACE = re.compile(r" \(_ssl\.c:\d+\)|^\[[A-Z0-9_: ]+\] ")
"""Where in the interpreter's C code it was found, and OpenSSL's name for it."""


class ApiError(OtelbpfError):
    """A request that was not answered as it should: *status* is HTTP's, 0 when there was no answer.

    *wait_s* is how long the server asks us to wait before the next try, if it does.
    """

    def __init__(self, status: int, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.wait_s = wait_s


class TooLargeError(ApiError):
    """An answer of more bytes than are read of one."""


def refusal(response: Any) -> ApiError:
    """Why the server will not; closes *response*."""
    try:
        said = msgspec.json.decode(response.read1(LIMIT_BYTES), type=objects.Refusal)
        words = said.message or said.reason
    except (HTTPError, OSError, *objects.UNREADABLE):
        words = ""
    finally:
        response.close()
    asked = response.headers.get("Retry-After", "")
    wait_s = min(float(asked), LONGEST_WAIT_S) if asked.isdecimal() else None
    return ApiError(response.status, f"HTTP {response.status}: {_one_line(words) or 'no reason given'}", wait_s)


def no_answer(error: BaseException, waited_s: float, authority: str | None) -> ApiError:
    """Why there is no answer; *authority* is the file of the certificates that are trusted."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            trusted = authority or "the system's certificates"
            return ApiError(
                NO_ANSWER,
                f"the server's certificate is not trusted: {_one_line(cause.verify_message)}; {trusted} must vouch for it",
            )
        if isinstance(cause, ReadTimeoutError | TimeoutError) and not isinstance(cause, ConnectTimeoutError):
            return ApiError(NO_ANSWER, f"no answer within {waited_s:.0f} s")
        if isinstance(cause, NameResolutionError):
            return ApiError(NO_ANSWER, "the server's name is not known to the resolver")
    return ApiError(NO_ANSWER, sentence(causes[-1]))


def sentence(error: BaseException) -> str:
    """An error's own words, on one line."""
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return _one_line(PLACE.sub("", error.strerror) + where)
    text = OBJECT_AT.sub("", PLACE.sub("", str(error)))
    return _one_line(text) or type(error).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it wraps, down to the first of all."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        seen.append(cause)
        yield cause
        if isinstance(cause, NewConnectionError | ConnectTimeoutError):
            cause = cause.__cause__ or cause.__context__
        else:
            inner = getattr(cause, "reason", None)
            wrapped = next((part for part in cause.args if isinstance(part, BaseException)), None)
            cause = inner if isinstance(inner, BaseException) else wrapped or cause.__cause__


def _one_line(text: str) -> str:
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[:WORDS]
