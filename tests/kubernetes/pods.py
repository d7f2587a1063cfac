"""Pods without a runtime: cgroups in the form that a kubelet gives them, with real processes in network namespaces."""

from __future__ import annotations

import secrets
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

from otelbpf.kernel import features

if TYPE_CHECKING:
    from types import TracebackType

CONTAINERD_SYSTEMD = (
    "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{under}.slice/cri-containerd-{id}.scope"
)
CONTAINERD_CGROUPFS = "kubepods/burstable/pod{uid}/{id}"
CRIO_SYSTEMD = "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{under}.slice/crio-{id}.scope"
SERVE = """
import socket, sys
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("up", flush=True)
while True:
    one, _ = server.accept()
    one.sendall(one.recv(100)); one.close()
"""
TALK = """
import socket, sys, time
one = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
one.sendall(b"hello"); one.recv(100); one.close()
"""


def new_id() -> str:
    """A container's id."""
    return secrets.token_hex(32)


class Container:
    """A cgroup of a pod's container; made on entry, removed at the end with what runs in it."""

    def __init__(self, uid: str, namespace: str, form: str = CONTAINERD_SYSTEMD) -> None:
        self.id = new_id()
        mount = features.cgroup2_mount()
        assert mount is not None
        self._root = mount
        self._path = Path(mount) / form.format(uid=uid, under=uid.replace("-", "_"), id=self.id)
        self._namespace = namespace
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self._path.mkdir(parents=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._running:
            process.kill()
            process.wait()
        path = self._path
        while path != self._root:
            try:
                path.rmdir()
            except OSError:  # another pod has a cgroup below it
                break
            path = path.parent

    def talk(self, address: str, port: int) -> None:
        """A connection from a process of the container, to its end."""
        process = self._start(TALK, address, str(port))
        if process.wait(20):
            raise RuntimeError(f"no connection to {address}:{port}")

    def serve(self, address: str, port: int) -> None:
        """A server in the container, ready when this returns."""
        process = self._start(SERVE, address, str(port))
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"

    def _start(self, program: str, *words: str) -> subprocess.Popen[bytes]:
        command = ["ip", "netns", "exec", self._namespace, sys.executable, "-c", program, *words]
        command = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self._path / "cgroup.procs"), *command]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        self._running.append(process)
        return process
