"""An API server that says what a test wants: bytes for the next watches of pods, then what a real one says."""

from __future__ import annotations

import json
import socket
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from pathlib import Path

PODS = "/api/v1/pods"
READ_BYTES = 1 << 16
PART_BYTES = 50
VERSION = "100"


def answer(body: bytes, status: str = "200 OK", kind: str = "application/json", *heads: str) -> bytes:
    """A whole HTTP answer with a length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *heads]
    return "\r\n".join([*lines, "", ""]).encode() + body


def streamed(*lines: bytes) -> bytes:
    """The beginning of an answer in chunks, a line in each; it never says that it ends."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\n\r\n" % (len(line) + 1, line) for line in lines)


def told(kind: str, found: Any) -> bytes:
    """A line of a watch."""
    return json.dumps({"type": kind, "object": found}).encode()


def bookmark(*, of_list: bool) -> bytes:
    notes = {"k8s.io/initial-events-end": "true"} if of_list else {}
    return told("BOOKMARK", {"metadata": {"resourceVersion": VERSION, "annotations": notes}})


@dataclass
class ScriptedApi:
    """Listens on 127.0.0.1 while entered."""

    pods: list[dict[str, Any]]
    script: deque[bytes] = field(default_factory=deque)
    """Said to the next watches of pods, one each; then the connection is closed."""
    asked: list[str] = field(default_factory=list)
    """The paths of all requests, with their queries."""
    trickle_s: float = 0.0
    """Between two parts of a list."""
    _open: set[socket.socket] = field(default_factory=set)
    _left: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        for one in list(self._open):
            one.close()

    def kubeconfig(self, directory: Path) -> str:
        """A kubeconfig file that leads here."""
        server = {"server": f"http://127.0.0.1:{self._listener.getsockname()[1]}"}
        content = {
            "clusters": [{"name": "c", "cluster": server}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        path = directory / "scripted.kubeconfig"
        path.write_text(json.dumps(content))
        return str(path)

    def _accept(self) -> None:
        while not self._left.is_set():
            try:
                one, _ = self._listener.accept()
            except OSError:
                return
            self._open.add(one)
            threading.Thread(target=self._serve, args=(one,), daemon=True).start()

    def _serve(self, one: socket.socket) -> None:
        with one:
            while path := _asked_path(one):
                self.asked.append(path)
                if not self._say(one, path):
                    break
        self._open.discard(one)

    def _say(self, one: socket.socket, path: str) -> bool:
        """Answers; says whether the connection goes on."""
        of_pods, watched = path.startswith(PODS), "watch=1" in path
        pods = self.pods if of_pods else []
        try:
            if of_pods and watched and self.script:
                one.sendall(self.script.popleft())
                return False
            if not watched:
                self._trickle(
                    one, answer(json.dumps({"items": pods, "metadata": {"resourceVersion": VERSION}}).encode())
                )
                return True
            first = [told("ADDED", pod) for pod in pods] if "sendInitialEvents" in path else []
            one.sendall(streamed(*first, bookmark(of_list=True)))
        except OSError:
            return False
        self._left.wait()
        return False

    def _trickle(self, one: socket.socket, said: bytes) -> None:
        for first in range(0, len(said), PART_BYTES):
            self._left.wait(self.trickle_s)
            one.sendall(said[first : first + PART_BYTES])


def _asked_path(one: socket.socket) -> str:
    """The path of the next request; empty when there is none."""
    head = b""
    while b"\r\n\r\n" not in head:
        try:
            part = one.recv(READ_BYTES)
        except OSError:
            return ""
        if not part:
            return ""
        head += part
    return head.split(b" ", 2)[1].decode()
