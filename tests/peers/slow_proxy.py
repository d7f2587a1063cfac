"""A network that is slow: forwards connections to a port, and lets what the server says trickle."""

from __future__ import annotations

import socket
import threading
from typing import Self


class SlowProxy:
    """Listens on 127.0.0.1 while entered; each *part_bytes* of the server's take *delay_s*."""

    def __init__(self, port: int, part_bytes: int, delay_s: float) -> None:
        self._to = port
        self.part_bytes = part_bytes
        self.delay_s = delay_s
        self._left = threading.Event()
        self._is_cut = False
        self._open: set[socket.socket] = set()

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def cut(self) -> None:
        """Breaks all connections, and each new one."""
        self._is_cut = True
        for one in list(self._open):
            _end(one)

    def mend(self) -> None:
        """Forwards again."""
        self._is_cut = False

    def _accept(self) -> None:
        while not self._left.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._is_cut:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                client.close()
                continue
            self._open |= {client, server}
            threading.Thread(target=self._carry, args=(client, server, 1 << 16, 0.0), daemon=True).start()
            threading.Thread(
                target=self._carry, args=(server, client, self.part_bytes, self.delay_s), daemon=True
            ).start()

    def _carry(self, source: socket.socket, sink: socket.socket, part_bytes: int, delay_s: float) -> None:
        try:
            while part := source.recv(part_bytes):
                self._left.wait(delay_s)
                sink.sendall(part)
        except OSError:
            pass
        for one in (source, sink):
            _end(one)
        self._open -= {source, sink}


def _end(one: socket.socket) -> None:
    try:
        one.shutdown(socket.SHUT_RDWR)
    except OSError:  # the other side was first
        return
