"""A cheap OTLP/gRPC peer in a process of its own: it counts requests, and keeps them when asked, to look at later.

Run: python -m tests.bench.sink PORT [keep]. Prints "ready"; after SIGTERM one JSON line: requests, bytes and, when it
kept them, how many records there were of each (event, class of the question's name, answer code).
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.e2e.collector import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

LOGS = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0))


class Sink:
    """A running sink: where it listens, and what it counted once its block has ended."""

    def __init__(self, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self.counted: dict[str, Any] = {}


@contextmanager
def sink(*words: str) -> Iterator[Sink]:
    """A sink in a process of its own, so that its CPU is not the agent's."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "tests.bench.sink", str(port), *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    running = Sink(port)
    try:
        process.stdout.readline()
        yield running
    finally:
        process.terminate()
        running.counted = json.loads(process.stdout.read() or "{}")
        process.wait()


def kinds(requests: list[bytes]) -> Counter[str]:
    """How many records there are of each kind in the log requests."""
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    counts: Counter[str] = Counter()
    for body in requests:
        for of_resource in ExportLogsServiceRequest.FromString(body).resource_logs:
            for of_scope in of_resource.scope_logs:
                counts.update(map(kind, of_scope.log_records))
    return counts


def kind(record: Any) -> str:
    """Event, first letter of the question's name, answer code."""
    wanted = {"dns.question.name": "", "otelbpf.dns.response.code": ""}
    for attribute in record.attributes:
        if attribute.key in wanted:
            wanted[attribute.key] = attribute.value.string_value
    return f"{record.event_name} {wanted['dns.question.name'][:1]} {wanted['otelbpf.dns.response.code']}".strip()


def serve(port: int, keep: bool) -> None:
    """Takes everything until SIGTERM."""
    import grpc

    counted = {"requests": 0, "bytes": 0}
    kept: list[bytes] = []

    class Taker(grpc.GenericRpcHandler):
        def service(self, call: Any) -> Any:
            def take(request: bytes, _context: object) -> bytes:
                counted["requests"] += 1
                counted["bytes"] += len(request)
                if keep and call.method == LOGS:
                    kept.append(request)
                return b""

            return grpc.unary_unary_rpc_method_handler(take)

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    server = grpc.server(ThreadPoolExecutor(2), handlers=[Taker()], options=UNLIMITED)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    print("ready", flush=True)
    signal.sigwait({signal.SIGTERM})
    server.stop(1).wait()
    print(json.dumps({**counted, "kinds": kinds(kept)}))


if __name__ == "__main__":
    serve(int(sys.argv[1]), "keep" in sys.argv[2:])
