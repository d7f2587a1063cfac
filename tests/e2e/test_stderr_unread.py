"""Nobody reads what the agent says: it works, and it ends, all the same."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.e2e.agent import ROOT
from tests.e2e.collector import free_ports

if TYPE_CHECKING:
    from pathlib import Path

SHUTDOWN_S = 2


@pytest.mark.parametrize("exporter", ["console", "otlp_grpc"])
def test_the_first_signal_ends_it_though_its_words_go_nowhere(tmp_path: Path, exporter: str) -> None:
    """With the second exporter its threads have something to say all the time: nobody listens where it sends."""
    out, into = os.pipe()
    settings = {
        "exporters": {exporter: {"endpoint": f"127.0.0.1:{free_ports(1)[0]}"} if exporter == "otlp_grpc" else {}},
        "health": {"endpoint": ""},
        "shutdown_timeout": f"{SHUTDOWN_S}s",
    }
    (tmp_path / "otelbpf.yaml").write_text(json.dumps(settings))
    agent = subprocess.Popen(
        [sys.executable, "-m", "otelbpf", "run", "-c", str(tmp_path / "otelbpf.yaml")],
        cwd=ROOT,
        env=os.environ | {"OTELBPF_INSTANCE": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=into,
    )
    try:
        with os.fdopen(out, "rb") as said:
            while not said.readline().startswith(b"ready"):
                assert agent.poll() is None
            fill(into)
            agent.send_signal(signal.SIGTERM)
            assert agent.wait(10 * SHUTDOWN_S) == 0
    finally:
        agent.kill()
        agent.wait()
        os.close(into)


def fill(pipe: int) -> None:
    """Writes until there is no room left."""
    flags = fcntl.fcntl(pipe, fcntl.F_GETFL)
    os.set_blocking(pipe, False)
    with suppress(BlockingIOError):
        while True:
            os.write(pipe, b"x")
    fcntl.fcntl(pipe, fcntl.F_SETFL, flags)
