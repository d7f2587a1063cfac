"""A file that may change: edited in place, replaced by another, or reached through a link that is turned elsewhere.

It is looked at, not listened to: editors rename, a ConfigMap turns a link two directories up, and a network file
system tells nobody; one `stat` a look sees all of that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

State = tuple[int, int, int, int, int] | None


class WatchedFile:
    """The file at *path*, as it is now."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._taken = self._seen = self._state()

    def changed(self) -> bool:
        """Whether it has changed since this was last true, but not since the last call: whoever writes it has then
        finished. To be called every now and then."""
        before, self._seen = self._seen, self._state()
        if self._seen == self._taken or self._seen != before:
            return False
        self._taken = self._seen
        return True

    def _state(self) -> State:
        """None when there is no file that can be looked at."""
        try:
            found = self._path.stat()
        except (OSError, ValueError):
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
