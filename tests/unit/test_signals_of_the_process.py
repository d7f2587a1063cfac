"""SIGTERM and SIGINT: the first one ends the agent in order, the second one at once."""

from __future__ import annotations

import subprocess
import sys

ENDING = """
import os, signal, threading
from otelbpf.cli import _end_on_signals
ending = threading.Event()
_end_on_signals(ending)
"""


def ends(program: str) -> int:
    return subprocess.run([sys.executable, "-c", ENDING + program], timeout=60, check=False).returncode


def test_the_first_only_says_so():
    assert ends("os.kill(os.getpid(), signal.SIGINT); os._exit(0 if ending.wait(30) else 1)") == 0


def test_the_second_ends_it_at_once():
    assert ends("os.kill(os.getpid(), signal.SIGINT); os.kill(os.getpid(), signal.SIGTERM); ending.wait()") == 143


def test_one_that_interrupts_a_wait_does_not_wait_for_it():
    """The wait holds the lock of the event when the handler runs."""
    assert ends("with ending._cond: os.kill(os.getpid(), signal.SIGINT)\nos._exit(0 if ending.wait(30) else 1)") == 0
