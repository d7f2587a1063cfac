"""Where an exporter sends to, and with which certificates: read from the settings once, before anything is opened."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from otelbpf.config import Tls
from otelbpf.config.ipv6 import in_brackets
from otelbpf.errors import ConfigError
from otelbpf.export.files import content

if TYPE_CHECKING:
    from otelbpf.config import OtlpGrpc, OtlpHttp

GRPC_PORT = 4317
HTTP_PORT = 4318
PATHS = {"logs": "/v1/logs", "metrics": "/v1/metrics", "traces": "/v1/traces"}
_SCHEMES = {"grpc": False, "http": False, "https": True}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host, a port, and whether TLS is spoken there, and how."""

    host: str
    port: int
    secure: bool
    path: str = ""
    query: str = ""
    tls: Tls = field(default_factory=Tls)

    @property
    def authority(self) -> str:
        """``host:port``, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        scheme = "https" if self.secure else "http"
        return f"{scheme}://{self.authority}{self.path}" + (f"?{self.query}" if self.query else "")


def parse_endpoint(name: str, text: str, tls: Tls, port: int) -> Endpoint:
    """Reads ``host``, ``host:port`` or a URL; *port* and `tls.insecure` hold where the text does not say. An IPv6 address
    needs no brackets: in Kubernetes a variable with a node's address stands before the port.

    Raises ConfigError that names the exporter *name*.
    """
    try:
        written = in_brackets(text)
        parts = urlsplit(written if "://" in written else f"//{written}")
        found_port = parts.port
    except ValueError as error:
        raise ConfigError(f"exporters.{name}.endpoint: {text!r} is not host:port or a URL ({error})") from None
    if parts.scheme and parts.scheme not in _SCHEMES:
        raise ConfigError(f"exporters.{name}.endpoint: {text!r} must begin with http:// or https://, or be host:port")
    if not parts.hostname:
        raise ConfigError(f"exporters.{name}.endpoint: {text!r} names no host")
    secure = _SCHEMES.get(parts.scheme, not tls.insecure)
    # A URL for HTTP without a port means the scheme's own, as everywhere; OTLP's ports are for what is no URL.
    if found_port is None:
        found_port = {"http": 80, "https": 443}.get(parts.scheme, port) if port == HTTP_PORT else port
    return Endpoint(parts.hostname, found_port, secure, parts.path, parts.query, tls)


def grpc_endpoint(name: str, settings: OtlpGrpc) -> Endpoint:
    """Where `otlp_grpc` sends: plain text with http:// or `tls.insecure`, else TLS, as in the collector."""
    return parse_endpoint(name, settings.endpoint, settings.tls, GRPC_PORT)


def http_endpoints(name: str, settings: OtlpHttp) -> dict[str, Endpoint]:
    """Signal → URL: the signal's own endpoint as it is, else `endpoint` with the path of the specification."""
    own = {"logs": settings.logs_endpoint, "metrics": settings.metrics_endpoint, "traces": settings.traces_endpoint}
    base = settings.endpoint.rstrip("/")
    texts = {signal: own[signal] or (base + path if base else "") for signal, path in PATHS.items()}
    return {signal: parse_endpoint(name, text, settings.tls, HTTP_PORT) for signal, text in texts.items() if text}


@dataclass(frozen=True, slots=True)
class Certificates:
    """The files of `tls`, read; None where there is none."""

    authorities: bytes | None = None
    chain: bytes | None = None
    key: bytes | None = None


def certificate_files(tls: Tls) -> tuple[str, str, str]:
    """The files that *tls* names, empty where it names none."""
    return tls.ca_file, tls.cert_file, tls.key_file


def read_certificates(name: str, tls: Tls) -> Certificates:
    """Reads and checks the files that `tls` names. Raises ConfigError that says which one is wrong and how."""
    certificates = Certificates(
        _read(name, "ca_file", tls.ca_file),
        _read(name, "cert_file", tls.cert_file),
        _read(name, "key_file", tls.key_file),
    )
    if bool(tls.cert_file) != bool(tls.key_file):
        missing = "key_file" if tls.cert_file else "cert_file"
        raise ConfigError(f"exporters.{name}.tls: cert_file and key_file go together; {missing} is missing")
    if tls.ca_file or tls.cert_file:
        tls_context(name, tls)
    return certificates


def tls_context(name: str, tls: Tls) -> ssl.SSLContext:
    """A context that trusts `ca_file`, else the system's authorities, and shows our own certificate.

    Raises ConfigError when a file is not what it should be.
    """
    try:
        context = ssl.create_default_context(cafile=tls.ca_file or None)
    except (ssl.SSLError, ValueError):
        raise ConfigError(f"exporters.{name}.tls.ca_file: {tls.ca_file} holds no certificate in PEM form") from None
    if tls.cert_file:
        try:
            # An empty password: a key that is locked must be an error, not a question on the terminal.
            context.load_cert_chain(tls.cert_file, tls.key_file, password="")
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(
                f"exporters.{name}.tls: {tls.cert_file} and {tls.key_file} are not a certificate and its key ({error})"
            ) from None
    return context


def _read(name: str, setting: str, path: str) -> bytes | None:
    if not path:
        return None
    try:
        data = content(path)
    except OSError as error:
        raise ConfigError(f"exporters.{name}.tls.{setting}: cannot read {path}: {error.strerror}") from None
    if not data:
        raise ConfigError(f"exporters.{name}.tls.{setting}: {path} is empty; give a file in PEM form")
    return data
