"""Reading an iterator to its end, whatever the kernel answers in between."""

from __future__ import annotations

import os

from otelbpf.kernel import object as object_module


def test_a_kernel_that_rests_is_asked_again(monkeypatch):
    answers = iter([BlockingIOError(), b"one", BlockingIOError(), b"two", b""])

    def read(_fd, _size):
        answer = next(answers)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    monkeypatch.setattr(os, "read", read)
    assert list(object_module._chunks(3)) == [b"one", b"two"]
