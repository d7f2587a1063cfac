"""Answers whether the agent lives and is ready: /healthz and /readyz, for kubelet's probes and for monitors; and how
its watches of the API server fare: /kubernetes, for `otelbpf check`."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

REQUEST_S = 1.0
"""For one client, in all. The standard library's server has a limit for each read only, so that a client that sends a
byte a second would hold its one thread, and kubelet would kill a healthy agent."""
REQUEST_BYTES = 8192
ANSWER_BYTES = 1 << 20
WAITING_CLIENTS = 8
REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


class Answer(NamedTuple):
    """What a client is told."""

    status: int
    text: str


class Health:
    """Listens at *endpoint* (host:port; empty: nowhere) while entered; one client at a time, in a thread of its own.

    An endpoint that is not available is no reason not to start: `trouble` then says why, in one sentence.
    """

    def __init__(self, endpoint: str) -> None:
        self.trouble = ""
        self._endpoint = endpoint
        self._troubles: Callable[[], Sequence[str]] = tuple
        self._ready = ""
        self._watches: Callable[[], str] = str
        self._not_ready = "starting"
        self._leaving = threading.Event()
        self._listener: socket.socket | None = None

    def __enter__(self) -> Self:
        if self._endpoint:
            try:
                self._listener = _listen(self._endpoint)
            except OSError as error:
                self.trouble = (
                    f"the health endpoint {self._endpoint} is not available: {error.strerror or error}; "
                    "set health.endpoint to another, or to an empty text"
                )
        if self._listener is not None:
            threading.Thread(target=self._serve, args=(self._listener,), name="health", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leaving.set()
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread, which closing would not
            self._listener.close()

    @property
    def port(self) -> int:
        """Where it listens; 0 where it does not."""
        return int(self._listener.getsockname()[1]) if self._listener is not None else 0

    def running(
        self, troubles: Callable[[], Sequence[str]], ready: str, watches: Callable[[], str] | None = None
    ) -> None:
        """From now on the agent is ready, which *ready* says in words, and healthy while there are no *troubles*;
        *watches* gives how those of the API server fare, if there are any."""
        self._troubles, self._ready, self._not_ready = troubles, ready, ""
        self._watches = watches or str

    def stopping(self) -> None:
        """From now on it is not ready, and threads may end."""
        self._troubles, self._not_ready = tuple, "stopping"

    def answer(self, request: str) -> Answer:
        """What the first line of a request is answered."""
        method, _, rest = request.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        if not rest.endswith(("HTTP/1.1", "HTTP/1.0")):
            return Answer(400, "this is not HTTP")
        if path not in ("/healthz", "/readyz", "/kubernetes"):
            return Answer(404, "there are /healthz, /readyz and /kubernetes")
        if method not in ("GET", "HEAD"):
            return Answer(405, "only GET and HEAD")
        if path == "/kubernetes":
            return Answer(200, self._watches())
        return self._health() if path == "/healthz" else self._readiness()

    def _health(self) -> Answer:
        troubles = self._troubles()
        return Answer(503, "; ".join(troubles)) if troubles else Answer(200, "ok")

    def _readiness(self) -> Answer:
        return Answer(503, self._not_ready) if self._not_ready else Answer(200, self._ready)

    def _serve(self, listener: socket.socket) -> None:
        while not self._leaving.is_set():
            try:
                client, _address = listener.accept()
            except OSError:
                self._leaving.wait(REQUEST_S)  # no file descriptors, say: it may pass
                continue
            with client:
                self._converse(client)

    def _converse(self, client: socket.socket) -> None:
        try:
            head = _head(client, time.monotonic() + REQUEST_S)
            if head:
                client.sendall(_response(self.answer(head.partition("\r\n")[0]), body=not head.startswith("HEAD ")))
        except OSError:
            return  # it went away, or took too long


def ask(endpoint: str, path: str) -> str:
    """What the agent at *endpoint* answers; empty when nobody does."""
    from http.client import HTTPConnection, HTTPException  # only `check` needs them

    host, _, port = endpoint.rpartition(":")
    try:
        connection = HTTPConnection(host.strip("[]") or "localhost", int(port), timeout=REQUEST_S)
        with closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            return response.read(ANSWER_BYTES).decode() if response.status == 200 else ""
    except (OSError, HTTPException, ValueError):
        return ""


def _listen(endpoint: str) -> socket.socket:
    host, _, port = endpoint.rpartition(":")
    family, kind, protocol, _name, address = socket.getaddrinfo(
        host.strip("[]") or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # after a restart at once
        listener.bind(address)
        listener.listen(WAITING_CLIENTS)
    except OSError:
        listener.close()
        raise
    return listener


def _head(client: socket.socket, deadline: float) -> str:
    """The head of a request; empty when it is too long or did not come in time."""
    received = b""
    while b"\r\n\r\n" not in received:
        left = deadline - time.monotonic()
        if left <= 0 or len(received) > REQUEST_BYTES:
            return ""
        client.settimeout(left)
        part = client.recv(REQUEST_BYTES)
        if not part:
            return ""
        received += part
    return received.decode("latin-1")


def _response(answer: Answer, *, body: bool) -> bytes:
    text = f"{answer.text}\n".encode()
    head = (
        f"HTTP/1.1 {answer.status} {REASONS[answer.status]}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(text)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (text if body else b"")
