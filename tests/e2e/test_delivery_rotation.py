"""What is rotated while the agent runs is read again: certificates of both ends, tokens, headers. And proxies."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from otelbpf.config import OtlpGrpc, OtlpHttp, Retry, Tls
from otelbpf.errors import ConfigError
from otelbpf.export import files, sender
from otelbpf.export.account import SignalLedger
from tests.e2e.polling import wait_for
from tests.peers.certificates import Authority
from tests.peers.otlp import log_request, numbers
from tests.peers.scripted import GrpcPeer, HttpPeer

if TYPE_CHECKING:
    from pathlib import Path

SOON = Retry(initial_interval=0.01, max_interval=0.05, max_elapsed_time=0)
KINDS = {"grpc": (GrpcPeer, OtlpGrpc), "http": (HttpPeer, OtlpHttp)}


@pytest.fixture(params=["grpc", "http"])
def kind(request):
    return KINDS[request.param]


@pytest.fixture(autouse=True)
def always_look(monkeypatch):
    monkeypatch.setattr(files, "LOOK_INTERVAL_S", 0.0)


def authority(directory: Path) -> Authority:
    directory.mkdir()
    return Authority(directory).create()


def accepted(sending, count: int) -> None:
    wait_for(lambda: sending.ledger()["logs"].accepted == count, f"{count} records to be accepted")


def test_an_authority_and_our_certificate_are_rotated(tmp_path, kind):
    """The peer comes back with certificates of another authority: the old files fail, the new ones are taken up."""
    peer_kind, settings_kind = kind
    ours = tmp_path / "ours"
    ours.mkdir()
    authorities = [authority(tmp_path / name) for name in ("first", "second")]

    def rotate(number: int) -> None:
        signer = authorities[number]
        client = signer.sign("client", "DNS:client")
        for source, name in ((signer.certificate, "ca.pem"), (client.certificate, "cert.pem"), (client.key, "key.pem")):
            shutil.copy(source, ours / f"{name}.new")
            (ours / f"{name}.new").replace(ours / name)

    def peer(number: int, port: int = 0):
        server = authorities[number].sign("server", "IP:127.0.0.1")
        signer = authorities[number].certificate
        return peer_kind(certificate=server.certificate, key=server.key, authority=signer, port=port)

    rotate(0)
    tls = Tls(ca_file=str(ours / "ca.pem"), cert_file=str(ours / "cert.pem"), key_file=str(ours / "key.pem"))
    first = peer(0)
    with first:
        pass  # gives it a port
    settings = settings_kind(endpoint=first.endpoint, tls=tls, retry_on_failure=SOON)
    with sender("peer", settings) as sending:
        with first:
            sending.export(log_request(5))
            accepted(sending, 5)
        with peer(1, first.port) as second:
            sending.export(log_request(5, 5))
            wait_for(lambda: not sending.is_up, "the old certificates to fail")
            assert not second.received
            rotate(1)
            accepted(sending, 10)
            assert sending.flush(time.monotonic() + 30)
            assert numbers(second.bodies()) == list(range(5, 10))


def test_a_token_and_a_header_are_rotated(tmp_path, kind):
    peer_kind, settings_kind = kind
    token, tenant = tmp_path / "token", tmp_path / "tenant"
    token.write_text("first\n")
    tenant.write_text("blue")
    with peer_kind() as peer:
        settings = settings_kind(
            endpoint=peer.endpoint,
            retry_on_failure=SOON,
            bearer_token_file=str(token),
            header_files={"X-Tenant": str(tenant)},
        )
        with sender("peer", settings) as sending:
            sending.export(log_request(1))
            accepted(sending, 1)
            token.write_text("second")
            tenant.unlink()  # a rotation may be under way, and does not hold that of the other
            sending.export(log_request(1, 1))
            accepted(sending, 2)
            assert sending.flush(time.monotonic() + 30)
    told = [(one.headers["authorization"], one.headers["x-tenant"]) for one in peer.received]
    assert told == [("Bearer first", "blue"), ("Bearer second", "blue")]


@pytest.mark.parametrize("content", [None, "", "two\nlines", "caf\u00e9"])
def test_a_token_file_that_is_none(tmp_path, kind, content):
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
    settings = kind[1](endpoint="http://127.0.0.1:1", bearer_token_file=str(path))
    with pytest.raises(ConfigError, match=r"Authorization.*token"), sender("peer", settings):
        pass


class Proxy:
    """An HTTP proxy on 127.0.0.1 that only ever tunnels, or passes on, to *port*; keeps the first line of each ask."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.asked: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        ask = client.recv(65536)
        self.asked.append(ask.split(b"\r\n", 1)[0])
        server = socket.create_connection(("127.0.0.1", self.target))
        if ask.startswith(b"CONNECT"):
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            server.sendall(ask)
        for one, other in ((client, server), (server, client)):
            threading.Thread(target=_pump, args=(one, other), daemon=True).start()


def _pump(one: socket.socket, other: socket.socket) -> None:
    try:
        while piece := one.recv(65536):
            other.sendall(piece)
        other.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def test_the_proxy_of_the_environment_is_used(kind, monkeypatch):
    peer_kind, settings_kind = kind
    with peer_kind() as peer, Proxy(peer.port) as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("no_proxy", "")
        settings = settings_kind(endpoint=f"http://collector.example:{peer.port}", retry_on_failure=SOON)
        with sender("peer", settings) as sending:
            sending.export(log_request(5))
            accepted(sending, 5)
        assert b"collector.example" in proxy.asked[0]
        assert sending.ledger()["logs"] == SignalLedger(5, 5, 0, {}, 0)


def test_a_host_without_a_proxy_is_reached_directly(kind, monkeypatch):
    peer_kind, settings_kind = kind
    with peer_kind() as peer, Proxy(peer.port) as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
        with sender("peer", settings_kind(endpoint=peer.endpoint, retry_on_failure=SOON)) as sending:
            sending.export(log_request(5))
            accepted(sending, 5)
        assert not proxy.asked
