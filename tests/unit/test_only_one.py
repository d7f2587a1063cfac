"""A second agent is refused while the first one runs, and not after it."""

import os

import pytest

from otelbpf.errors import CannotRun
from otelbpf.only_one import OnlyOne, holder, name_of_instance

NAME = f"\0otelbpf-test-{os.getpid()}"


def test_a_second_agent_is_told_who_has_the_node() -> None:
    with (
        OnlyOne(NAME),
        pytest.raises(CannotRun, match=rf"another otelbpf .*pid {os.getpid()}.*stop it first"),
        OnlyOne(NAME),
    ):
        pass


def test_the_node_is_free_when_the_first_has_gone() -> None:
    for _ in range(2):
        with OnlyOne(NAME):
            pass
    assert holder(NAME) is None


def test_another_instance_is_another_agent() -> None:
    assert name_of_instance({"OTELBPF_INSTANCE": "next"}) != name_of_instance({})
    with OnlyOne(NAME), OnlyOne(NAME + "next"):
        assert holder(NAME + "next") == os.getpid()


def test_a_name_too_long_for_the_kernel_is_told() -> None:
    with pytest.raises(CannotRun, match="path too long"), OnlyOne(NAME + "x" * 200):
        pass
