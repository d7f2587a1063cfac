"""The agent as the benchmarks run it: one exporter, to a sink; its logs on or off."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from tests.bench.sink import Sink, sink
from tests.e2e.agent import Agent

if TYPE_CHECKING:
    from collections.abc import Iterator

NO_LOGS = {"tcp_connection": "off", "dns_lookup": "off", "process": "off"}


@contextmanager
def agent(
    *words: str, logs: bool = True, keep: bool = False, settings: dict[str, Any] | None = None
) -> Iterator[tuple[Agent, Sink]]:
    """An agent with default settings (but for *settings*) that sends to a sink of its own."""
    with TemporaryDirectory(prefix="otelbpf-bench-") as directory, sink(*(["keep"] if keep else [])) as taker:
        given: dict[str, Any] = {"exporters": {"otlp_grpc": {"endpoint": taker.endpoint}}, **(settings or {})}
        if not logs:
            given["logs"] = NO_LOGS
        with Agent(Path(directory), given, *words) as running:
            yield running, taker


def settle(running: Agent) -> None:
    """Ends the agent, so that all it had to do is done and counted in its summary."""
    if running.stop():
        raise RuntimeError(f"the agent failed: {running.text}")
