"""OpenTelemetry's own SDK and exporters, set up for one peer: they carry what the agent says about itself.

Their habits must not affect the agent: they log to the terminal, block for up to half a minute when the peer is away, and
lose what could not be sent. So they run apart, are silenced, and are left behind at the end when they take too long.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from otelbpf import __version__
from otelbpf.config import OtlpGrpc, OtlpHttp
from otelbpf.export.endpoint import grpc_endpoint, http_endpoints, read_certificates
from otelbpf.export.files import Headers
from otelbpf.export.keeping import KeepingExporter
from otelbpf.export.otlp_grpc import RECONNECTING
from otelbpf.signals import names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry._logs import Logger
    from opentelemetry.metrics import Meter

    from otelbpf.config import Tls

LOG_DELAY_MS = 1000


class Sdk:
    """Providers that send to one peer. Making one imports the SDK and starts its threads; `close` ends them."""

    def __init__(
        self, name: str, settings: OtlpGrpc | OtlpHttp, resource: Mapping[str, Any], interval_s: float
    ) -> None:
        from opentelemetry.sdk._logs import LoggerProvider
        from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.resources import Resource

        silence()
        metric_exporter, log_exporter = _exporters(name, settings)
        identity = Resource.create(dict(resource))
        reader = PeriodicExportingMetricReader(metric_exporter, interval_s * 1000, settings.timeout * 1000)
        self._meters = MeterProvider([reader], identity, shutdown_on_exit=False)
        self._loggers = LoggerProvider(identity, shutdown_on_exit=False)
        keeping: Any = KeepingExporter(log_exporter)
        self._loggers.add_log_record_processor(BatchLogRecordProcessor(keeping, LOG_DELAY_MS))

    def meter(self) -> Meter:
        return self._meters.get_meter(names.SCOPE_AGENT, __version__, names.SCHEMA_URL)

    def logger(self) -> Logger:
        return self._loggers.get_logger(names.SCOPE_AGENT, __version__, names.SCHEMA_URL)

    def close(self, deadline: float) -> bool:
        """Sends what is left until *deadline* (time.monotonic); says whether it ended by then."""
        left_ms = max(0, int((deadline - time.monotonic()) * 1000))
        # Side by side, as each may need all the time there is; daemons, as neither keeps to it.
        closing = [
            threading.Thread(target=provider.shutdown, args=arguments, name=name, daemon=True)
            for provider, arguments, name in (
                (self._meters, (left_ms + 1,), "close metrics"),
                (self._loggers, (), "close logs"),
            )
        ]
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in closing)


def silence() -> None:
    """Keeps the SDK's complaints from the terminal: that a peer is away is said once, by the exporters."""
    logger = logging.getLogger("opentelemetry")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def _exporters(name: str, settings: OtlpGrpc | OtlpHttp) -> tuple[Any, Any]:
    return _grpc_exporters(name, settings) if isinstance(settings, OtlpGrpc) else _http_exporters(name, settings)


def _grpc_exporters(name: str, settings: OtlpGrpc) -> tuple[Any, Any]:
    import grpc
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter

    endpoint = grpc_endpoint(name, settings)
    files = read_certificates(name, settings.tls)
    override = settings.tls.server_name_override
    common: dict[str, Any] = {
        "endpoint": endpoint.authority,
        "insecure": not endpoint.secure,
        "credentials": grpc.ssl_channel_credentials(files.authorities, files.key, files.chain)
        if endpoint.secure
        else None,
        "headers": {key.lower(): value for key, value in _headers(name, settings).current().items()},
        "timeout": settings.timeout,
        "compression": grpc.Compression.Gzip if settings.compression == "gzip" else grpc.Compression.NoCompression,
        # Not the connection of the other signal, whose failures would make this one wait.
        "channel_options": (*RECONNECTING, *((("grpc.ssl_target_name_override", override),) if override else ())),
    }
    return OTLPMetricExporter(**common), OTLPLogExporter(**common)


def _http_exporters(name: str, settings: OtlpHttp) -> tuple[Any, Any]:
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    endpoints = http_endpoints(name, settings)
    common: dict[str, Any] = {
        "certificate_file": settings.tls.ca_file or None,
        "client_key_file": settings.tls.key_file or None,
        "client_certificate_file": settings.tls.cert_file or None,
        "headers": {},
        "timeout": settings.timeout,
        "compression": Compression.NoCompression if settings.compression == "none" else Compression.Gzip,
        "session": _session(settings.tls, _headers(name, settings)),
    }
    fallback = next(iter(endpoints.values()))
    return (
        OTLPMetricExporter(endpoints.get("metrics", fallback).url, **common),
        OTLPLogExporter(endpoints.get("logs", fallback).url, **common),
    )


def _headers(name: str, settings: OtlpGrpc | OtlpHttp) -> Headers:
    headers = Headers(name, settings.headers, settings.header_files, settings.bearer_token_file)
    headers.read()
    return headers


def _session(tls: Tls, headers: Headers) -> Any:
    """A requests session that trusts, and expects, what *tls* says, and sends *headers* as they are at the time.

    By itself requests prefers REQUESTS_CA_BUNDLE to a `ca_file` that was set, and takes the endpoint's name only.
    """
    import requests
    from requests.adapters import HTTPAdapter

    name = tls.server_name_override
    expected: dict[str, Any] = {"server_hostname": name, "assert_hostname": name} if name else {}

    class AsSet(HTTPAdapter):
        def init_poolmanager(self, *arguments: Any, **more: Any) -> None:
            super().init_poolmanager(*arguments, **(more | expected))

        def send(self, request: Any, *arguments: Any, **more: Any) -> Any:
            request.headers.update(headers.current())
            return super().send(request, *arguments, **(more | ({"verify": tls.ca_file} if tls.ca_file else {})))

    session = requests.Session()
    session.mount("https://", AsSet())
    session.mount("http://", AsSet())
    return session
