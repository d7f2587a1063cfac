"""Waiting for the world: by looking again, with a limit, never by a guess of how long it takes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
LIMIT_S = 20.0
PAUSE_S = 0.05


def wait_for(look: Callable[[], T], what: str, limit_s: float = LIMIT_S) -> T:
    """What *look* returns as soon as it is true; TimeoutError naming *what* when the limit has passed."""
    end = time.monotonic() + limit_s
    while not (found := look()):
        if time.monotonic() > end:
            raise TimeoutError(f"waited {limit_s:.0f} s for {what}")
        time.sleep(PAUSE_S)
    return found
