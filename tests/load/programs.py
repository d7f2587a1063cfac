"""The generator's C programs: compiled once into a cache, started, watched and stopped by their process id."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SOURCES = Path(__file__).parent
COMPILE = ("clang", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread")


def program(name: str) -> Path:
    """The compiled program *name*; made when its sources or the command have changed."""
    sources = (SOURCES / f"{name}.c", *sorted(SOURCES.glob("*.h")))
    digest = hashlib.sha256(" ".join(COMPILE).encode())
    for source in sources:
        digest.update(source.read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "otelbpf-tests"
    path = cache / digest.hexdigest()[:16] / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        subprocess.run([*COMPILE, "-o", str(unfinished), str(sources[0])], check=True)
        unfinished.rename(path)
    return path


def in_namespace(namespace: str | None) -> tuple[str, ...]:
    """The words that start a command in a network namespace; `ip netns exec` becomes the command, so its pid is right."""
    return ("ip", "netns", "exec", namespace) if namespace else ()


class Place(NamedTuple):
    """Where one end of a load runs: its network namespace, a copy of its program under another name, the words that
    start it in a cgroup."""

    namespace: str | None = None
    executable: Path | None = None
    cgroup: tuple[str, ...] = ()

    def command(self, name: str, arguments: Sequence[str]) -> list[str]:
        """The words that run program *name* here."""
        return [*self.cgroup, *in_namespace(self.namespace), str(self.executable or program(name)), *arguments]


HERE = Place()


def counters(name: str, arguments: Sequence[str], place: Place = HERE) -> dict[str, Any]:
    """Runs a client to its end and returns the counters it printed; raises when it failed."""
    command = place.command(name, arguments)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


class Server:
    """A running server: the *port* it listens on and the *pids* that serve; *counters* once it has stopped."""

    def __init__(self, port: int, pids: tuple[int, ...]) -> None:
        self.port = port
        self.pids = pids
        self.counters: dict[str, Any] = {}


def started(line: str) -> Server:
    """What a server says when it listens: "ready PORT PID..."."""
    word, *numbers = line.split() or ["nothing"]
    if word != "ready":
        raise RuntimeError(f"the server did not start: {line}")
    port, *pids = map(int, numbers)
    return Server(port, tuple(pids))


@contextmanager
def serving(name: str, arguments: Sequence[str], place: Place = HERE) -> Iterator[Server]:
    """Runs a server while the block runs; its counters are there after the block."""
    command = place.command(name, arguments)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        server = started(process.stdout.readline())
        yield server
    except BaseException:
        process.kill()
        process.wait()
        raise
    process.send_signal(signal.SIGTERM)
    rest = process.stdout.read()
    if process.wait():
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    server.counters = json.loads(rest)
