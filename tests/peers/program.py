"""A peer as a process: started, waited for, stopped or killed by its process id, its output in a file."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.e2e.polling import wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

START_S = 60
STOP_S = 20


def peers() -> Path:
    """Where `make peers` puts the programs that the tests talk to."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return Path(os.environ.get("OTELBPF_PEERS", cache / "otelbpf-peers"))


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on; all different, as all are held until the last is known."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def binary(name: str) -> Path:
    """A program that `make peers` builds; its absence is a failure with a remedy, never a skip."""
    path = peers() / name
    if not path.exists():
        raise FileNotFoundError(f"no {name} at {path}: run `scripts/peers.sh {name}`")
    return path


class Program:
    """Program *name* with *arguments*, running while entered; ready when *ready_url* answers with success."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        directory: Path,
        ready_url: str,
        *,
        authority: Path | None = None,
        headers: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """*environment*: variables beside those of this process."""
        self._command = [str(binary(name)), *arguments]
        self._log = directory / f"{name}.log"
        self._directory = directory
        self._ready = urllib.request.Request(ready_url, headers=dict(headers or {}))
        self._authority = authority
        self._environment = environment or {}
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Starts it and waits until it is ready."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, stdout=log, stderr=log, cwd=self._directory, env=os.environ | self._environment
            )
        try:
            wait_for(self._is_ready, self._log.name, START_S)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Asks it to end and waits; one that does not end is killed."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.process.wait()
        self.process = None

    def kill(self) -> None:
        """Lets it vanish."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def _is_ready(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            raise RuntimeError(f"{self._log.name}: {self._log.read_text()[-2000:]}")
        context = ssl.create_default_context(cafile=str(self._authority)) if self._authority else None
        try:
            with urllib.request.urlopen(self._ready, timeout=2, context=context) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False
