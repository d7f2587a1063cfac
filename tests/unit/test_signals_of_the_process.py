"""SIGTERM and SIGINT: the first one ends the agent in order, the second one at once. SIGHUP: read the configuration
again, or the terminal is gone."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys

import pytest

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


RELOADING = """
import os, signal, sys, threading, time
{before}
from otelbpf.cli import _end_on_signals, _reload_on_hangup
from otelbpf.reload import Wish, no_file
ending, wish = threading.Event(), Wish(no_file)
_end_on_signals(ending)
_reload_on_hangup(ending, wish)
os.write(int(sys.argv[1]), b"ready")
until = time.monotonic() + 30
while time.monotonic() < until and not wish.is_due() and not ending.is_set():
    time.sleep(0.01)
os._exit(7 if ending.is_set() else 8 if time.monotonic() < until else 9)
"""
EARLY = "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP}); os.kill(os.getpid(), signal.SIGHUP)"
"""As `run` does from its first moment on: what is asked for while it starts is done once it can be."""
ENDED, RELOADED = 7, 8


def hung_up(*, terminal: bool, closed: bool, before: str = "") -> int:
    """The end of a process that had SIGHUP, because its terminal was *closed* or from somebody else."""
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    child, master = pty.fork() if terminal else (os.fork(), -1)
    if child == 0:
        if not terminal:
            os.setsid()
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever the tests were started with, nohup for one
        os.execv(sys.executable, [sys.executable, "-c", RELOADING.format(before=before), str(writing)])
    os.close(writing)
    assert os.read(reading, 5) == b"ready"
    if closed:
        os.close(master)
    else:
        os.kill(child, signal.SIGHUP)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(reading)
    if terminal and not closed:
        os.close(master)
    return code


@pytest.mark.parametrize(
    ("terminal", "closed", "before", "outcome"),
    [
        (True, False, "", RELOADED),
        (True, True, "", ENDED),
        (False, False, "", RELOADED),
        (True, False, "signal.signal(signal.SIGHUP, signal.SIG_IGN)", RELOADED),
        (True, True, "signal.signal(signal.SIGHUP, signal.SIG_IGN)", RELOADED),
        (False, False, EARLY, RELOADED),
    ],
)
def test_sighup_reloads_unless_the_terminal_is_gone(terminal, closed, before, outcome):
    assert hung_up(terminal=terminal, closed=closed, before=before) == outcome
