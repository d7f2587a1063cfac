"""One API server for all tests of this directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.deploy.objects import MANIFESTS
from tests.peers.api_server import ApiServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A running API server with our namespace and role in it."""
    with ApiServer(tmp_path_factory.mktemp("api")) as server:
        for name in ("namespace", "rbac"):
            done = server.kubectl("apply", "--server-side", "-f", str(MANIFESTS / f"{name}.yaml"))
            assert done.returncode == 0, done.stderr
        yield server
