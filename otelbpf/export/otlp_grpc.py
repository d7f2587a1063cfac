"""OTLP over gRPC: one unary call a request, with the bytes as they are."""

from __future__ import annotations

import logging
import os
import re
import threading
from typing import TYPE_CHECKING, Any, Self

from otelbpf import __version__
from otelbpf.errors import ConfigError
from otelbpf.export.answer import Accepted, Answer, Failure
from otelbpf.export.endpoint import Certificates, certificate_files, grpc_endpoint, read_certificates
from otelbpf.export.files import Headers, Rotation
from otelbpf.export.proxy import proxy_of
from otelbpf.export.response import partial_success, shortened, status_details

if TYPE_CHECKING:
    import grpc

    from otelbpf.config import OtlpGrpc
    from otelbpf.export.request import Request

log = logging.getLogger("otelbpf.export")

METHODS = {
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
}
# https://opentelemetry.io/docs/specs/otlp/#failures; RESOURCE_EXHAUSTED only when the server says when it recovers.
RETRYABLE = {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"}
TOO_LARGE = ("larger than max", "too large")
"""What gRPC's servers say of a message above their limit."""
RESET = re.compile(r"(Stream removed \(RST_STREAM \()?Received RST_STREAM with error code \d+\)*")
"""What gRPC says of a stream that ended without a status, and makes a code of that the peer has not said."""
RECONNECTING: tuple[tuple[str, int], ...] = (
    # By itself the wait between connections grows to two minutes, long after the peer is back.
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.min_reconnect_backoff_ms", 2000),
    ("grpc.max_reconnect_backoff_ms", 5000),
    # After a connection was lost the name is looked up again, no more often than this; by itself gRPC waits for 30 s.
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
    # Two channels of the same address would share a connection, and with it the certificates from before.
    ("grpc.use_local_subchannel_pool", 1),
)
"""Options of a channel that finds its peer soon after it is back, and whose connections are its own."""


class GrpcTransport:
    """Sends to one OTLP/gRPC endpoint. A context manager; `send` may be called by several threads."""

    component = "otelbpf_otlp_grpc"

    def __init__(self, name: str, settings: OtlpGrpc) -> None:
        self.endpoint = grpc_endpoint(name, settings)
        self.timeout_s = settings.timeout
        self._name = name
        self._settings = settings
        self._certificates = Certificates()
        self._rotation = Rotation(certificate_files(settings.tls) if self.endpoint.secure else ())
        self._headers = Headers(name, settings.headers, settings.header_files, settings.bearer_token_file)
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._former: grpc.Channel | None = None
        self._calls: dict[str, Any] = {}
        self._closed = False

    def check(self) -> None:
        """Reads the files that the settings name; raises ConfigError."""
        self._certificates = read_certificates(self._name, self._settings.tls)
        self._headers.read()

    def __enter__(self) -> Self:
        # gRPC's core writes to stderr by itself, and only this variable stops it; what it says is in the errors too.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        with self._lock:
            self._connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancels the call under way."""
        with self._lock:
            self._closed = True
            for channel in (self._channel, self._former):
                if channel is not None:
                    channel.close()

    def send(self, request: Request, timeout_s: float) -> Answer:
        """One try, of at most *timeout_s*."""
        import grpc

        if self._rotation.happened():
            self._rotate()
        metadata = tuple(_field(key.lower(), value) for key, value in self._headers.current().items())
        channel = self._channel
        try:
            body = self._calls[request.signal](request.body, timeout=timeout_s, metadata=metadata)
        except grpc.RpcError as error:
            failure = failure_of(error)
            if failure.code == "DEADLINE_EXCEEDED":
                self._leave(channel)
            return failure
        except ValueError as error:  # the channel was closed under the call
            return Failure("CANCELLED", str(error), retryable=True)
        return partial_success(body, request.items) if body else Accepted()

    def _leave(self, channel: grpc.Channel | None) -> None:
        """Connects anew in the place of *channel*, which has not answered.

        Its way may lead nowhere (a peer that lost its power, a forgotten NAT entry): gRPC would stay there until TCP
        gives up, a quarter of an hour later, and servers do not allow pings that would tell sooner.
        """
        with self._lock:
            if channel is self._channel and not self._closed:
                self._connect()

    def _rotate(self) -> None:
        """Connects anew with the certificates as they are now, if they are whole."""
        try:
            certificates = read_certificates(self._name, self._settings.tls)
        except ConfigError as error:
            log.warning("exporter %s: %s; the certificates from before are used", self._name, error)
            return
        with self._lock:
            self._certificates = certificates
            if not self._closed:
                self._connect()

    def _connect(self) -> None:
        if self._former is not None:
            self._former.close()
        # Calls of other threads may be under way on the last channel: it is closed at the next change only.
        self._former, self._channel = self._channel, self._open()
        self._calls = {signal: self._channel.unary_unary(method) for signal, method in METHODS.items()}

    def _open(self) -> grpc.Channel:
        import grpc

        options: list[tuple[str, int | str]] = [*RECONNECTING]
        options.append(("grpc.primary_user_agent", f"otelbpf/{__version__}"))
        # Said in so many words, as gRPC's core looks at names in small letters only.
        proxy = proxy_of(self.endpoint)
        options.append(("grpc.http_proxy", proxy) if proxy else ("grpc.enable_http_proxy", 0))
        compression = grpc.Compression.Gzip if self._settings.compression == "gzip" else grpc.Compression.NoCompression
        if not self.endpoint.secure:
            return grpc.insecure_channel(self.endpoint.authority, options, compression)
        if override := self._settings.tls.server_name_override:
            options.append(("grpc.ssl_target_name_override", override))
        files = self._certificates
        credentials = grpc.ssl_channel_credentials(files.authorities, files.key, files.chain)
        return grpc.secure_channel(self.endpoint.authority, credentials, options, compression)


def _field(key: str, value: str) -> tuple[str, str | bytes]:
    """A header as gRPC takes it, which wants bytes for names that end so."""
    return (key, value.encode() if key.endswith("-bin") else value)


def failure_of(error: Any) -> Failure:
    """The failure that a gRPC error is, by the rules of the OTLP specification."""
    message, after_s = error.details() or "", None
    # A proxy between us, or the peer as it ends: nobody has judged the request.
    code = "UNAVAILABLE" if RESET.fullmatch(message) else error.code().name
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            _, after_s = status_details(value)
    exhausted = code == "RESOURCE_EXHAUSTED"
    too_large = exhausted and any(words in message.lower() for words in TOO_LARGE)
    retryable = code in RETRYABLE or (exhausted and after_s is not None)
    return Failure(code, shortened(message), retryable, after_s, too_large=too_large)
