"""The opened library: one for the process."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from otelbpf.kernel import libbpf as module

if TYPE_CHECKING:
    import pytest

THREADS = 4


class SlowLibrary:
    """Takes as long to open as the real one may on a busy machine."""

    def __init__(self, *_libraries: object) -> None:
        time.sleep(0.01)


def test_threads_that_need_it_first_at_the_same_time_get_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Libbpf", SlowLibrary)
    module._opened.cache_clear()
    together = threading.Barrier(THREADS)

    def open_it(_number: int) -> module.Libbpf:
        together.wait()
        return module.libbpf()

    try:
        with ThreadPoolExecutor(THREADS) as pool:
            opened = set(pool.map(open_it, range(THREADS)))
    finally:
        module._opened.cache_clear()
    assert len(opened) == 1
