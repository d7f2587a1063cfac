"""OTLP over HTTP: one POST of protobuf bytes a request, over connections that are kept."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote

from otelbpf import __version__
from otelbpf.errors import ConfigError
from otelbpf.export.answer import Accepted, Answer, Failure
from otelbpf.export.compression import Compressor
from otelbpf.export.endpoint import certificate_files, http_endpoints, read_certificates, tls_context
from otelbpf.export.files import Headers, Rotation
from otelbpf.export.proxy import proxy_of
from otelbpf.export.response import partial_success, partial_success_json, retry_after_s, shortened, status_details

if TYPE_CHECKING:
    import ssl

    import urllib3

    from otelbpf.config import OtlpHttp
    from otelbpf.export.endpoint import Endpoint
    from otelbpf.export.request import Request

log = logging.getLogger("otelbpf.export")

PROTOBUF = "application/x-protobuf"
PROXY_REFUSES = 407
RETRYABLE = {429, 502, 503, 504, PROXY_REFUSES}
"""As the specification has them, and a proxy's refusal: the peer has seen nothing yet."""
ANSWER_LIMIT = 2**16
"""What is read of an answer; an honest one has a few hundred bytes."""


class HttpTransport:
    """Sends to one OTLP/HTTP server. A context manager; `send` may be called by several threads."""

    component = "otelbpf_otlp_http"

    def __init__(self, name: str, settings: OtlpHttp) -> None:
        self.endpoints = http_endpoints(name, settings)
        self.timeout_s = settings.timeout
        self._name = name
        self._settings = settings
        self._headers = Headers(name, settings.headers, settings.header_files, settings.bearer_token_file)
        self._own_headers = {"User-Agent": f"otelbpf/{__version__}", "Content-Type": PROTOBUF}
        if settings.compression != "none":
            self._own_headers["Content-Encoding"] = settings.compression
        self._compressor = Compressor(settings.compression)
        self._secure = any(endpoint.secure for endpoint in self.endpoints.values())
        self._rotation = Rotation(certificate_files(settings.tls) if self._secure else ())
        self._pools: dict[str, urllib3.PoolManager] = {}
        self._context: ssl.SSLContext | None = None

    @property
    def endpoint(self) -> Endpoint:
        """The one that stands for all in messages."""
        return next(iter(self.endpoints.values()))

    def check(self) -> None:
        """Reads the files that the settings name; raises ConfigError."""
        read_certificates(self._name, self._settings.tls)
        self._headers.read()
        if self._secure:
            self._context = tls_context(self._name, self._settings.tls)

    def __enter__(self) -> Self:
        # It would write a traceback for each answer whose headers are none; what matters is in the errors too.
        logging.getLogger("urllib3").setLevel(logging.CRITICAL)
        self._pools = self._opened()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections that wait; a request under way ends by its timeout."""
        for pool in self._pools.values():
            pool.clear()

    def send(self, request: Request, timeout_s: float) -> Answer:
        """One try, of at most *timeout_s*."""
        import urllib3

        if self._rotation.happened():
            self._rotate()
        endpoint = self.endpoints.get(request.signal)
        if endpoint is None:
            return Failure("no endpoint", f"no endpoint is set for {request.signal}", retryable=False)
        try:
            response = self._pools[request.signal].request(
                "POST",
                endpoint.url,
                body=self._compressor.compress(request),
                headers=self._own_headers | dict(self._headers.current()),
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
        if isinstance(answer, Accepted) or not answer.retryable:
            self._compressor.forget(request)
        return answer

    def _opened(self) -> dict[str, urllib3.PoolManager]:
        """Signal → connections, through the proxy that the environment names for its host."""
        by_proxy: dict[str, urllib3.PoolManager] = {}
        pools = {}
        for signal, endpoint in self.endpoints.items():
            proxy = proxy_of(endpoint)
            if proxy not in by_proxy:
                by_proxy[proxy] = self._pool(proxy)
            pools[signal] = by_proxy[proxy]
        return pools

    def _pool(self, proxy: str) -> urllib3.PoolManager:
        import urllib3

        from otelbpf.export.in_time import POOLS

        tls = self._settings.tls
        options: dict[str, Any] = {
            "num_pools": len(self.endpoints),
            "maxsize": self._settings.sending_queue.num_consumers,
            "retries": False,
        }
        if self._context is not None:
            options["ssl_context"] = self._context
            if tls.server_name_override:
                options |= {"server_hostname": tls.server_name_override, "assert_hostname": tls.server_name_override}
        manager = _proxied(proxy, options) if proxy else urllib3.PoolManager(**options)
        manager.pool_classes_by_scheme = POOLS
        return manager

    def _rotate(self) -> None:
        """Connects anew with the certificates as they are now, if they are whole."""
        try:
            read_certificates(self._name, self._settings.tls)  # says which file it is that is not there
            self._context = tls_context(self._name, self._settings.tls)
        except (ConfigError, OSError) as error:
            log.warning("exporter %s: %s; the certificates from before are used", self._name, error)
            return
        former, self._pools = self._pools, self._opened()
        for pool in former.values():
            pool.clear()


def _proxied(proxy: str, options: dict[str, Any]) -> urllib3.PoolManager:
    import urllib3

    credentials = urllib3.util.parse_url(proxy).auth
    headers = urllib3.make_headers(proxy_basic_auth=unquote(credentials)) if credentials else None
    return urllib3.ProxyManager(proxy, proxy_headers=headers, **options)


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
        (problem.NewConnectionError, "connection"),  # a kind of timeout, to urllib3
        (problem.TimeoutError, "timeout"),
    )
    code = next((name for kind, name in kinds if isinstance(error, kind)), "connection")
    return Failure(code, shortened(str(error)), retryable=True)
