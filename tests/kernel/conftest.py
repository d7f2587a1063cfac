from __future__ import annotations

import pytest

from tests.kernel.sample import compile_sample


@pytest.fixture(scope="session")
def sample(tmp_path_factory):
    return compile_sample(tmp_path_factory.mktemp("objects"))
