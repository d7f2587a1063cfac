"""Network namespaces that live as long as a test, joined by veth.

with namespace() as client, namespace() as server:
    join(client, "10.1.0.2/24", server, "10.1.0.1/24")
    with client.inside():
        connection = socket.create_connection(…)      # stays in there when the block ends
"""

from __future__ import annotations

import ctypes
import itertools
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

CLONE_NEWNET = 0x40000000
_NUMBERS = itertools.count()


class Namespace:
    """One namespace; `lo` is up."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._links = itertools.count()

    @property
    def path(self) -> Path:
        return Path("/run/netns", self.name)

    @property
    def inode(self) -> int:
        return self.path.stat().st_ino

    def run(self, *command: str, feed: str | None = None) -> str:
        """Runs a program in it and gives its output; *feed* is its input."""
        return _run("ip", "netns", "exec", self.name, *command, feed=feed)

    def set(self, **settings: str | int) -> None:
        """Sets net.* variables of it; a dot is written as two underscores."""
        for name, value in settings.items():
            self.run("sysctl", "-qw", f"net.{name.replace('__', '.')}={value}")

    @contextmanager
    def inside(self) -> Iterator[None]:
        """This thread is in it; sockets made here stay in it for good."""
        with Path("/proc/thread-self/ns/net").open("rb") as home:
            _enter(self.path)
            try:
                yield
            finally:
                _set(home.fileno())


@contextmanager
def namespace() -> Iterator[Namespace]:
    """A new one with a name that nobody else has; gone when the block ends, with its last socket."""
    made = Namespace(f"otelbpf-{os.getpid()}-{next(_NUMBERS)}")
    _run("ip", "netns", "add", made.name)
    try:
        made.run("ip", "link", "set", "lo", "up")
        yield made
    finally:
        _run("ip", "netns", "delete", made.name)


def join(one: Namespace, address: str, other: Namespace, other_address: str) -> None:
    """A cable between two namespaces, with an address (and prefix length) at each end."""
    number = next(_NUMBERS)
    ends = ((one, f"veth{number}a", address), (other, f"veth{number}b", other_address))
    peer = ("peer", "name", ends[1][1], "netns", other.name)
    one.run("ip", "link", "add", ends[0][1], "type", "veth", *peer)
    for place, device, own in ends:
        no_wait = ("nodad",) if ":" in own else ()
        place.run("ip", "address", "add", own, "dev", device, *no_wait)
        place.run("ip", "link", "set", device, "up")


def _run(*command: str, feed: str | None = None) -> str:
    done = subprocess.run(command, input=feed, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


def _enter(path: Path) -> None:
    with path.open("rb") as target:
        _set(target.fileno())


def _set(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
