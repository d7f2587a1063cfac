"""Somebody sets the clock while data waits on disk: nothing becomes too old by that."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.e2e import exactly
from tests.e2e.polling import wait_for
from tests.peers.scripted import HttpPeer
from tests.peers.sending import Plan, Sending, arrived

SOURCE = Path(__file__).parents[1] / "peers" / "wallclock.c"
DAYS_S = 20 * 86400
LOOKS_S = 12
"""The spool is looked through every ten seconds."""


@pytest.mark.parametrize("ahead_s", [DAYS_S, -DAYS_S])
def test_the_clock_is_set_during_an_outage(ahead_s, tmp_path):
    library, ahead = tmp_path / "wallclock.so", tmp_path / "ahead"
    subprocess.run(["clang", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", library, SOURCE], check=True)
    ahead.write_text("0")
    variables = {"LD_PRELOAD": str(library), "WALL_CLOCK_AHEAD": str(ahead)}
    with HttpPeer() as peer:
        spool = {"directory": str(tmp_path / "spool"), "max_age": 3600.0}
        plan = Plan("otlp_http", {"endpoint": peer.endpoint, "timeout": 2.0, "spool": spool}, requests_s=20)
        with Sending(tmp_path, plan, environment=variables) as sending:
            sending.wait_for_accepted(40)
            peer.__exit__()
            wait_for(lambda: min(one.spooled for one in sending.status().ledger.values()) > 200, "the spool")
            ahead.write_text(str(ahead_s))
            sending.wait_for_made(sending.status().made + LOOKS_S * plan.items * int(plan.requests_s), 60)
            peer.__enter__()
            done = sending.finish(30)
        exactly.complete(done, arrived(peer), in_order=False)
    print(f"set by {ahead_s} s: {done.made} of each arrived")
