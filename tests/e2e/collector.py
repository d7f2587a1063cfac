"""A real OpenTelemetry Collector: started with a generated configuration, read back as simple values.

What comes over gRPC and what comes over HTTP goes through pipelines of their own, so that both can be compared.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal, Self

from tests.e2e.otlp_json import Point, Record, points, records
from tests.e2e.polling import wait_for
from tests.peers.program import Program, free_ports

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from types import TracebackType

__all__ = ["Collector", "Protocol", "free_ports", "latest", "own", "write_at_once"]

Protocol = Literal["grpc", "http"]
PROTOCOLS: tuple[Protocol, ...] = ("grpc", "http")
OWN_SERVICE = "otelbpf"


class Collector:
    """A collector that writes to files below *directory*; runs between enter and exit.

    `stop` and `start` let it go away and come back at the same place, with what it has received kept. *change* alters
    its configuration. It runs in the network namespace of the thread that starts it.
    """

    def __init__(self, directory: Path, change: Callable[[dict[str, Any]], None] | None = None) -> None:
        self.directory = directory
        self._change = change or (lambda _configuration: None)
        self.ports: dict[str, int] = {}
        self.environment: dict[str, str] = {}

    def __enter__(self) -> Self:
        self.ports = dict(zip(("grpc", "http", "health"), free_ports(3), strict=True))
        self._file = self.directory / "collector.json"
        ready_url = f"http://127.0.0.1:{self.ports['health']}/"
        self._program = Program(
            "otelcol", ["--config", str(self._file)], self.directory, ready_url, environment=self.environment
        )
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def process(self) -> subprocess.Popen[bytes] | None:
        return self._program.process

    @property
    def grpc_endpoint(self) -> str:
        return f"http://127.0.0.1:{self.ports['grpc']}"

    @property
    def http_endpoint(self) -> str:
        return f"http://127.0.0.1:{self.ports['http']}"

    def exporters(self, *protocols: Protocol) -> dict[str, Any]:
        """The agent's `exporters` setting that reaches this collector over *protocols* (none: both)."""
        endpoints = {"grpc": self.grpc_endpoint, "http": self.http_endpoint}
        return {
            f"otlp_{name}": {"endpoint": endpoints[name], "tls": {"insecure": True}} for name in protocols or PROTOCOLS
        }

    def start(self) -> None:
        """Starts it and waits until its health check answers."""
        configuration = self._configuration()
        self._change(configuration)
        self._file.write_text(json.dumps(configuration))
        self._program.start()

    def stop(self) -> None:
        """Stops it by its process id and waits until everything it has received is written."""
        self._program.stop()

    def kill(self) -> None:
        """Lets it vanish: no flush, no answer to what is under way."""
        self._program.kill()

    def records(self, protocol: Protocol = "grpc") -> list[Record]:
        """The log records about what is observed that came over *protocol* until now."""
        return [
            record for request in self._requests("logs", protocol) for record in records(request) if not own(record)
        ]

    def points(self, protocol: Protocol = "grpc") -> list[Point]:
        """The data points about what is observed that came over *protocol* until now."""
        return [point for request in self._requests("metrics", protocol) for point in points(request) if not own(point)]

    def own_records(self, protocol: Protocol = "grpc") -> list[Record]:
        """What the agent logged about itself."""
        return [record for request in self._requests("logs", protocol) for record in records(request) if own(record)]

    def own_points(self, protocol: Protocol = "grpc") -> list[Point]:
        """What the agent measured of itself."""
        return [point for request in self._requests("metrics", protocol) for point in points(request) if own(point)]

    def wait_for_records(
        self, wanted: Callable[[Record], bool], count: int, protocol: Protocol = "grpc", limit_s: float = 20
    ) -> list[Record]:
        """The records that are *wanted*, as soon as there are *count* of them."""

        def found() -> list[Record]:
            matching = [record for record in self.records(protocol) if wanted(record)]
            return matching if len(matching) >= count else []

        return wait_for(found, f"{count} records over {protocol}", limit_s)

    def _requests(self, kind: str, protocol: str) -> Iterator[dict[str, Any]]:
        path = self.directory / f"{kind}-{protocol}.jsonl"
        if not path.exists():
            return
        with path.open("rb") as lines:
            for line in lines:
                if line.endswith(b"\n"):  # the last one may still be on its way
                    yield json.loads(line)

    def _configuration(self) -> dict[str, Any]:
        receivers, exporters, pipelines = {}, {}, {}
        for protocol in PROTOCOLS:
            listen = {"endpoint": f"127.0.0.1:{self.ports[protocol]}"}
            receivers[f"otlp/{protocol}"] = {"protocols": {protocol: listen}}
            for kind in ("logs", "metrics", "traces"):
                path = self.directory / f"{kind}-{protocol}.jsonl"
                exporters[f"file/{kind}-{protocol}"] = {"path": str(path), "append": True, "flush_interval": "200ms"}
                pipelines[f"{kind}/{protocol}"] = {
                    "receivers": [f"otlp/{protocol}"],
                    "exporters": [f"file/{kind}-{protocol}"],
                }
        return {
            "extensions": {"health_check": {"endpoint": f"127.0.0.1:{self.ports['health']}"}},
            "receivers": receivers,
            "exporters": exporters,
            "service": {
                "extensions": ["health_check"],
                "telemetry": {"metrics": {"level": "none"}, "logs": {"level": "warn"}},
                "pipelines": pipelines,
            },
        }


def write_at_once(configuration: dict[str, Any]) -> None:
    """A change by which an answer means that it is written: what rotates is not buffered."""
    for exporter in configuration["exporters"].values():
        del exporter["append"], exporter["flush_interval"]
        exporter["rotation"] = {"max_megabytes": 10_000}


def own(thing: Record | Point) -> bool:
    """Whether the agent speaks about itself."""
    return thing.resource.get("service.name") == OWN_SERVICE and "telemetry.sdk.name" in thing.resource


def latest(points_: Iterable[Point]) -> list[Point]:
    """The newest point of each series."""
    newest: dict[tuple[Any, ...], Point] = {}
    for point in points_:
        known = newest.get(point.series)
        if known is None or known.time_ns <= point.time_ns:
            newest[point.series] = point
    return list(newest.values())
