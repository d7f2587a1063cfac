"""The health endpoint tells the truth, and no client can keep another from it."""

from __future__ import annotations

import socket
import threading
import urllib.error
import urllib.request

import pytest

from otelbpf import health
from otelbpf.config import loads
from otelbpf.errors import ConfigError
from otelbpf.health import Health

ANY = "127.0.0.1:0"


def ask(server: Health, path: str, method: str = "GET") -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode().strip()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode().strip()


def test_it_is_alive_from_the_start_and_ready_when_the_probes_are_attached() -> None:
    with Health(ANY) as server:
        assert ask(server, "/healthz") == (200, "ok")
        assert ask(server, "/readyz") == (503, "starting")
        server.running(list, "ready: dns_lookup")
        assert ask(server, "/readyz") == (200, "ready: dns_lookup")
        server.stopping()
        assert ask(server, "/readyz") == (503, "stopping")
        assert ask(server, "/healthz") == (200, "ok")


def test_what_is_wrong_is_said() -> None:
    with Health(ANY) as server:
        server.running(lambda: ["line has been stuck for 61 s", "drain is no longer running"], "ready")
        assert ask(server, "/healthz") == (503, "line has been stuck for 61 s; drain is no longer running")


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [("/", "GET", 404), ("/healthz/x", "GET", 404), ("/healthz", "POST", 405), ("/readyz?verbose", "GET", 503)],
)
def test_other_requests_are_refused(path: str, method: str, status: int) -> None:
    with Health(ANY) as server:
        assert ask(server, path, method)[0] == status


def test_head_has_no_body() -> None:
    with Health(ANY) as server:
        assert ask(server, "/healthz", "HEAD") == (200, "")


@pytest.mark.parametrize("sent", [b"", b"\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\r\n\r\n", b"x" * 100_000])
def test_a_client_that_does_not_speak_http_harms_nobody(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "REQUEST_S", 0.05)
    with Health(ANY) as server, socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(sent)
        assert ask(server, "/healthz") == (200, "ok")


def test_an_endpoint_that_is_taken_is_one_sentence_and_no_failure() -> None:
    with Health(ANY) as first, Health(f"127.0.0.1:{first.port}") as second:
        assert second.trouble.startswith(
            f"the health endpoint 127.0.0.1:{first.port} is not available: Address already in use;"
        )
        assert second.port == 0
        assert ask(first, "/healthz")[0] == 200


def test_a_name_that_nobody_knows_is_one_sentence() -> None:
    with Health("host.invalid:13134") as server:
        assert "host.invalid:13134 is not available: " in server.trouble


def test_no_endpoint_no_listener() -> None:
    with Health("") as server:
        assert (server.port, server.trouble) == (0, "")


def test_the_thread_ends_with_it() -> None:
    with Health(ANY):
        pass
    for thread in threading.enumerate():
        if thread.name == "health":
            thread.join(10)
            assert not thread.is_alive()


def test_ipv6() -> None:
    with Health("[::1]:0") as server:
        assert server.trouble == ""
        with socket.create_connection(("::1", server.port)) as client:
            client.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
            assert client.recv(15) == b"HTTP/1.1 200 OK"


@pytest.mark.parametrize("endpoint", ["13134", "127.0.0.1", "127.0.0.1:", "127.0.0.1:70000", "http://127.0.0.1:1"])
def test_an_endpoint_must_be_host_and_port(endpoint: str) -> None:
    with pytest.raises(ConfigError, match=r"health\.endpoint"):
        loads(f'health: {{endpoint: "{endpoint}"}}'.encode())


@pytest.mark.parametrize("endpoint", ["", ":13134", "0.0.0.0:13134", "[::1]:1", "localhost:13134"])
def test_places_to_listen(endpoint: str) -> None:
    assert loads(f'health: {{endpoint: "{endpoint}"}}'.encode()).health.endpoint == endpoint
