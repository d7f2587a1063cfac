"""Why a peer cannot be sent to, as one sentence that says which setting to change.

Libraries tell most of it in their messages. Where a message could mean several things, the peer itself is asked: it is
connected to once more, and what it speaks is seen from its first bytes.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING

from otelbpf.errors import ConfigError
from otelbpf.export.endpoint import tls_context
from otelbpf.export.proxy import proxy_named

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otelbpf.export.answer import Failure
    from otelbpf.export.endpoint import Endpoint

ASK_TIMEOUT_S = 2.0
HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04\x00" + bytes(4)
"""The preface of HTTP/2 and empty SETTINGS: a gRPC server answers with its own."""
HTTP1_HELLO = b"GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n"
SETTINGS_FRAME = b"\x04"
UNJUDGED = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "UNKNOWN", "INTERNAL", "connection", "timeout", "tls", "HTTP 400"}
"""Codes that may come from the library, or from a peer that does not speak the protocol."""
BEHIND_PROXY = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "connection", "timeout", "HTTP 407"}
"""Codes that a proxy may be the reason of."""


def diagnose(failure: Failure, endpoint: Endpoint | None, *, ask: bool = True) -> str:
    """One sentence on *failure* at *endpoint*. If it may *ask*, it may connect there, for some seconds at most."""
    said = failure.text
    if endpoint is None:
        return failure.message or failure.code
    if failure.code in BEHIND_PROXY and (proxy := proxy_named(endpoint)):
        return f"{endpoint.authority} cannot be reached through the proxy {proxy} ({said}); check the proxy, or name the peer in NO_PROXY"
    sentence = _from_message(failure, endpoint, said)
    if sentence is None and failure.code in UNJUDGED:
        if not ask:
            return f"{endpoint.authority} does not accept what it is sent ({said})"
        grpc = failure.code.isupper() and not failure.code.startswith("HTTP")
        sentence = _from_peer(endpoint, grpc=grpc, said=said)
    return sentence or f"{endpoint.authority} answered {said}"


def _from_message(failure: Failure, endpoint: Endpoint, said: str) -> str | None:
    where, text, code = endpoint.authority, failure.message.lower(), failure.code
    if code == "name" or "dns resolution failed" in text or "name resolution" in text:
        return _unresolved(endpoint)
    if "connection refused" in text:
        return _refused(endpoint)
    if "no route to host" in text or "network is unreachable" in text:
        return f"there is no route to {where}"
    if code in {"UNAUTHENTICATED", "HTTP 401"}:
        return f"{where} wants credentials ({said}); set them in headers"
    if code in {"PERMISSION_DENIED", "HTTP 403"}:
        return f"{where} does not allow it ({said}); check headers and the credentials in them"
    if code == "HTTP 413" or (code == "RESOURCE_EXHAUSTED" and "larger than max" in text):
        return f"{where} does not take requests of this size ({said}); raise its limit (max_recv_msg_size_mib)"
    if code == "HTTP 404":
        return f"{where} knows no {endpoint.path or '/'} (404); check the path of the endpoint"
    return None


def _from_peer(endpoint: Endpoint, *, grpc: bool, said: str) -> str:
    """Connects once more and sees what the peer speaks."""
    try:
        return (_secure if endpoint.secure else _plain)(endpoint, grpc=grpc, said=said)
    except socket.gaierror:
        return _unresolved(endpoint)
    except TimeoutError:
        return f"{endpoint.authority} cannot be connected to ({said}); check the endpoint and firewalls"
    except ConnectionRefusedError:
        return _refused(endpoint)
    except OSError as error:
        return f"{endpoint.authority} cannot be reached: {error.strerror or error}"


def _plain(endpoint: Endpoint, *, grpc: bool, said: str) -> str:
    where = endpoint.authority
    if not (speaks := _speaks(endpoint, None)) and _speaks_tls(endpoint):
        return f"{where} speaks TLS, not plain text; use https://{where} or tls.insecure: false"
    return _wrong_protocol(where, speaks, grpc=grpc) or _not_taken(where, speaks, said)


def _secure(endpoint: Endpoint, *, grpc: bool, said: str) -> str:
    where, tls = endpoint.authority, endpoint.tls
    try:
        speaks = _speaks(endpoint, tls_context("", tls))
    except ConfigError:
        return _no_answer(where, said)  # a file of ours was changed under us
    except ssl.SSLCertVerificationError as error:
        return (
            f"the certificate of {where} is not trusted: {error.verify_message}; "
            "set tls.ca_file to its authority, or tls.server_name_override to the name it bears"
        )
    except ssl.SSLError as error:
        if "ALERT" in (error.reason or "").upper():
            what = "does not accept our certificate" if tls.cert_file else "wants a certificate of ours"
            return f"{where} {what} ({error.reason}); set tls.cert_file and tls.key_file"
        plain = _speaks(endpoint, None)
        use = f"{where} speaks plain text, not TLS; use http://{where} or tls.insecure: true"
        return use if plain else _no_answer(where, said)
    if not speaks:  # gRPC's own servers hang up without a word when they miss a certificate
        return f"{where} ends the connection after the TLS handshake; if it wants a certificate, set tls.cert_file and tls.key_file"
    return _wrong_protocol(where, speaks, grpc=grpc) or _not_taken(where, speaks, said)


def _wrong_protocol(where: str, speaks: str, *, grpc: bool) -> str | None:
    if grpc and speaks == "http/1":
        return (
            f"{where} speaks HTTP/1.1, not gRPC; use the exporter otlp_http "
            "(OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf), or the port for gRPC, usually 4317"
        )
    if not grpc and speaks == "http/2":
        return (
            f"{where} speaks gRPC, not HTTP/1.1; use the exporter otlp_grpc "
            "(OTEL_EXPORTER_OTLP_PROTOCOL=grpc), or the port for HTTP, usually 4318"
        )
    return None


def _speaks(endpoint: Endpoint, tls: ssl.SSLContext | None) -> str:
    """`http/2`, `http/1`, or nothing. Raises what connecting raises, and ssl.SSLError for what TLS is told."""
    if _answer(endpoint, tls, HTTP2_HELLO)[3:4] == SETTINGS_FRAME:
        return "http/2"
    # Asked again in words: some servers for HTTP/1 answer HTTP/2's preface with anything, or nothing.
    if _answer(endpoint, tls, HTTP1_HELLO % endpoint.host.encode("idna")).startswith(b"HTTP/1"):
        return "http/1"
    return ""


def _answer(endpoint: Endpoint, tls: ssl.SSLContext | None, hello: bytes) -> bytes:
    """The first bytes of the answer to *hello*; none when the connection is closed or nothing comes."""
    with _connected(endpoint, tls) as connection:
        try:
            connection.sendall(hello)
            return connection.recv(64)
        except ssl.SSLError as error:
            if "ALERT" in (error.reason or "").upper():
                raise  # TLS 1.3 says only now that it wants a certificate
            return b""
        except OSError:
            return b""


@contextmanager
def _connected(endpoint: Endpoint, tls: ssl.SSLContext | None) -> Iterator[socket.socket]:
    with socket.create_connection((endpoint.host, endpoint.port), ASK_TIMEOUT_S) as plain:
        if tls is None:
            yield plain
            return
        tls.set_alpn_protocols(["h2", "http/1.1"])
        name = endpoint.tls.server_name_override or endpoint.host
        with tls.wrap_socket(plain, server_hostname=name) as secured:
            yield secured


def _speaks_tls(endpoint: Endpoint) -> bool:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # only to learn whether it is TLS; nothing is sent
    try:
        with _connected(endpoint, context):
            return True
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "").upper()  # an alert is TLS as well: it may want a certificate
    except OSError:
        return False


def _unresolved(endpoint: Endpoint) -> str:
    return f"the name {endpoint.host} cannot be resolved; check the endpoint"


def _refused(endpoint: Endpoint) -> str:
    return f"nothing listens on {endpoint.authority} (connection refused); is the collector running, and is the port right?"


def _not_taken(where: str, speaks: str, said: str) -> str:
    return f"{where} answers but does not accept what it is sent ({said})" if speaks else _no_answer(where, said)


def _no_answer(where: str, said: str) -> str:
    return f"{where} accepts connections but does not answer in OTLP ({said})"
