"""A node without a machine: its network namespace with pods behind a bridge, and an agent that takes it for the host's.

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
    from collections.abc import Mapping
    from types import TracebackType

NUMBERS = itertools.count(1)
CLONE_NEWNET = 0x40000000


class Place(NamedTuple):
    """A pod's network: its namespace, and its addresses."""

    namespace: str
    ipv4: str
    ipv6: str


class NodeNetwork:
    """The node's namespace and those of its pods, while entered. No two have the same addresses."""

    def __init__(self) -> None:
        self._number = next(NUMBERS)
        self._pods = itertools.count(2)
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self._spaces = self._open.enter_context(Namespaces(f"nd{self._number}x"))
        self.host = self.pod_like("host", 1)
        on_node = ("-n", self.host.namespace)
        ip(*on_node, "link", "add", "cni0", "type", "bridge")
        ip(*on_node, "addr", "add", f"{self.host.ipv4}/24", "dev", "cni0")
        ip(*on_node, "addr", "add", f"{self.host.ipv6}/64", "dev", "cni0", "nodad")
        ip(*on_node, "link", "set", "cni0", "up")
        for switch in ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"):
            self._spaces.run(self.host.namespace, "sysctl", "-qw", switch)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def pod_like(self, role: str, last: int) -> Place:
        """A namespace with what its addresses would be."""
        return Place(self._spaces.add(role), f"10.250.{self._number}.{last}", f"fd00:250:{self._number}::{last}")

    def pod(self) -> Place:
        """The network of one more pod."""
        number = next(self._pods)
        made = self.pod_like(f"p{number}", number)
        device = f"veth{number}"
        peer = ("peer", "name", "eth0", "netns", made.namespace)
        ip("-n", self.host.namespace, "link", "add", device, "type", "veth", *peer)
        ip("-n", self.host.namespace, "link", "set", device, "master", "cni0", "up")
        ip("-n", made.namespace, "addr", "add", f"{made.ipv4}/24", "dev", "eth0")
        ip("-n", made.namespace, "addr", "add", f"{made.ipv6}/64", "dev", "eth0", "nodad")
        ip("-n", made.namespace, "link", "set", "eth0", "up")
        ip("-n", made.namespace, "route", "add", "default", "via", self.host.ipv4)
        ip("-n", made.namespace, "-6", "route", "add", "default", "via", self.host.ipv6)
        self._spaces.resolver(made.namespace, self.host.ipv4)
        return made

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

    def __init__(self, directory: Path, settings: Mapping[str, Any], network: NodeNetwork, **variables: str) -> None:
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
