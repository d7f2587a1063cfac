"""Connections whose addresses this node translated, and their true ends: the kernel tells of each new one.

One that is translated takes some 10 µs. Nothing is asked: what is told is read at each tick of the line. Where the
kernel will not tell, nothing is known.

Nobody tells when one is over, nor of a connection with the same ends that is not translated. But the kernel lets no other
connection have them for a while after the last packet of one. So what was told is good for a connection that began near
the time of the telling, or so soon after one that was known to be the translated one.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Self

from msgspec import Struct

from otelbpf.kernel.clock import boottime_ns
from otelbpf.kernel.conntrack import READ_AT_ONCE, Translations

if TYPE_CHECKING:
    from pathlib import Path

    from otelbpf.kernel.conntrack import Ends

CONNECTIONS = 65_536
TCP = 6
NS_PER_MS = 10**6
EARLY_NS = 100 * NS_PER_MS
"""A connect, or a question, may be noted so long before its first packet has passed and the kernel tells."""
TCP_LASTS_NS, OTHER_LASTS_NS = 9_000 * NS_PER_MS, 29_000 * NS_PER_MS
"""How long ends surely stay translated after a packet: a second less than what the kernel has of timeouts, of which the
shortest are 10 s for TCP (after a reset) and 30 s for UDP. A handshake whose SYN is sent four times takes 7 s."""


class _Translated(Struct, gc=False):
    """The true end, and within which times (CLOCK_BOOTTIME) one may have begun whose it is."""

    true: tuple[bytes, int]
    since_ns: int
    until_ns: int


class Conntrack:
    """Translated connections, the last so many. A context manager; `unavailable` says why there is nothing."""

    def __init__(self, proc: Path) -> None:
        self._translations = Translations(proc / "1/ns/net")
        self._true: OrderedDict[Ends, _Translated] = OrderedDict()
        """The one that was told of or asked for last is the last."""
        self._remotes: dict[bytes, int] = {}
        self._read_ns = 0
        """All that the kernel had told of by then has been read."""

    def __enter__(self) -> Self:
        self._read_ns = boottime_ns()
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
        now_ns = boottime_ns()
        count = 0
        for count, (original, reply) in enumerate(self._translations.told(), 1):  # noqa: B007 - counted
            self._remember(original, reply, self._read_ns, now_ns)
        if count < READ_AT_ONCE:
            self._read_ns = now_ns

    def translates(self, remote: bytes) -> bool:
        """Whether any connection to *remote* is known to be translated."""
        return remote in self._remotes

    def true_end(self, ends: Ends, began_ns: int) -> tuple[bytes, int] | None:
        """The true other end of a connection that began (or a question that was asked) at *began_ns*, as the one at its
        other side would call itself."""
        found = self._true.get(ends)
        if found is None or not found.since_ns <= began_ns <= found.until_ns:
            return None
        found.until_ns = max(found.until_ns, began_ns + _lasts_ns(ends))
        self._true.move_to_end(ends)
        return found.true

    def _remember(self, original: Ends, reply: Ends, since_ns: int, until_ns: int) -> None:
        """The kernel told of it between *since_ns* and *until_ns*."""
        protocol, client, client_port, server, server_port = original
        _, backend, backend_port, seen, seen_port = reply
        if (backend, backend_port) != (server, server_port):
            self._put(original, _Translated((backend, backend_port), since_ns - EARLY_NS, until_ns))
        if (seen, seen_port) != (client, client_port):
            ends = (protocol, backend, backend_port, seen, seen_port)
            self._put(ends, _Translated((client, client_port), since_ns - EARLY_NS, until_ns))

    def _put(self, ends: Ends, one: _Translated) -> None:
        one.until_ns += _lasts_ns(ends)
        if ends not in self._true:
            self._remotes[ends[3]] = self._remotes.get(ends[3], 0) + 1
        self._true[ends] = one
        self._true.move_to_end(ends)
        if len(self._true) > CONNECTIONS:
            oldest, _ = self._true.popitem(last=False)
            self._remotes[oldest[3]] -= 1
            if not self._remotes[oldest[3]]:
                del self._remotes[oldest[3]]


def _lasts_ns(ends: Ends) -> int:
    return TCP_LASTS_NS if ends[0] == TCP else OTHER_LASTS_NS
