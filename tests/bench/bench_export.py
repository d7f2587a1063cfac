"""What sending costs: CPU a megabyte over gRPC and HTTP, a put into the queue, a line on the console.

Run: python -m tests.bench.bench_export
CPU time of this process alone; the peers run in processes of their own and look at nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from otelbpf.config import OtlpGrpc, OtlpHttp, Retry, SendingQueue
from otelbpf.export import sender
from otelbpf.export.console import ConsoleTransport, Lines
from otelbpf.export.queue import Queue
from otelbpf.export.sender import Sender
from tests.bench.figure import Figure, table
from tests.bench.sink import sink
from tests.e2e.collector import free_ports
from tests.peers.otlp import log_request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from otelbpf.export.request import Request

SENT_BYTES = 100 * 2**20
PASSES = 3
SIZES = {"2 MB": 4000, "64 kB": 128}
"""Records of 500 bytes each."""


def requests(records: int) -> list[Request]:
    one = log_request(records, padding=440)
    return [one] * (SENT_BYTES // len(one.body))


def sending_s(settings: OtlpGrpc | OtlpHttp, made: list[Request]) -> float:
    """CPU seconds to send *made*, from the first put to the last answer."""
    with sender("peer", settings) as peer:
        peer.export(log_request(1))
        settled(peer.ledger)
        began = time.process_time()
        for request in made:
            while peer.sizes()["logs"].size_bytes > 2**24:
                time.sleep(0.001)
            peer.export(request)
        if not peer.flush(time.monotonic() + 120):
            raise RuntimeError(f"the peer did not take everything: {peer.ledger()}")
        return time.process_time() - began


def settled(ledger: Callable[[], dict]) -> None:
    """Waits for the first answer, so that imports and the connection are not measured."""
    while ledger()["logs"].queued:
        time.sleep(0.01)


def figures() -> Iterator[Figure]:
    """Every figure of this benchmark."""
    with sink() as peer, http_sink() as endpoint:
        yield from sending("gRPC", lambda compression: OtlpGrpc(endpoint=peer.endpoint, compression=compression))
        yield from sending("HTTP", lambda compression: OtlpHttp(endpoint=endpoint, compression=compression))
    yield put_cost()
    yield from console_cost()


def sending(protocol: str, settings: Callable[[str], OtlpGrpc | OtlpHttp]) -> Iterator[Figure]:
    for size, records in SIZES.items():
        made = requests(records)
        megabytes = sum(len(request.body) for request in made) / 1e6
        for compression in ("none", "gzip"):
            taken = min(sending_s(settings(compression), made) for _ in range(PASSES))
            yield Figure(
                f"send over {protocol}, {size} a request, {compression}",
                f"{taken / megabytes * 1000:.2f} ms CPU/MB",
                note=f"{taken / len(made) * 1e6:.0f} µs a request",
            )


def put_cost() -> Figure:
    queue = Queue(2**25)
    one = log_request(10)
    count = 100_000
    began = time.process_time()
    for _ in range(count):
        queue.put(one)
    taken = time.process_time() - began
    return Figure("put a request into a full queue", f"{taken / count * 1e6:.2f} µs CPU", note="the oldest is dropped")


def console_cost() -> Iterator[Figure]:
    made = log_request(1000, padding=60)
    passes = 20
    for colour in (False, True):
        lines = Lines(colour=colour)
        began = time.process_time()
        for _ in range(passes):
            "".join(lines.of(made.body))
        taken = (time.process_time() - began) / passes / 1000
        yield Figure(
            f"a line on the console{', coloured' if colour else ''}", f"{taken * 1e6:.2f} µs CPU", "≤ 500 µs (2,000/s)"
        )
    with open(os.devnull, "wb") as null:  # noqa: PTH123 - a descriptor is wanted
        console = Sender("console", ConsoleTransport(fd=null.fileno()), Retry(), SendingQueue(), ("logs",))
        with console:
            began = time.perf_counter()
            for _ in range(passes):
                console.export(made)
            console.flush(time.monotonic() + 60)
            rate = passes * 1000 / (time.perf_counter() - began)
        yield Figure("lines a second, through queue and thread", f"{rate:,.0f}/s", "≥ 2,000/s")


@contextmanager
def http_sink() -> Iterator[str]:
    """An HTTP peer in a process of its own; gives its endpoint."""
    (port,) = free_ports(1)
    process = subprocess.Popen([sys.executable, "-m", "tests.bench.bench_export", str(port)], stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


class _Taker(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


def serve(port: int) -> None:
    with ThreadingHTTPServer(("127.0.0.1", port), _Taker) as server:
        print("ready", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve(int(sys.argv[1]))
    else:
        print(table(figures()))
