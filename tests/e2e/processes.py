"""Processes with names of their own: on a plain host the executable's name is the service, so each role needs one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from tests.e2e.polling import wait_for
from tests.load.programs import in_namespace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

SCRIPT = Path(__file__).with_name("talker.py")


class Owner(NamedTuple):
    """Who a record must name."""

    pid: int
    executable: Path


def copy_program(program: Path, directory: Path, name: str) -> Path:
    """A copy of *program* under another name; short enough to be a comm as well."""
    path = directory / name
    shutil.copy(program, path)
    return path


class Talker:
    """A process that talks TCP as it is told; the methods are the commands of talker.py."""

    def __init__(self, directory: Path, name: str, namespace: str | None = None) -> None:
        self._executable = copy_program(Path(sys.executable).resolve(), directory, name)
        self._command = [*in_namespace(namespace), str(self._executable), "-S", str(SCRIPT)]

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONHOME": sys.base_prefix},
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()  # it ends when there is nothing more to read
        self.process.wait(10)

    @property
    def owner(self) -> Owner:
        return Owner(self.process.pid, self._executable)

    def tell(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Has one command carried out; returns the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        if "error" in answer:
            raise OSError(answer["error"], answer["text"])
        return answer


@contextmanager
def dnsmasq(namespace: str, directory: Path, *settings: str) -> Iterator[Owner]:
    """Debian's dnsmasq in a namespace, with nothing but *settings* (lines of its configuration)."""
    file = directory / "dnsmasq.conf"
    pid_file = directory / "dnsmasq.pid"
    lines = ("no-resolv", "no-hosts", "user=root", "group=root", f"pid-file={pid_file}", *settings)
    file.write_text("\n".join(lines) + "\n")
    executable = Path(shutil.which("dnsmasq", path="/usr/sbin:/sbin") or "dnsmasq")
    command = [*in_namespace(namespace), str(executable), "--keep-in-foreground", f"--conf-file={file}"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_for(pid_file.exists, "dnsmasq")  # written when it listens
        yield Owner(process.pid, executable)
    finally:
        process.terminate()
        process.wait(10)
