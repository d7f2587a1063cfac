"""An exporter in a process of its own that is given numbered records at a steady rate, while a test causes faults.

`Sending` runs it: in a network namespace, with other variables, killed, whatever only a process can be put through.
Both signals are numbered, and what was in an attempt that failed is noted, so that a test can say of each record that
it came, that it came twice and why, or which term of the ledger it is in.

Run: python -m tests.peers.sending PLAN, a JSON file; then `status`, `pause`, `give` or `finish SECONDS` on stdin, each
answered with a line of JSON.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from otelbpf.config import OtlpGrpc, OtlpHttp
from otelbpf.export.answer import Failure
from otelbpf.export.memory import decode_metrics
from otelbpf.export.otlp_grpc import GrpcTransport
from otelbpf.export.otlp_http import HttpTransport
from otelbpf.export.sender import Sender
from tests.e2e.polling import wait_for
from tests.peers.otlp import log_request, metric_request, numbers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from otelbpf.export.answer import Answer
    from otelbpf.export.request import Request
    from otelbpf.export.transport import Transport
    from tests.peers.scripted import Peer

ROOT = Path(__file__).parents[2]
KINDS = {"otlp_grpc": OtlpGrpc, "otlp_http": OtlpHttp}
SOON = {"initial_interval": 0.02, "max_interval": 0.2, "max_elapsed_time": 0}
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Plan:
    """What the process does."""

    kind: str
    settings: dict[str, Any]
    requests_s: float = 50
    items: int = 20
    """Records of each request, and points of each."""
    padding: int = 200
    """Bytes that each record is longer."""
    first: int = 0


@dataclass(frozen=True)
class Terms:
    """A SignalLedger, as JSON can carry it."""

    made: int
    accepted: int
    rejected: int
    dropped: dict[str, int]
    queued: int
    spooled: int
    recovered: int
    balanced: bool


@dataclass(frozen=True)
class Status:
    """What the process knows of itself."""

    made: int
    """Records from the plan's first on, and as many points."""
    ledger: dict[str, Terms]
    largest_bytes: dict[str, int]
    """The most that a queue has held, by signal."""
    resident_bytes: int
    up: bool
    failed: dict[str, list[int]]
    """The numbers of what was in an attempt that failed, by signal; one that failed twice is there twice."""
    codes: dict[str, int]
    """How often an attempt ended in which way."""
    took_s: float = 0.0
    """To finish."""


@dataclass
class Attempts:
    """A transport that passes everything on and notes what failed."""

    inner: Transport
    failed: dict[str, list[int]] = field(default_factory=lambda: {"logs": [], "metrics": []})
    codes: dict[str, int] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __enter__(self) -> Self:
        self.inner.__enter__()
        return self

    def __exit__(self, *of: object) -> None:
        self.inner.__exit__(*of)

    def send(self, request: Request, timeout_s: float) -> Answer:
        answer = self.inner.send(request, timeout_s)
        code = answer.code if isinstance(answer, Failure) else "OK"
        self.codes[code] = self.codes.get(code, 0) + 1
        if isinstance(answer, Failure):
            self.failed[request.signal] += numbers_of(request.signal, request.body)
        return answer


def numbers_of(signal: str, body: bytes) -> list[int]:
    """The numbers of the records, or the points, in an encoded request."""
    return numbers([body]) if signal == "logs" else [int(point.value) for point in decode_metrics(body)]


def arrived(*peers: Peer) -> dict[str, list[int]]:
    """What *peers* took of each signal, by its numbers: one peer after the other, each in order of arrival."""
    return {
        signal: [number for peer in peers for body in peer.bodies(signal) for number in numbers_of(signal, body)]
        for signal in ("logs", "metrics")
    }


class Producer:
    """Gives numbered requests of both signals at a steady rate, in a thread of its own."""

    def __init__(self, sending: Sender, plan: Plan) -> None:
        self._sending = sending
        self._plan = plan
        self.made = 0
        self.largest_bytes: dict[str, int] = {}
        self._giving = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._giving.set()
        self._thread.start()

    def pause(self) -> None:
        self._giving.clear()

    def give(self) -> None:
        self._giving.set()

    def end(self) -> None:
        self._ended = True
        self._giving.set()
        self._thread.join()

    def _run(self) -> None:
        plan = self._plan
        while self._giving.wait() and not self._ended:
            number = plan.first + self.made
            for request in (
                log_request(plan.items, number, padding=plan.padding),
                metric_request(plan.items, number),
            ):
                self._sending.export(request._replace(oldest_ns=time.time_ns()))
            self.made += plan.items
            for signal, size in self._sending.sizes().items():
                self.largest_bytes[signal] = max(size.size_bytes, self.largest_bytes.get(signal, 0))
            time.sleep(1 / plan.requests_s)


class Sending:
    """The process, running while entered, in the network namespace of the thread that enters it.

    *within* is a command that runs another one somewhere, *environment* what is added to our own.
    """

    def __init__(
        self, directory: Path, plan: Plan, within: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> None:
        self._directory = directory
        self._plan = plan
        self._within = within
        self._environment = environment or {}

    def __enter__(self) -> Self:
        plan = self._directory / "plan.json"
        plan.write_text(json.dumps(asdict(self._plan)))
        with (self._directory / "sending.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self._within, sys.executable, "-m", "tests.peers.sending", str(plan)],
                cwd=ROOT,
                env=os.environ | self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout
        self.process.stdout.readline()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def said(self) -> list[str]:
        """What it has said to its user."""
        return (self._directory / "sending.log").read_text().splitlines()

    def status(self) -> Status:
        return self._asked("status")

    def pause(self) -> None:
        self._asked("pause")

    def give(self) -> None:
        self._asked("give")

    def finish(self, within_s: float) -> Status:
        """No more is made; sends what there is, *within_s* seconds at most, and ends."""
        status = self._asked(f"finish {within_s}")
        self.process.wait(60)
        return status

    def kill(self) -> None:
        with ExitStack() as closed:
            closed.enter_context(self.process)
            self.process.kill()

    def wait_for_accepted(self, count: int, limit_s: float = 30) -> Status:
        """The status when so many records, and points, were accepted."""

        def enough() -> Status | None:
            status = self.status()
            accepted = [status.ledger[signal].accepted for signal in ("logs", "metrics") if signal in status.ledger]
            return status if len(accepted) == 2 and min(accepted) >= count else None

        return wait_for(enough, f"{count} of each to be accepted", limit_s)

    def wait_for_made(self, count: int, limit_s: float = 20) -> Status:
        return wait_for(
            lambda: status if (status := self.status()).made >= count else None, f"{count} to be made", limit_s
        )

    def wait_until_down(self) -> None:
        wait_for(lambda: not self.status().up, "the fault to be noticed")

    def _asked(self, command: str) -> Status:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return msgspec.json.decode(self.process.stdout.readline(), type=Status)


def main() -> None:
    plan = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Plan)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    settings = msgspec.convert({"type": plan.kind, "retry_on_failure": SOON, **plan.settings}, KINDS[plan.kind])
    transport = GrpcTransport if plan.kind == "otlp_grpc" else HttpTransport
    attempts = Attempts(transport("peer", settings))
    sending = Sender(
        "peer", attempts, settings.retry_on_failure, settings.sending_queue, settings.signals, settings.spool
    )
    producer = Producer(sending, plan)

    def told(took_s: float = 0.0) -> None:
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES
        status = Status(
            producer.made,
            {name: Terms(**asdict(one), balanced=one.balanced) for name, one in sending.ledger().items()},
            producer.largest_bytes,
            resident,
            sending.is_up,
            attempts.failed,
            attempts.codes,
            took_s,
        )
        print(msgspec.json.encode(status).decode(), flush=True)

    with sending:
        producer.start()
        print("at work", flush=True)
        for line in sys.stdin:
            command, *words = line.split()
            if command == "finish":
                producer.end()
                began = time.monotonic()
                sending.flush(began + float(words[0]))
                told(time.monotonic() - began)
                return
            if command != "status":
                getattr(producer, command)()
            told()


if __name__ == "__main__":
    main()
