"""Pods without a runtime: cgroups in the form that a kubelet gives them, with real processes in network namespaces."""

from __future__ import annotations

import secrets
import subprocess
import sys
from typing import TYPE_CHECKING, Self

from otelbpf.kernel import features

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

CONTAINERD_SYSTEMD = (
    "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{under}.slice/cri-containerd-{id}.scope"
)
CONTAINERD_CGROUPFS = "kubepods/burstable/pod{uid}/{id}"
CRIO_SYSTEMD = "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{under}.slice/crio-{id}.scope"
CRIO_CGROUPFS = "kubepods/besteffort/pod{uid}/crio-{id}"
GUARANTEED_SYSTEMD = "kubepods.slice/kubepods-pod{under}.slice/cri-containerd-{id}.scope"
COLONS = "system.slice/containerd.service/kubepods-burstable-pod{under}.slice:cri-containerd:{id}"
"""What containerd makes where the kubelet uses systemd and it does not."""
NESTED = (
    "docker-{outer}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{under}.slice/"
    "cri-containerd-{id}.scope"
)
"""A node that is a container itself, as kind makes them."""
POD_ONLY = "kubepods/burstable/pod{uid}"
"""In the pod, in none of its containers."""
SERVE = """
import os, select, socket, sys
host, port = sys.argv[1:]
server = socket.create_server((host, int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
print("up", flush=True)
held = []
while True:
    if 0 in select.select([server, 0], [], [])[0]:
        if not os.read(0, 1): break
        for one in held: one.close()
        held.clear()
        continue
    one, _ = server.accept()
    said = one.recv(100)
    if said == b"hold": held.append(one)
    else: one.sendall(said); one.close()
"""
TALK = """
import socket, sys
one = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
print(one.getsockname()[1])
one.sendall(b"hello"); one.recv(100); one.close()
"""
HOLD = """
import socket, sys
one = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
one.settimeout(None)
one.sendall(b"hold"); print("up", flush=True)
one.recv(100); one.close()
"""


def new_id() -> str:
    """A container's id."""
    return secrets.token_hex(32)


class Container:
    """A cgroup of a pod's container; made on entry, removed at the end with what runs in it.

    *mount* is the hierarchy; the v2 one if it is not said.
    """

    def __init__(self, uid: str, namespace: str, form: str = CONTAINERD_SYSTEMD, mount: Path | None = None) -> None:
        self.id = new_id()
        mount = mount or features.cgroup2_mount()
        assert mount is not None
        self._root = mount
        self._path = mount / form.format(uid=uid, under=uid.replace("-", "_"), id=self.id, outer=new_id())
        self._namespace = namespace
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self._path.mkdir(parents=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Kills what runs in it and removes it, as a runtime does."""
        for process in self._running:
            process.kill()
            process.wait()
        self._running.clear()
        path = self._path
        while path != self._root:
            try:
                path.rmdir()
            except OSError:  # another pod has a cgroup below it
                break
            path = path.parent

    def talk(self, address: str, port: int) -> int:
        """A connection from a process of the container, to its end; gives the port that it came from."""
        process = self._start(TALK, address, str(port))
        said, _ = process.communicate(timeout=20)
        if process.returncode:
            raise RuntimeError(f"no connection to {address}:{port}")
        return int(said)

    def serve(self, address: str, port: int) -> subprocess.Popen[bytes]:
        """A server in the container, ready when this returns."""
        return self._started(SERVE, address, port)

    def hold(self, address: str, port: int) -> subprocess.Popen[bytes]:
        """A process of the container with a connection that lasts until its server lets go."""
        return self._started(HOLD, address, port)

    def _started(self, program: str, address: str, port: int) -> subprocess.Popen[bytes]:
        process = self._start(program, address, str(port))
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        return process

    def _start(self, program: str, *words: str) -> subprocess.Popen[bytes]:
        command = ["ip", "netns", "exec", self._namespace, sys.executable, "-c", program, *words]
        command = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self._path / "cgroup.procs"), *command]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._running.append(process)
        return process


def let_go(server: subprocess.Popen[bytes]) -> None:
    """Ends the connections that a server holds."""
    assert server.stdin is not None
    server.stdin.write(b"x")
    server.stdin.flush()
