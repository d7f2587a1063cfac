"""The agent as a process: started from a configuration, stopped by its process id, its summary read."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.e2e.polling import wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

ROOT = Path(__file__).parents[2]
START_LIMIT_S = 30
STOP_LIMIT_S = 20
ROW = re.compile(r"^(?P<title>\S.*?)\s{2,}(?P<numbers>\d+(?:\s+\d+)*)\s*(?P<verdict>.*)$")
REASON = re.compile(r"(\w+) (\d+)")


@dataclass(frozen=True)
class Row:
    """One line of the ledger: its terms by name, its verdict, and the reasons of what was lost or dropped."""

    terms: dict[str, int]
    balanced: bool
    reasons: dict[str, int]


@dataclass(frozen=True)
class Summary:
    """The ledgers as `run` prints them: by probe, and by (exporter, signal)."""

    events: dict[str, Row]
    records: dict[tuple[str, str], Row]
    due: dict[str, Row] = field(default_factory=dict)
    """By probe; where records were shed."""


def parse_summary(lines: Sequence[str]) -> Summary:
    """Reads the table that begins with `summary:`; a line that is no row of it is skipped."""
    events: dict[str, Row] = {}
    due: dict[str, Row] = {}
    records: dict[tuple[str, str], Row] = {}
    names: list[str] = []
    section = ""
    start = next((i for i, line in enumerate(lines) if line.startswith("summary:")), None)
    if start is None:
        raise ValueError(f"no summary in: {lines}")
    for line in lines[start + 1 :]:
        words = line.split()
        if words and words[0] in ("events", "due", "records"):
            section, *names = words
        elif match := ROW.match(line):
            row = parse_row(names, match)
            if section == "events":
                events[match["title"]] = row
            elif section == "due":
                due[match["title"].removesuffix(" logs")] = row
            else:
                exporter, _, kind = match["title"].rpartition(" ")
                records[exporter, kind] = row
    return Summary(events, records, due)


def parse_row(names: Sequence[str], match: re.Match[str]) -> Row:
    """One row of the table."""
    terms = dict(zip(names, map(int, match["numbers"].split()), strict=True))
    reasons = {name: int(count) for name, count in REASON.findall(match["verdict"])}
    return Row(terms, match["verdict"].startswith("balanced"), reasons)


class Agent:
    """An agent with *settings* (as the configuration file has them), running while entered.

    It is an instance of its own, so that tests do not need a node without an agent.
    """

    def __init__(
        self,
        directory: Path,
        settings: Mapping[str, Any],
        *words: str,
        command: str = "run",
        inside: Sequence[str] = (),
        output: int = subprocess.DEVNULL,
    ) -> None:
        """*inside*: words that run the words behind them somewhere else. *output*: the descriptor of its stdout."""
        self.lines: list[str] = []
        self._directory = directory
        self._output = output
        self._settings = {"health": {"endpoint": ""}, **settings}  # several agents run side by side
        self._command = [
            *inside,
            sys.executable,
            "-m",
            "otelbpf",
            command,
            "-c",
            str(directory / "otelbpf.yaml"),
            *words,
        ]
        self._instance = {"OTELBPF_INSTANCE": str(directory)}

    def __enter__(self) -> Self:
        (self._directory / "otelbpf.yaml").write_text(json.dumps(self._settings))
        self.process = subprocess.Popen(
            self._command,
            cwd=ROOT,
            env=os.environ | self._instance,
            stdout=self._output,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        try:
            wait_for(self._is_ready, "the agent's ready line", START_LIMIT_S)
        except BaseException:
            self.process.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def ready(self) -> bool:
        return any(line.startswith("ready") for line in self.lines)

    @property
    def text(self) -> str:
        """All that it has written on stderr."""
        return "\n".join(self.lines)

    @property
    def summary(self) -> Summary:
        return parse_summary(self.lines)

    def stop(self) -> int:
        """Asks it to end and waits; returns its exit code. May be called twice."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self._reader.join()
        return self.process.returncode

    def _is_ready(self) -> bool:
        if self.process.poll() is not None:
            self._reader.join()
            raise RuntimeError(f"the agent ended with {self.process.returncode}: {self.text}")
        return self.ready

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))


def otelbpf(*words: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a command of the agent to its end; the agent of this node, unless *environment* says another."""
    return subprocess.run(
        [sys.executable, "-m", "otelbpf", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **(environment or {})},
    )
