"""What tests of several probes need of a kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kernel.netns import namespace
from tests.kernel.sample import compile_sample
from tests.kernel.tcp import watching

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel.netns import Namespace
    from tests.kernel.tcp import Watch


@pytest.fixture(scope="session")
def sample(tmp_path_factory):
    return compile_sample(tmp_path_factory.mktemp("objects"))


@pytest.fixture
def place() -> Iterator[Namespace]:
    """A network namespace that this thread is in, with nothing but `lo`: ports that nobody else uses."""
    with namespace() as made, made.inside():
        yield made


@pytest.fixture
def watch(place) -> Iterator[Watch]:
    """Connections in that namespace, watched."""
    with watching() as attached:
        yield attached
