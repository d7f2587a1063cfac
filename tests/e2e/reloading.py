"""An agent whose configuration changes while it runs: the file written, the signal sent, the answer awaited."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

from tests.e2e.polling import wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.agent import Agent

RELOADED = "otelbpf: configuration reloaded: "
RESTART = "otelbpf: restart needed for: "
REFUSED = "otelbpf: the configuration was not reloaded; the previous one stays in force"


def write(directory: Path, settings: dict[str, Any]) -> None:
    """The agent's file; several agents run side by side, so that none has the health endpoint."""
    (directory / "otelbpf.yaml").write_text(json.dumps({"health": {"endpoint": ""}, **settings}))


def answers(agent: Agent) -> list[str]:
    """What it has said of its reloads, one line each."""
    return [line for line in list(agent.lines) if line.startswith((RELOADED, RESTART)) or line == REFUSED]


def reload(agent: Agent, directory: Path, settings: dict[str, Any]) -> str:
    """Has *agent* take *settings*; gives what it says of it."""
    write(directory, settings)
    return ask(agent)


def ask(agent: Agent) -> str:
    """Sends the signal; gives what the agent says then."""
    before = len(answers(agent))
    agent.process.send_signal(signal.SIGHUP)
    return answer(agent, before)


def answer(agent: Agent, before: int) -> str:
    """The next answer after the first *before*, which may come by itself."""
    wait_for(lambda: len(answers(agent)) > before, "the reload")
    return answers(agent)[before].removeprefix(RELOADED)
