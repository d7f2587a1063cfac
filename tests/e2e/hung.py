"""A file system that never answers: FUSE whose server, which is us, takes no request."""

from __future__ import annotations

import ctypes
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MNT_DETACH = 2


class Hung:
    """The mount; whoever touches it waits until `answer` ends that with an error."""

    def __init__(self, server: int) -> None:
        self._server = server

    def answer(self) -> None:
        """The server is gone: everything that waits fails, and so does what comes."""
        if self._server >= 0:
            os.close(self._server)
        self._server = -1


@contextmanager
def hung_file_system(directory: Path) -> Iterator[Hung]:
    """Mounted at *directory* while the block runs."""
    libc = ctypes.CDLL(None, use_errno=True)
    server = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0".encode()
    if libc.mount(b"hung", os.fsencode(directory), b"fuse", 0, options):
        os.close(server)
        raise OSError(ctypes.get_errno(), "mount", str(directory))
    hung = Hung(server)
    try:
        yield hung
    finally:
        hung.answer()
        libc.umount2(os.fsencode(directory), MNT_DETACH)
