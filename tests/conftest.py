"""What every test shares: markers by directory, so that a run can be chosen; those without a marker need no root."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import settings

if TYPE_CHECKING:
    import pytest

MARKERS = {
    "kernel": "loads programs into the running kernel; needs root",
    "e2e": "runs the agent, or a real peer of it, as processes",
    "deploy": "asks a real API server, or runs the agent as a container would; needs root",
    "kubernetes": "names from a real API server; needs root",
    "image": "makes the image and runs it as the DaemonSet does; needs root",
    "kernels": "boots other kernels in virtual machines; takes a minute",
    "backends": "runs the queries of the documentation in real back ends; needs root",
}
HERE = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    settings.register_profile("otelbpf", deadline=None)  # a busy machine is no failure
    settings.load_profile("otelbpf")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC's core looks once, when it is first imported
    for name, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        directory = item.path.relative_to(HERE).parts[0]
        if directory in MARKERS:
            item.add_marker(directory)
