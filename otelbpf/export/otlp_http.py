"""OTLP over HTTP: one POST of protobuf bytes a request, over connections that are kept."""

from __future__ import annotations

import zlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from otelbpf import __version__
from otelbpf.export.answer import Accepted, Answer, Failure
from otelbpf.export.endpoint import http_endpoints, read_certificates, tls_context
from otelbpf.export.response import partial_success, partial_success_json, retry_after_s, shortened, status_details

if TYPE_CHECKING:
    import ssl

    import urllib3

    from otelbpf.config import OtlpHttp
    from otelbpf.export.endpoint import Endpoint
    from otelbpf.export.request import Request

PROTOBUF = "application/x-protobuf"
RETRYABLE = {429, 502, 503, 504}
ANSWER_LIMIT = 2**16
"""What is read of an answer; an honest one has a few hundred bytes."""
GZIP_LEVEL = 1
"""Log records shrink 14-fold at a fraction of level 6's time, which gains a quarter more."""


class HttpTransport:
    """Sends to one OTLP/HTTP server. A context manager; `send` is called by one thread at a time."""

    component = "otelbpf_otlp_http"

    def __init__(self, name: str, settings: OtlpHttp) -> None:
        self.endpoints = http_endpoints(name, settings)
        self.timeout_s = settings.timeout
        self._name = name
        self._settings = settings
        self._headers = {"User-Agent": f"otelbpf/{__version__}", "Content-Type": PROTOBUF} | settings.headers
        if settings.compression == "gzip":
            self._headers["Content-Encoding"] = "gzip"
        self._packed: dict[str, tuple[Request, bytes]] = {}
        self._context: ssl.SSLContext | None = None
        self._pool: urllib3.PoolManager | None = None

    @property
    def endpoint(self) -> Endpoint:
        """The one that stands for all in messages."""
        return next(iter(self.endpoints.values()))

    def check(self) -> None:
        """Reads the files that the settings name; raises ConfigError."""
        read_certificates(self._name, self._settings.tls)
        if any(endpoint.secure for endpoint in self.endpoints.values()):
            self._context = tls_context(self._name, self._settings.tls)

    def __enter__(self) -> Self:
        import urllib3

        tls = self._settings.tls
        secure: dict[str, Any] = {}
        if self._context is not None:
            secure["ssl_context"] = self._context
            if tls.server_name_override:
                secure |= {"server_hostname": tls.server_name_override, "assert_hostname": tls.server_name_override}
        self._pool = urllib3.PoolManager(
            num_pools=len(self.endpoints), maxsize=self._settings.sending_queue.num_consumers, retries=False, **secure
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections that wait; a request under way ends by its timeout."""
        if self._pool is not None:
            self._pool.clear()

    def send(self, request: Request, timeout_s: float) -> Answer:
        """One try, of at most *timeout_s*."""
        import urllib3

        assert self._pool is not None, "entered"  # noqa: S101 - a contract, not a check of input
        endpoint = self.endpoints.get(request.signal)
        if endpoint is None:
            return Failure("no endpoint", f"no endpoint is set for {request.signal}", retryable=False)
        try:
            response = self._pool.request(
                "POST",
                endpoint.url,
                body=self._body(request),
                headers=self._headers,
                timeout=urllib3.Timeout(total=timeout_s),
                redirect=False,
                retries=False,
                preload_content=False,
            )
            body = response.read(ANSWER_LIMIT)
        except urllib3.exceptions.HTTPError as error:
            return connection_failure(error)
        if len(body) == ANSWER_LIMIT:
            response.close()  # whatever this is, the rest of it is not wanted
        answer = answer_of(response.status, response.headers, body, request.items)
        if isinstance(answer, Accepted):
            self._packed.pop(request.signal, None)
        return answer

    def _body(self, request: Request) -> bytes:
        if self._settings.compression != "gzip":
            return request.body
        kept, packed = self._packed.get(request.signal, (None, b""))
        if kept is not request:  # a retry sends the same bytes, and packs them once
            packed = zlib.compress(request.body, GZIP_LEVEL, zlib.MAX_WBITS | 16)
            self._packed[request.signal] = (request, packed)
        return packed


def answer_of(status: int, headers: Any, body: bytes, items: int) -> Answer:
    """What an HTTP response means, by the rules of the OTLP specification."""
    content_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if 200 <= status < 300:
        if content_type == "text/html":  # a web page answers POST with 200 and forgets the data
            return Failure("no OTLP", "the server answered with a web page, not OTLP", retryable=False)
        parse = partial_success_json if content_type == "application/json" else partial_success
        return parse(body, items)
    asked = headers.get("Retry-After")
    after_s = retry_after_s(asked, datetime.now(UTC)) if asked else None
    message, _ = (
        status_details(body) if content_type == PROTOBUF else (shortened(body.decode("utf-8", "replace")), None)
    )
    if 300 <= status < 400:
        message = f"redirected to {headers.get('Location', 'nowhere')}"
    # The collector reads what its limit lets through, and says 400.
    too_large = status == 413 or (status == 400 and "too large" in message.lower())
    return Failure(f"HTTP {status}", message, status in RETRYABLE, after_s, too_large=too_large)


def connection_failure(error: Exception) -> Failure:
    """The failure that an exception of urllib3 is; all can pass, as nobody has judged the request yet."""
    import urllib3.exceptions as problem

    kinds: tuple[tuple[type[Exception], str], ...] = (
        (problem.SSLError, "tls"),
        (problem.NameResolutionError, "name"),
        (problem.TimeoutError, "timeout"),
    )
    code = next((name for kind, name in kinds if isinstance(error, kind)), "connection")
    return Failure(code, shortened(str(error)), retryable=True)
