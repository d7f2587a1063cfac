"""One agent a node: two would count everything twice."""

from __future__ import annotations

import errno
import socket
import struct
from typing import TYPE_CHECKING

from otelbpf.errors import CannotRun

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

NAME = "\0otelbpf"
"""`OTELBPF_INSTANCE` is added to it: who wants a second agent on purpose, to try a new version, can have it."""
_CREDENTIALS = struct.Struct("3i")


class OnlyOne:
    """Holds the name of the agent on this node while it is entered; raises CannotRun when another agent has it.

    An abstract unix socket, not a file: it needs no directory that can be written, the kernel lets go of it however
    the agent ends, and it is one a network namespace, so that a container on the host's network counts as the host.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> Self:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.bind(self._name)
        except OSError as error:
            self._socket.close()
            if error.errno != errno.EADDRINUSE:
                raise CannotRun(f"cannot see whether another otelbpf runs here: {error.strerror or error}") from error
            raise CannotRun(
                f"another otelbpf (pid {holder(self._name) or 'unknown'}) runs on this node, and two would count everything "
                "twice: stop it first"
            ) from error
        self._socket.listen()  # each that asks who holds it stays in the queue
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


def name_of_instance(environ: Mapping[str, str]) -> str:
    """The name that the agent of this environment holds."""
    return NAME + environ.get("OTELBPF_INSTANCE", "")


def holder(name: str) -> int | None:
    """The pid of the agent that holds *name*, without disturbing it; None when there is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        try:
            asking.settimeout(1)
            asking.connect(name)
            credentials = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        except OSError:
            return None
    return int(_CREDENTIALS.unpack(credentials)[0])
