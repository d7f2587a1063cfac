"""What is compiled is shipped for each machine that Linux has BPF and we have tests for."""

from __future__ import annotations

import platform


def compiled_for() -> str:
    """This machine, as directories and files of compiled objects are named."""
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
