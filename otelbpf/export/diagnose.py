"""Why a peer cannot be sent to, as one sentence that says which setting to change.

Libraries tell most of it in their messages. Where a message could mean several things, the peer itself is asked: it is
connected to once more, and what it speaks is seen from its first bytes.
"""

from __future__ import annotations

import re
import socket
import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otelbpf.export.answer import Failure
    from otelbpf.export.endpoint import Endpoint

ASK_TIMEOUT_S = 2.0
HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04\x00" + bytes(4)
"""The preface of HTTP/2 and empty SETTINGS: a gRPC server answers with its own, an HTTP/1 server in words."""
SETTINGS_FRAME = 4
UNJUDGED = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "UNKNOWN", "UNIMPLEMENTED", "INTERNAL", "connection", "timeout", "tls"}
"""Codes that the library, not the peer, may have given: the peer may not even speak the protocol."""


def diagnose(failure: Failure, endpoint: Endpoint | None) -> str:
    """One sentence on *failure* at *endpoint*. May connect to it, for some seconds at most."""
    said = f"{failure.code}: {failure.message}" if failure.message else failure.code
    if endpoint is None:
        return failure.message or failure.code
    where = endpoint.authority
    grpc = failure.code.isupper() and not failure.code.startswith("HTTP")
    sentence = _from_message(failure, endpoint)
    if sentence is None and (failure.code in UNJUDGED or failure.code == "HTTP 400"):
        sentence = _from_peer(endpoint, grpc=grpc, said=said)
    return sentence or f"{where} answered {said}"


def _from_message(failure: Failure, endpoint: Endpoint) -> str | None:
    where, text, code = endpoint.authority, failure.message.lower(), failure.code
    if code == "name" or "dns resolution failed" in text or "name resolution" in text:
        return f"the name {endpoint.host} cannot be resolved; check the endpoint"
    if "connection refused" in text:
        return f"nothing listens on {where} (connection refused); is the collector running, and is the port right?"
    if "no route to host" in text or "network is unreachable" in text:
        return f"there is no route to {where}"
    if "certificate_verify_failed" in text or "certificate verify failed" in text or "doesn't match" in text:
        return _certificate(failure, endpoint)
    if code in {"UNAUTHENTICATED", "HTTP 401"}:
        return f"{where} wants credentials ({_said(failure)}); set them in headers"
    if code in {"PERMISSION_DENIED", "HTTP 403"}:
        return f"{where} does not allow it ({_said(failure)}); check headers and the credentials in them"
    if code == "HTTP 413" or (code == "RESOURCE_EXHAUSTED" and "larger than max" in text):
        return f"{where} does not take requests of this size ({_said(failure)}); raise its limit (max_recv_msg_size_mib)"
    if code == "HTTP 404":
        return f"{where} knows no {endpoint.path or '/'} (404); check the path of the endpoint"
    return None


def _certificate(failure: Failure, endpoint: Endpoint) -> str:
    reason = re.search(r"certificate verify failed: ([^(]+)", failure.message)
    why = reason[1].strip() if reason else (_verify(endpoint) or "it cannot be verified")
    return (
        f"the certificate of {endpoint.authority} is not trusted: {why}; "
        "set tls.ca_file to its authority, or tls.server_name_override to the name it bears"
    )


def _verify(endpoint: Endpoint) -> str | None:
    """What Python's TLS says about the certificate: gRPC keeps the reason to itself."""
    context = ssl.create_default_context()
    try:
        with socket.create_connection((endpoint.host, endpoint.port), ASK_TIMEOUT_S) as plain:
            context.wrap_socket(plain, server_hostname=endpoint.host).close()
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    except (OSError, ValueError):
        pass
    return None


def _from_peer(endpoint: Endpoint, *, grpc: bool, said: str) -> str | None:
    where = endpoint.authority
    try:
        speaks_tls = _speaks_tls(endpoint)
        speaks = _first_answer(endpoint, tls=speaks_tls)
    except socket.gaierror:
        return f"the name {endpoint.host} cannot be resolved; check the endpoint"
    except TimeoutError:
        return f"{where} does not answer (no connection within {ASK_TIMEOUT_S:g} s); check the endpoint and firewalls"
    except ConnectionRefusedError:
        return f"nothing listens on {where} (connection refused); is the collector running, and is the port right?"
    except OSError as error:
        return f"{where} cannot be reached: {error.strerror or error}"
    if endpoint.secure and not speaks_tls:
        return f"{where} speaks plain text, not TLS; use http://{where} or tls.insecure: true"
    if not endpoint.secure and speaks_tls:
        return f"{where} speaks TLS, not plain text; use https://{where} or tls.insecure: false"
    if grpc and speaks == "http/1":
        return (
            f"{where} speaks HTTP/1.1, not gRPC; use the exporter otlp_http "
            f"(OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf), or the port for gRPC, usually 4317"
        )
    if not grpc and speaks == "http/2":
        return (
            f"{where} speaks gRPC, not HTTP/1.1; use the exporter otlp_grpc "
            f"(OTEL_EXPORTER_OTLP_PROTOCOL=grpc), or the port for HTTP, usually 4318"
        )
    return f"{where} accepts connections but gives no OTLP answer ({said})"


def _speaks_tls(endpoint: Endpoint) -> bool:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # only to learn whether it is TLS; nothing is sent
    with socket.create_connection((endpoint.host, endpoint.port), ASK_TIMEOUT_S) as plain:
        try:
            context.wrap_socket(plain, server_hostname=endpoint.host).close()
        except ssl.SSLError as error:
            # An alert is TLS as well: the server may ask for a certificate of ours.
            return "alert" in str(error).lower()
        except OSError:
            return False
    return True


def _first_answer(endpoint: Endpoint, *, tls: bool) -> str:
    """`http/1`, `http/2`, or nothing when the peer says nothing that is either."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection((endpoint.host, endpoint.port), ASK_TIMEOUT_S) as connection:
            if tls:
                context.set_alpn_protocols(["h2", "http/1.1"])
                with context.wrap_socket(connection, server_hostname=endpoint.host) as secured:
                    if secured.selected_alpn_protocol() == "http/1.1":
                        return "http/1"
                    return _kind(_exchange(secured))
            return _kind(_exchange(connection))
    except OSError:
        return ""


def _exchange(connection: socket.socket) -> bytes:
    connection.sendall(HTTP2_HELLO)
    return connection.recv(64)


def _kind(first: bytes) -> str:
    if first.startswith(b"HTTP/1"):
        return "http/1"
    return "http/2" if len(first) > SETTINGS_FRAME - 1 and first[3:4] == bytes([SETTINGS_FRAME]) else ""


def _said(failure: Failure) -> str:
    return f"{failure.code}: {failure.message}" if failure.message else failure.code
