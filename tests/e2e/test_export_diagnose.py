"""What is wrong with an endpoint is one sentence that says which thing it is, and what to set."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from otelbpf.config import Console, OtlpGrpc, OtlpHttp, Tls
from otelbpf.export import probe
from tests.peers.certificates import Authority
from tests.peers.scripted import Fail, GrpcPeer, HttpPeer

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS = {"grpc": OtlpGrpc, "http": OtlpHttp}
TIMEOUT_S = 5.0


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates")).create()


@pytest.fixture(scope="module")
def server(authority):
    return authority.sign("server", "DNS:localhost,DNS:collector.test,IP:127.0.0.1")


def trusting(authority: Authority, **more: str) -> Tls:
    return Tls(ca_file=str(authority.certificate), **more)


@pytest.fixture(params=["grpc", "http"])
def kind(request) -> str:
    return request.param


def peer_of(kind: str, **settings) -> GrpcPeer | HttpPeer:
    return GrpcPeer(**settings) if kind == "grpc" else HttpPeer(**settings)


@pytest.fixture
def silent() -> Iterator[int]:
    """A port where connections are accepted by the kernel, and nobody ever says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def asked(kind: str, endpoint: str, **settings) -> tuple[bool, str]:
    return probe(f"otlp_{kind}", KINDS[kind](endpoint=endpoint, **settings), TIMEOUT_S)


def test_a_peer_that_is_well(kind):
    with peer_of(kind) as peer:
        ok, sentence = asked(kind, peer.endpoint)
    assert (ok, sentence) == (True, f"127.0.0.1:{peer.port} accepts OTLP over {'gRPC' if kind == 'grpc' else 'HTTP'}")


def test_the_console():
    assert probe("console", Console())[0]


def test_nobody_listens(kind):
    with socket.socket() as held:  # bound and not listening, so that nobody else takes it
        held.bind(("127.0.0.1", 0))
        ok, sentence = asked(kind, f"http://127.0.0.1:{held.getsockname()[1]}")
    assert not ok
    assert "nothing listens on 127.0.0.1:" in sentence


def test_a_name_that_does_not_exist(kind):
    ok, sentence = asked(kind, "http://nobody.invalid:4317")
    assert (ok, sentence) == (False, "logs: the name nobody.invalid cannot be resolved; check the endpoint")


def test_an_http_server_on_the_grpc_exporter():
    with HttpPeer() as peer:
        ok, sentence = asked("grpc", peer.endpoint)
    assert not ok
    assert "speaks HTTP/1.1, not gRPC" in sentence
    assert "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf" in sentence


def test_a_grpc_server_on_the_http_exporter():
    with GrpcPeer() as peer:
        ok, sentence = asked("http", peer.endpoint)
    assert not ok
    assert "speaks gRPC, not HTTP/1.1" in sentence
    assert "otlp_grpc" in sentence


def test_crossed_protocols_under_tls(authority, server):
    with HttpPeer(certificate=server.certificate, key=server.key) as peer:
        ok, sentence = asked("grpc", peer.endpoint, tls=trusting(authority))
    assert not ok
    assert "http/protobuf" in sentence
    with GrpcPeer(certificate=server.certificate, key=server.key) as other:
        ok, sentence = asked("http", other.endpoint, tls=trusting(authority))
    assert not ok
    assert "speaks gRPC" in sentence


def test_tls_against_plain_text(kind):
    with peer_of(kind) as peer:
        ok, sentence = asked(kind, f"https://127.0.0.1:{peer.port}")
    assert not ok
    assert f"127.0.0.1:{peer.port} speaks plain text, not TLS; use http://" in sentence


def test_plain_text_against_tls(kind, server):
    with peer_of(kind, certificate=server.certificate, key=server.key) as peer:
        ok, sentence = asked(kind, f"http://127.0.0.1:{peer.port}")
    assert not ok
    assert f"127.0.0.1:{peer.port} speaks TLS, not plain text; use https://" in sentence


def test_tls_that_is_well(kind, authority, server):
    with peer_of(kind, certificate=server.certificate, key=server.key) as peer:
        ok, sentence = asked(kind, peer.endpoint, tls=trusting(authority))
    assert ok, sentence
    assert sentence.endswith("with TLS")


def test_an_authority_that_is_not_known(kind, server):
    with peer_of(kind, certificate=server.certificate, key=server.key) as peer:
        ok, sentence = asked(kind, peer.endpoint)
    assert not ok
    assert "is not trusted: " in sentence
    assert "issuer" in sentence or "self-signed" in sentence
    assert "tls.ca_file" in sentence


def test_a_name_that_the_certificate_does_not_bear(kind, authority):
    other = authority.sign("other", "DNS:collector.test")
    with peer_of(kind, certificate=other.certificate, key=other.key) as peer:
        ok, sentence = asked(kind, f"https://localhost:{peer.port}", tls=trusting(authority))
        assert not ok
        assert "is not trusted" in sentence
        assert "localhost" in sentence
        assert "tls.server_name_override" in sentence
        well = trusting(authority, server_name_override="collector.test")
        ok, sentence = asked(kind, f"https://localhost:{peer.port}", tls=well)
        assert ok, sentence


def test_an_expired_certificate(kind, authority):
    expired = authority.sign("expired", "IP:127.0.0.1", days=-1)
    with peer_of(kind, certificate=expired.certificate, key=expired.key) as peer:
        ok, sentence = asked(kind, peer.endpoint, tls=trusting(authority))
    assert not ok
    assert "certificate has expired" in sentence


def test_a_server_that_wants_our_certificate(kind, authority, server):
    client = authority.sign("client", "DNS:client")
    with peer_of(kind, certificate=server.certificate, key=server.key, authority=authority.certificate) as peer:
        ok, sentence = asked(kind, peer.endpoint, tls=trusting(authority))
        assert not ok
        assert "cert_file" in sentence
        ours = trusting(authority, cert_file=str(client.certificate), key_file=str(client.key))
        ok, sentence = asked(kind, peer.endpoint, tls=ours)
        assert ok, sentence


def test_somebody_who_says_nothing(kind, silent):
    ok, sentence = probe("x", KINDS[kind](endpoint=f"http://127.0.0.1:{silent}"), 0.3)
    assert not ok
    assert f"127.0.0.1:{silent}" in sentence


def test_credentials(kind):
    with peer_of(kind) as peer:
        peer.play(Fail("UNAUTHENTICATED" if kind == "grpc" else 401, "no token"))
        ok, sentence = asked(kind, peer.endpoint)
    assert not ok
    assert "wants credentials" in sentence
    assert "no token" in sentence


def test_a_path_that_nobody_serves():
    with HttpPeer() as peer:
        peer.play(Fail(404))
        ok, sentence = asked("http", peer.endpoint + "/prefix")
    assert not ok
    assert "/prefix/v1/logs (404)" in sentence
