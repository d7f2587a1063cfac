"""What the types cannot say: settings that must fit each other, endpoints, headers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from otelbpf.config.document import key_path, printable
from otelbpf.config.ipv6 import in_brackets
from otelbpf.config.settings import Config, OtlpGrpc, OtlpHttp, Signal

if TYPE_CHECKING:
    from collections.abc import Iterator

HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", re.ASCII)
HEADER_VALUE = re.compile(r"[\x20-\x7e]*", re.ASCII)
_HOST = r"(?:\[[0-9A-Fa-f:.%a-z]+\]|[^\s:/?#@\[\]]+)"
_HOST_PORT = re.compile(rf"(?P<host>{_HOST})(?::(?P<port>\d{{1,5}}))?", re.ASCII)
_MAX_PORT = 65535


def mistakes(config: Config) -> Iterator[tuple[str, str]]:
    """Pairs of key path and what is wrong with it."""
    if config.health.endpoint and not _is_own_endpoint(config.health.endpoint):
        endpoint = printable(config.health.endpoint)
        yield (
            "health.endpoint",
            f'"{endpoint}" is not an address to listen on; write host:port, such as 127.0.0.1:13134',
        )
    for name, exporter in config.exporters.items():
        path = key_path("exporters", name)
        if isinstance(exporter, OtlpGrpc):
            yield from ((f"{path}.endpoint", what) for what in _grpc_endpoint(exporter.endpoint))
        if isinstance(exporter, OtlpHttp):
            yield from _http_endpoints(exporter, path)
        if isinstance(exporter, OtlpGrpc | OtlpHttp):
            yield from _otlp(exporter, path)


def _otlp(exporter: OtlpGrpc | OtlpHttp, path: str) -> Iterator[tuple[str, str]]:
    if bool(exporter.tls.cert_file) != bool(exporter.tls.key_file):
        missing = "key_file" if exporter.tls.cert_file else "cert_file"
        yield f"{path}.tls", f"has only one of cert_file and key_file; give {missing} too"
    retry = exporter.retry_on_failure
    if retry.initial_interval > retry.max_interval:
        yield f"{path}.retry_on_failure.initial_interval", "is longer than max_interval; make it shorter"
    for key, value in exporter.headers.items():
        if not HEADER_NAME.fullmatch(key):
            yield key_path(f"{path}.headers", key), "is not a header name; write letters, digits and dashes"
        if not HEADER_VALUE.fullmatch(value):
            yield (
                key_path(f"{path}.headers", key),
                "has a value that no header can carry; write printable ASCII on one line",
            )


def _grpc_endpoint(endpoint: str) -> Iterator[str]:
    scheme, separator, rest = in_brackets(endpoint).rpartition("://")
    if separator and scheme not in ("http", "https"):
        yield f'"{printable(endpoint)}" has a scheme that is not supported; write host:port, http://host:port or https://host:port'
        return
    if rest.rstrip("/").count("/"):
        yield f'"{printable(endpoint)}" has a path, which an endpoint for gRPC cannot have; write host:port, or use the exporter otlp_http'
        return
    if not _is_host_port(rest.rstrip("/")):
        yield f'"{printable(endpoint)}" is not an endpoint; write host:port, such as collector:4317'


def _http_endpoints(exporter: OtlpHttp, path: str) -> Iterator[tuple[str, str]]:
    of_signal: dict[Signal, str] = {
        "logs": exporter.logs_endpoint,
        "metrics": exporter.metrics_endpoint,
        "traces": exporter.traces_endpoint,
    }
    if not exporter.endpoint and not all(of_signal[signal] for signal in exporter.signals):
        yield f"{path}.endpoint", "is missing; write a URL such as http://collector:4318"
    for key, url in (
        ("endpoint", exporter.endpoint),
        *((f"{signal}_endpoint", url) for signal, url in of_signal.items()),
    ):
        if url and not _is_http_url(in_brackets(url)):
            yield f"{path}.{key}", f'"{printable(url)}" is not a URL; write it such as http://collector:4318'


def _is_http_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    host = parts.netloc.rpartition("@")[2]
    return (
        parts.scheme in ("http", "https")
        and url.isascii()
        and url.isprintable()
        and " " not in url
        and _is_host_port(host)
    )


def _is_own_endpoint(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return ":" in text and _is_host_port(f"{host or '0.0.0.0'}:{port}")  # noqa: S104 - compared, not listened on


def _is_host_port(text: str) -> bool:
    match = _HOST_PORT.fullmatch(text)
    return match is not None and text.isprintable() and (match["port"] is None or 0 < int(match["port"]) <= _MAX_PORT)
