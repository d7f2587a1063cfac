"""Network namespaces of our own, so that what a test causes can be told from everything else on the machine."""

from __future__ import annotations

import itertools
import os
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

NAMES = Path("/run/netns")
FILES = Path("/etc/netns")


def ip(*words: str) -> None:
    """Runs ip(8); raises with its own words when it refuses."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")


class Namespaces:
    """Makes namespaces and links while entered; removes all of them, and their files, at the end."""

    def __init__(self, prefix: str) -> None:
        self._prefix = f"{prefix}{os.getpid()}"
        self._numbers = itertools.count()
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def add(self, role: str) -> str:
        """A new namespace with its loopback up; returns its name."""
        name = f"{self._prefix}-{role}"
        ip("netns", "add", name)
        self._open.callback(ip, "netns", "delete", name)
        ip("-n", name, "link", "set", "lo", "up")
        return name

    def link(self, left: str, left_addresses: list[str], right: str, right_addresses: list[str]) -> None:
        """A veth pair between two namespaces, with addresses (CIDR) at both ends."""
        number = next(self._numbers)
        devices = (f"v{number}l", f"v{number}r")
        ip("-n", left, "link", "add", devices[0], "type", "veth", "peer", "name", devices[1], "netns", right)
        for namespace, device, addresses in ((left, devices[0], left_addresses), (right, devices[1], right_addresses)):
            for address in addresses:
                nodad = ("nodad",) if ":" in address else ()
                ip("-n", namespace, "addr", "add", address, "dev", device, *nodad)
            ip("-n", namespace, "link", "set", device, "up")

    def resolver(self, namespace: str, address: str) -> None:
        """Programs started with `ip netns exec` in *namespace* will ask *address*."""
        directory = FILES / namespace
        directory.mkdir(parents=True)
        self._open.callback(directory.rmdir)
        file = directory / "resolv.conf"
        file.write_text(f"nameserver {address}\noptions timeout:2 attempts:1\n")
        self._open.callback(file.unlink)

    def run(self, namespace: str, *command: str) -> str:
        """Runs a command to its end in a namespace; returns what it wrote."""
        done = subprocess.run(["ip", "netns", "exec", namespace, *command], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout


def inode(namespace: str) -> int:
    """The number by which the kernel knows a namespace (`otelbpf.netns`)."""
    return (NAMES / namespace).stat().st_ino
