"""Lines are said in order, and who does not read them stops nobody."""

from __future__ import annotations

import fcntl
import logging
import os
import threading

import pytest

from otelbpf import voice
from otelbpf.voice import Voice


@pytest.fixture
def pipe():
    """The reading and the writing end of a pipe that holds a page."""
    out, into = os.pipe()
    fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, 4096)
    yield out, into
    os.close(into)
    os.close(out)


def test_lines_are_said_in_order(pipe):
    out, into = pipe
    with Voice(into) as spoken:
        for number in range(100):
            spoken.say(f"line {number}")
    assert os.read(out, 4096).decode().splitlines() == [f"line {number}" for number in range(100)]


def test_what_is_logged_is_said(pipe):
    out, into = pipe
    logger = logging.getLogger("of a test")
    with Voice(into) as spoken:
        logger.addHandler(spoken)
        logger.error("%d µs", 5)
        logger.removeHandler(spoken)
    assert os.read(out, 4096).decode() == "5 µs\n"


def test_who_does_not_read_stops_nobody_and_hears_how_much_was_not_said(pipe, monkeypatch):
    out, into = pipe
    monkeypatch.setattr(voice, "LINES", 10)
    monkeypatch.setattr(voice, "LAST_WORDS_S", 0.01)
    with Voice(into) as spoken:
        for number in range(5000):
            spoken.say(f"{number:079d}")
    heard = b""
    while b"4999" not in heard:
        heard += os.read(out, 4096)
    lines = heard.decode().splitlines()
    unsaid = [int(line.split()[1]) for line in lines if line.endswith(" lines were dropped: nobody read them in time")]
    assert unsaid
    assert sum(unsaid) + len(lines) - len(unsaid) == 5000
    spoken._thread.join()


@pytest.mark.parametrize("blocking", [True, False])
def test_a_line_that_is_larger_than_the_pipe(pipe, blocking):
    out, into = pipe
    os.set_blocking(into, blocking)
    with Voice(into) as spoken:
        spoken.say("x" * 10_000)
        heard = b""
        while not heard.endswith(b"\n"):
            heard += os.read(out, 4096)
    assert len(heard) == 10_001


def test_a_reader_that_went_away_ends_nothing():
    out, into = os.pipe()
    os.close(out)
    with Voice(into) as spoken:
        for _ in range(3):
            spoken.say("nobody")
    os.close(into)
    assert not any(thread.name == "voice" for thread in threading.enumerate())
