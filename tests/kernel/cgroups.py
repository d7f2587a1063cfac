"""Cgroups that live as long as a test, named like containers, and programs that run in them."""

from __future__ import annotations

import itertools
import os
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import pytest

from otelbpf.kernel.features import cgroup2_mount

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NUMBERS = itertools.count()


class Cgroup(NamedTuple):
    """One of them; *container_id* is what its path says."""

    path: Path
    container_id: str

    @property
    def id(self) -> int:
        """As events have it."""
        return self.path.stat().st_ino

    def words(self) -> tuple[str, ...]:
        """What to put before a command so that it runs in there, with the pid that it is started with."""
        return ("sh", "-c", f'echo $$ > {self.path}/cgroup.procs && exec "$@"', "sh")


@contextmanager
def cgroup() -> Iterator[Cgroup]:
    """A new one, as Docker would make it; gone when the block ends, or before."""
    mount = cgroup2_mount()
    if mount is None:
        pytest.skip("no cgroup2 mount")
    container_id = f"{os.getpid():08x}{next(_NUMBERS):08x}{uuid.uuid4().hex}{uuid.uuid4().hex}"[:64]
    path = mount / f"docker-{container_id}.scope"
    path.mkdir()
    try:
        yield Cgroup(path, container_id)
    finally:
        if path.exists():
            path.rmdir()
