"""Connections whose addresses this node translated, and their true ends: the kernel tells of each new one.

One that is translated takes some 10 µs. Nothing is asked: what is told is read at each tick of the line. Where the
kernel will not tell, nothing is known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from otelbpf.kernel.conntrack import Translations

if TYPE_CHECKING:
    from pathlib import Path

    from otelbpf.kernel.conntrack import Ends

CONNECTIONS = 65_536


class Conntrack:
    """Translated connections, the last so many. A context manager; `unavailable` says why there is nothing."""

    def __init__(self, proc: Path) -> None:
        self._translations = Translations(proc / "1/ns/net")
        self._true: dict[Ends, tuple[bytes, int]] = {}
        self._remotes: dict[bytes, int] = {}

    def __enter__(self) -> Self:
        self._translations.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._translations.__exit__()

    @property
    def unavailable(self) -> str:
        return self._translations.unavailable

    @property
    def fill(self) -> tuple[int, int]:
        """Connections remembered now, and how often the kernel told of more than was read."""
        return len(self._true), self._translations.overflows

    def learn(self) -> None:
        """Takes in what the kernel has told since the last time."""
        for original, reply in self._translations.told():
            self._remember(original, reply)

    def translates(self, remote: bytes) -> bool:
        """Whether any connection to *remote* is known to be translated."""
        return remote in self._remotes

    def true_end(self, ends: Ends) -> tuple[bytes, int] | None:
        """The true other end of a connection, as the one at its other side would call itself."""
        return self._true.get(ends)

    def _remember(self, original: Ends, reply: Ends) -> None:
        protocol, client, client_port, server, server_port = original
        _, backend, backend_port, seen, seen_port = reply
        if (backend, backend_port) != (server, server_port):
            self._put(original, (backend, backend_port))
        if (seen, seen_port) != (client, client_port):
            self._put((protocol, backend, backend_port, seen, seen_port), (client, client_port))

    def _put(self, ends: Ends, true: tuple[bytes, int]) -> None:
        if ends not in self._true:
            self._remotes[ends[3]] = self._remotes.get(ends[3], 0) + 1
        self._true[ends] = true
        if len(self._true) > CONNECTIONS:
            oldest = next(iter(self._true))
            del self._true[oldest]
            self._remotes[oldest[3]] -= 1
            if not self._remotes[oldest[3]]:
                del self._remotes[oldest[3]]
