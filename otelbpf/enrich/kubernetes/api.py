"""Requests to the API server: raw, so that an answer is read as it comes and only what is wanted is decoded."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import urllib3
from urllib3.exceptions import HTTPError

from otelbpf.enrich.kubernetes.refusals import NO_ANSWER, UNAUTHORIZED, ApiError, TooLargeError, no_answer, refusal
from otelbpf.enrich.kubernetes.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otelbpf.enrich.kubernetes.access import Access

CONNECT_S = 5.0
ANSWER_S = 15.0
BODY_S = 60.0
"""For a whole answer, however it trickles."""
BODY_LIMIT_BYTES = 32 << 20
PART_BYTES = 1 << 18
OK = 200


class Api:
    """Asks the server that *access* leads to. Nothing is connected before the first question."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def stream(self, path: str, query: Mapping[str, str]) -> Stream:
        """An answer that goes on. Raises ApiError."""
        return Stream(self._asked(path, query))

    def get(self, path: str, query: Mapping[str, str]) -> bytes:
        """A whole answer. Raises ApiError."""
        response = self._asked(path, query)
        until_s, parts, size = time.monotonic() + BODY_S, [], 0
        try:
            while part := response.read1(PART_BYTES):
                parts.append(part)
                size += len(part)
                if size > BODY_LIMIT_BYTES:
                    raise TooLargeError(OK, f"an answer of more than {BODY_LIMIT_BYTES >> 20} MiB")
                if time.monotonic() > until_s:
                    raise ApiError(NO_ANSWER, f"an answer that is not whole after {BODY_S:.0f} s")
        except (HTTPError, OSError) as error:
            raise no_answer(error, ANSWER_S, self._access.authority) from error
        finally:
            response.close() if response.length_remaining else response.release_conn()
        return b"".join(parts)

    def _asked(self, path: str, query: Mapping[str, str]) -> Any:
        """The answer to a request. A token that was exchanged since it was read is read and tried at once."""
        sent = self._access.authorization()
        try:
            return self._answer(path, query, sent)
        except ApiError as error:
            if error.status != UNAUTHORIZED:
                raise
            self._access.forget()
            again = self._access.authorization()
            if again == sent:
                raise
        return self._answer(path, query, again)

    def _answer(self, path: str, query: Mapping[str, str], authorization: Mapping[str, str]) -> Any:
        pool = self._access.pool()
        try:
            response = pool.request(
                "GET",
                f"{self._access.host}{path}?{urlencode(query)}",
                headers={"Accept": "application/json", "User-Agent": "otelbpf", **authorization},
                preload_content=False,
                retries=False,
                redirect=False,
                timeout=urllib3.Timeout(connect=CONNECT_S, read=ANSWER_S),
            )
        except (HTTPError, OSError, ValueError) as error:  # ValueError: a URL that is none
            said = no_answer(error, ANSWER_S, self._access.authority)
            self._access.forget()  # certificates, and where the server is, may have changed
            raise said from error
        if response.status == OK:
            return response
        raise refusal(response)
