"""OTLP peers that do what a test tells them: what a collector will not do on demand.

Each request takes the next step of `script`; when none is left it is accepted. `received` holds every request with
what was done to it, so that a test can compare both ends' accounts.
"""

from __future__ import annotations

import contextlib
import gzip
import socket
import ssl
import struct
import threading
from collections import deque
from concurrent import futures
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

import grpc
from backports import zstd
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SERVICES = {"LogsService": "logs", "MetricsService": "metrics", "TraceService": "traces"}
PROTOBUF = "application/x-protobuf"


@dataclass(frozen=True)
class Accept:
    """Take it, but for *rejected* items."""

    rejected: int = 0
    message: str = ""

    def body(self) -> bytes:
        answer = ExportLogsServiceResponse()
        if self.rejected or self.message:
            answer.partial_success.rejected_log_records = self.rejected
            answer.partial_success.error_message = self.message
        return bytes(answer.SerializeToString())


@dataclass(frozen=True)
class Fail:
    """Answer with a gRPC code or an HTTP status. *retry_after* goes into RetryInfo (seconds) or Retry-After (as it is)."""

    code: str | int
    message: str = ""
    retry_after: float | str | None = None


@dataclass(frozen=True)
class Hang:
    """Read the request and say nothing until the peer is left."""


@dataclass(frozen=True)
class Reset:
    """Reset the connection where the answer should begin (HTTP only)."""


@dataclass(frozen=True)
class Say:
    """Answer 200 with these bytes."""

    body: bytes
    content_type: str = PROTOBUF


Step = Accept | Fail | Hang | Reset | Say


@dataclass(frozen=True)
class Received:
    """One request as it arrived, and what was done to it."""

    signal: str
    body: bytes
    headers: dict[str, str]
    step: Step


@dataclass
class Peer:
    """What both have in common. A context manager."""

    script: deque[Step] = field(default_factory=deque)
    received: list[Received] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)
    refuses: bytes = b""
    """What no request may hold; one that does is refused as a whole, apart from the script."""
    hangs_over: bytes = b""
    """What makes a request that holds it hang."""
    max_bytes: int = 4 * 2**20
    host: str = "127.0.0.1"
    port: int = 0
    refusal: str | int = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def play(self, *steps: Step) -> None:
        """Appends to the script."""
        self.script.extend(steps)

    def bodies(self, signal: str = "logs", *, accepted: bool = True) -> list[bytes]:
        """The requests of *signal* in order of arrival; without those that failed, unless asked for."""
        return [
            one.body for one in self.received if one.signal == signal and (isinstance(one.step, Accept) or not accepted)
        ]

    def take(self, signal: str, body: bytes, headers: dict[str, str]) -> Step:
        """Notes a request and gives the step for it."""
        with self._lock:
            if self.refuses and self.refuses in body:
                step: Step = Fail(self.refusal, "a record is bad")
            elif self.hangs_over and self.hangs_over in body:
                step = Hang()
            else:
                step = self.script.popleft() if self.script else Accept()
            self.received.append(Received(signal, body, headers, step))
            return step


@dataclass
class GrpcPeer(Peer):
    """An OTLP/gRPC server on *host*; with *certificate* and *key* it speaks TLS, with *authority* it wants ours."""

    certificate: Path | None = None
    key: Path | None = None
    authority: Path | None = None
    refusal: str | int = "INVALID_ARGUMENT"

    def __enter__(self) -> Self:
        self.left.clear()
        options = [("grpc.max_receive_message_length", self.max_bytes), ("grpc.so_reuseport", 0)]
        self._server = grpc.server(futures.ThreadPoolExecutor(64), options=options)
        self._server.add_generic_rpc_handlers((_Handler(self),))
        address = f"{self.host}:{self.port}"
        if self.certificate and self.key:
            authority = self.authority.read_bytes() if self.authority else None
            pairs = [(self.key.read_bytes(), self.certificate.read_bytes())]
            credentials = grpc.ssl_server_credentials(pairs, authority, require_client_auth=authority is not None)
            self.port = self._server.add_secure_port(address, credentials)
        else:
            self.port = self._server.add_insecure_port(address)
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.left.set()
        self._server.stop(0).wait()

    @property
    def endpoint(self) -> str:
        return f"http{'s' if self.certificate else ''}://{self.host}:{self.port}"


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, peer: GrpcPeer) -> None:
        self._peer = peer

    def service(self, details: Any) -> Any:
        signal = SERVICES.get(details.method.rsplit("/", 2)[-2].rsplit(".", 1)[-1])
        if signal is None:
            return None
        headers = dict(details.invocation_metadata)

        def answer(body: bytes, context: grpc.ServicerContext) -> bytes:
            return self._do(self._peer.take(signal, body, headers), context)

        return grpc.unary_unary_rpc_method_handler(answer)

    def _do(self, step: Step, context: grpc.ServicerContext) -> bytes:
        if isinstance(step, Fail):
            if step.retry_after is not None:
                context.set_trailing_metadata((("grpc-status-details-bin", _status(step)),))
            context.abort(grpc.StatusCode[str(step.code)], step.message)
        if isinstance(step, Hang):
            self._peer.left.wait()
            return b""
        return step.body() if isinstance(step, Accept) else getattr(step, "body", b"")


def _status(step: Fail) -> bytes:
    number = grpc.StatusCode[str(step.code)].value[0] if isinstance(step.code, str) else 14
    status = Status(code=number, message=step.message)
    delay = Duration()
    delay.FromNanoseconds(int(float(step.retry_after or 0) * 1e9))
    status.details.add().Pack(RetryInfo(retry_delay=delay))
    return bytes(status.SerializeToString())


@dataclass
class HttpPeer(Peer):
    """An OTLP/HTTP server on *host*; with *certificate* and *key* it speaks TLS, with *authority* it wants ours."""

    certificate: Path | None = None
    key: Path | None = None
    authority: Path | None = None
    connections: int = 0
    refusal: str | int = 400

    def __enter__(self) -> Self:
        self.left.clear()
        peer = self

        class Handler(_HttpHandler):
            pass

        Handler.peer = peer
        self._server = _Server((self.host, self.port), Handler)
        if self.certificate and self.key:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate, self.key)
            if self.authority:
                context.load_verify_locations(self.authority)
                context.verify_mode = ssl.CERT_REQUIRED
            self._server.tls = context
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.left.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for connection in list(self._server.open):
            with contextlib.suppress(OSError):  # closed by its own thread meanwhile
                connection.shutdown(socket.SHUT_RDWR)

    @property
    def endpoint(self) -> str:
        return f"http{'s' if self.certificate else ''}://{self.host}:{self.port}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    tls: ssl.SSLContext | None = None

    def __init__(self, *args: Any) -> None:
        self.open: set[socket.socket] = set()
        super().__init__(*args)

    def finish_request(self, request: Any, client_address: Any) -> None:
        # In the connection's own thread, so that a peer that does not speak TLS does not hold the others.
        if self.tls is not None:
            try:
                request = self.tls.wrap_socket(request, server_side=True)
            except OSError:
                return
        self.open.add(request)
        super().finish_request(request, client_address)

    def handle_error(self, *_: object) -> None:
        """A connection that was reset is part of the script."""


class _HttpHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    peer: HttpPeer

    def setup(self) -> None:
        super().setup()
        self.peer.connections += 1

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        elif self.headers.get("Content-Encoding") == "zstd":
            body = zstd.decompress(body)
        if len(body) > self.peer.max_bytes:
            self._do(Fail(413, "too large"))
            return
        headers = {key.lower(): value for key, value in self.headers.items()} | {":path": self.path}
        self._do(self.peer.take(self.path.rsplit("/", 1)[-1], body, headers))

    def _do(self, step: Step) -> None:
        if isinstance(step, Accept):
            self._answer(200, step.body())
        elif isinstance(step, Say):
            self._answer(200, step.body, step.content_type)
        elif isinstance(step, Fail):
            extra = {} if step.retry_after is None else {"Retry-After": str(step.retry_after)}
            self._answer(int(step.code), Status(message=step.message).SerializeToString(), PROTOBUF, extra)
        elif isinstance(step, Hang):
            self.peer.left.wait()
            self.close_connection = True
        else:
            # Linger of zero: close sends RST
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True

    def _answer(
        self, status: int, body: bytes, content_type: str = PROTOBUF, extra: dict[str, str] | None = None
    ) -> None:
        if status in (204, 304):
            body = b""  # these have none
        self.send_response(status)
        for key, value in ({"Content-Type": content_type, "Content-Length": str(len(body))} | (extra or {})).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


PEERS: dict[str, type[GrpcPeer | HttpPeer]] = {"otlp_grpc": GrpcPeer, "otlp_http": HttpPeer}
"""By the kind of exporter that sends to them."""


def signals_of(received: Iterable[Received]) -> list[str]:
    """The signals in order of arrival."""
    return [one.signal for one in received]
