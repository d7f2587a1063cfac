"""One guest's work: `otelbpf check`, then an agent that watches the scenes. Everything known of them goes to stdout."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.kernels.guest import scenes, sink

CONFIGURATION = Path("/run/otelbpf.json")
SETTINGS = {
    "exporters": {"otlp_http": {"endpoint": f"http://127.0.0.1:{sink.PORT}"}},
    "filters": {"ports": {"exclude": [sink.PORT, scenes.FILTERED_PORT]}},
    "probes": {"tcp_connection": {"throttle": {"rate": 10, "burst": 100}}},
    "metrics": {"interval": "5s"},
    "telemetry": {"enabled": False},
    "health": {"endpoint": ""},
}
OTELBPF = (sys.executable, "-m", "otelbpf")


def check() -> dict[str, Any]:
    """What `otelbpf check` reports, with its exit code."""
    done = subprocess.run([*OTELBPF, "check", "--json"], capture_output=True, text=True, check=False)
    return {"exit_code": done.returncode, "report": json.loads(done.stdout or "null"), "errors": done.stderr}


def watched() -> dict[str, Any]:
    """What happened, what the sink got of it, and what the agent said."""
    CONFIGURATION.write_text(json.dumps(SETTINGS))
    with sink.Sink() as receiver:
        with subprocess.Popen([*OTELBPF, "run", "-c", CONFIGURATION], stderr=subprocess.PIPE, text=True) as agent:
            assert agent.stderr is not None
            said = []
            for line in agent.stderr:
                said.append(line)
                if line.startswith("ready"):
                    break
            truth = scenes.all_scenes() if agent.poll() is None else {}
            agent.send_signal(signal.SIGTERM)
            said += agent.stderr
        return {"truth": truth, "said": "".join(said), "exit_code": agent.returncode, **receiver.told()}


print(json.dumps({"check": check(), "agent": watched()}))
