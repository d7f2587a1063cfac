"""Files that others change while the agent runs: tokens, headers and certificates that are rotated."""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from otelbpf.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

log = logging.getLogger("otelbpf.export")

LOOK_INTERVAL_S = 1.0
MOST_BYTES = 2**20
"""Of a token or a certificate; /dev/zero has more."""
State = tuple[tuple[int, int, int] | None, ...]


class Rotation:
    """Says whether files were changed since it was asked last; looks once a second at most. For any thread."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = [path for path in paths if path]
        self._lock = threading.Lock()
        self._seen: State = self._state()
        self._look_at = 0.0

    def happened(self) -> bool:
        if not self._paths:
            return False
        with self._lock:
            now = time.monotonic()
            if now < self._look_at:
                return False
            self._look_at = now + LOOK_INTERVAL_S
            state = self._state()
            changed, self._seen = state != self._seen, state
            return changed

    def _state(self) -> State:
        return tuple(_stamp(path) for path in self._paths)


class Headers:
    """The headers of every request: those that are set, and those whose values stand in files.

    A file that cannot be read any more leaves the value that it had: a rotation may be under way.
    """

    def __init__(self, name: str, fixed: Mapping[str, str], files: Mapping[str, str], bearer_token_file: str) -> None:
        self._name = name
        self._files = {key: (path, "") for key, path in files.items()}
        if bearer_token_file:
            self._files["Authorization"] = (bearer_token_file, "Bearer ")
        self._rotation = Rotation(path for path, _ in self._files.values())
        self._values = dict(fixed)

    def read(self) -> None:
        """Reads the files. Raises ConfigError that says which one cannot be read, or holds no header's value."""
        self._values |= {key: self._value(key, *where) for key, where in self._files.items()}

    def current(self) -> Mapping[str, str]:
        """The headers as they are now."""
        for key, where in self._files.items() if self._rotation.happened() else ():
            try:
                self._values[key] = self._value(key, *where)
            except ConfigError as error:
                log.warning("exporter %s: %s; the value from before is used", self._name, error)
        return self._values

    def _value(self, key: str, path: str, prefix: str) -> str:
        try:
            text = content(path).decode("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not ASCII text"
            raise ConfigError(f"exporters.{self._name}: header {key}: cannot read {path}: {reason}") from None
        if not text or not text.isprintable():
            raise ConfigError(f"exporters.{self._name}: header {key}: {path} must hold one line")
        return prefix + text


def content(path: str) -> bytes:
    """What the file holds. Waits for nobody: a pipe without a writer is empty. Raises OSError, also beyond MOST_BYTES."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return data


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
