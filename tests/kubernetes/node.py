"""A node without a machine: its network namespace with pods behind it, and an agent that takes it for the host's.

The agent is the first process of a pid namespace, so that /proc/1/ns/net, the host's network for it, is the node's.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import signal
import socket
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from tests.e2e.agent import Agent
from tests.e2e.netns import NAMES, Namespaces, ip

if TYPE_CHECKING:
    from types import TracebackType

NUMBERS = itertools.count(1)
CLONE_NEWNET = 0x40000000


class Place(NamedTuple):
    """A pod's network: its namespace, and its addresses."""

    namespace: str
    ipv4: str
    ipv6: str


class NodeNetwork:
    """The node's namespace and those of its pods, while entered. No two nodes have the same addresses."""

    def __init__(self) -> None:
        self._number = next(NUMBERS)
        self._pods = itertools.count(2)
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self._spaces = self._open.enter_context(Namespaces(f"nd{self._number}x"))
        self.host = self._place("host", 1)
        ip("-n", self.host.namespace, "addr", "add", f"{self.host.ipv4}/32", "dev", "lo")
        for switch in ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"):
            self._spaces.run(self.host.namespace, "sysctl", "-qw", switch)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def pod(self, *more: str) -> Place:
        """The network of one more pod, or of anything else that is reached through the node, at addresses *more* too.

        Nothing but the node is on its link, as with most network plug-ins: all that it sends passes the node's rules.
        """
        number = next(self._pods)
        made, device = self._place(f"p{number}", number), f"veth{number}"
        host, inside = ("-n", self.host.namespace), ("-n", made.namespace)
        ip(*host, "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", made.namespace)
        ip(*host, "addr", "add", f"{self.host.ipv6}/128", "dev", device, "nodad")
        ip(*host, "link", "set", device, "up")
        ip(*inside, "link", "set", "eth0", "up")
        for gateway in (self.host.ipv4, self.host.ipv6):
            ip(*inside, "route", "add", gateway, "dev", "eth0")
            ip(*inside, "route", "add", "default", "via", gateway, "dev", "eth0")
        for address in (made.ipv4, made.ipv6, *more):
            ip(*inside, "addr", "add", address, "dev", "eth0", *(("nodad",) if ":" in address else ()))
            ip(*host, "route", "add", address, "dev", device)
        self._spaces.resolver(made.namespace, self.host.ipv4)
        return made

    def _place(self, role: str, last: int) -> Place:
        """A namespace, with what its addresses are."""
        return Place(self._spaces.add(role), f"10.250.{self._number}.{last}", f"fd00:250:{self._number}::{last}")

    @property
    def of_two_pods(self) -> list[str]:
        """The networks that hold the node and its first two pods, and nobody else."""
        return [f"{self.host.ipv4.removesuffix('1')}0/30", f"{self.host.ipv6.removesuffix('1')}/126"]

    def rules(self, text: str, directory: Path) -> None:
        """Rules of nft on the node, as kube-proxy would have them."""
        file = directory / "rules.nft"
        file.write_text(text)
        self._spaces.run(self.host.namespace, "nft", "-f", str(file))

    def lead(self, port: int) -> None:
        """Port *port* of 127.0.0.1 on the node is ours."""
        self._open.enter_context(Lead(self.host.namespace, port))


class Lead:
    """127.0.0.1:*port* in a namespace leads to the same here, while entered."""

    def __init__(self, namespace: str, port: int) -> None:
        self._namespace = namespace
        self._port = port

    def __enter__(self) -> Self:
        made: list[socket.socket] = []
        maker = threading.Thread(target=lambda: made.append(self._listen()))
        maker.start()  # a thread of its own: it goes into the namespace and never comes back
        maker.join()
        self._listening = made[0]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _listen(self) -> socket.socket:
        libc = ctypes.CDLL(None, use_errno=True)
        with (NAMES / self._namespace).open() as namespace:
            if libc.setns(namespace.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return socket.create_server(("127.0.0.1", self._port))

    def _accept(self) -> None:
        with suppress(OSError):  # closed: that is the end
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection(("127.0.0.1", self._port))
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=_carry, args=ends, daemon=True).start()


def _carry(source: socket.socket, to: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            to.sendall(data)
        to.shutdown(socket.SHUT_WR)


class NodeAgent(Agent):
    """An agent on the node *network*, with the variables that its manifest sets."""

    def __init__(self, directory: Path, settings: dict[str, Any], network: NodeNetwork, **variables: str) -> None:
        super().__init__(directory, settings)
        self._instance |= variables
        namespace = NAMES / network.host.namespace
        own = ("unshare", "--pid", "--fork", "--kill-child=SIGTERM", "--mount-proc")
        self._command = ["nsenter", f"--net={namespace}", *own, *self._command]

    @property
    def pid(self) -> int:
        """Of the agent; `unshare` waits for it and takes no signals meanwhile."""
        parent = self.process.pid
        (child,) = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return int(child)

    def stop(self) -> int:
        if self.process.poll() is None:
            os.kill(self.pid, signal.SIGTERM)
        return super().stop()
