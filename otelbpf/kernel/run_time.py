"""How long the kernel spends in BPF programs: counted only while asked for, as counting costs some 60 ns a run."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from otelbpf.errors import Unsupported
from otelbpf.kernel.libbpf import libbpf

if TYPE_CHECKING:
    from collections.abc import Iterator

_RUN_TIME = 0


@contextmanager
def run_time_counted() -> Iterator[None]:
    """While the block runs `Object.run_stats` counts, for all programs of the machine; needs CAP_SYS_ADMIN."""
    fd = libbpf().bpf_enable_stats(_RUN_TIME)
    if fd < 0:
        raise Unsupported("bpf statistics", os.strerror(-fd))
    try:
        yield
    finally:
        os.close(fd)
