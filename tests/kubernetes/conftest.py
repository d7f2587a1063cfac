"""One API server for all tests here; each test has a node and a namespace of its own in it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from tests.kubernetes.cluster import Objects
from tests.peers.api_server import ApiServer

if TYPE_CHECKING:
    from collections.abc import Iterator

NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with ApiServer(tmp_path_factory.mktemp("kubernetes")) as running:
        yield running


@pytest.fixture(scope="session")
def objects(server: ApiServer) -> Objects:
    return Objects(server)


@pytest.fixture
def namespace(objects: Objects) -> str:
    name = f"shop-{next(NUMBERS)}"
    objects.namespace(name)
    return name


@pytest.fixture
def node() -> str:
    """The name of this node in the test's cluster."""
    return f"node-{next(NUMBERS)}"
