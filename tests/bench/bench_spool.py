"""What the spool costs and gives: its speed, memory through an outage, catching up, and the SDK's exporter beside it.

Run: python -m tests.bench.bench_spool [SECONDS]; an outage of so many seconds, 60 if not said.
"""

from __future__ import annotations

import json
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otelbpf.config import OtlpGrpc, Retry
from otelbpf.config import Spool as Settings
from otelbpf.export import sender
from otelbpf.export.memory import decode_logs
from otelbpf.export.request import Request
from otelbpf.export.spool import Spool
from tests.bench.figure import Figure, table
from tests.bench.resources import cpu_s, memory
from tests.e2e.collector import free_ports
from tests.peers.otlp import log_request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otelbpf.export.sender import Sender

MB = 1e6
SPOOLED_BYTES = 200 * 10**6
RECORDS_S = 5000
TICKS_S = 10
"""The line sends what came in a tenth of a second."""
PADDING = 440
"""Makes a record as long as a usual one: 500 bytes."""
OUTAGE_S = 60
KILLS = 5


def fresh(model: Request) -> Request:
    """A copy with bytes of its own, as each real request has."""
    return model._replace(body=bytes(bytearray(model.body)), oldest_ns=time.time_ns())


def figures(outage_s: float = OUTAGE_S) -> Iterator[Figure]:
    """Every figure of this benchmark."""
    logging.disable()
    for size, together in ((5_000, 100), (250_000, 4), (2_500_000, 1)):
        yield speed(size, together)
    yield cost()
    yield from outage(outage_s)
    yield from sdk(outage_s)
    if os.geteuid() == 0:
        yield kill_window()


def speed(size: int, together: int) -> Figure:
    """Writes, reads and deletes; *together* requests in one transaction, as the keeper does."""
    one = Request("logs", os.urandom(size), 1, time.time_ns())
    rounds = SPOOLED_BYTES // size // together
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory, Spool(Path(directory), "a") as spool:
        began, cpu = time.perf_counter(), time.process_time()
        rows = [spool.write([one] * together) for _ in range(rounds)]
        written = time.perf_counter()
        for numbers in rows:
            for number in numbers:
                assert spool.read(number) is not None
            spool.write((), numbers)
        ended, used = time.perf_counter(), time.process_time() - cpu
    megabytes = rounds * together * size / MB
    return Figure(
        f"spool, requests of {size / 1000:,.0f} kB: write + read + delete",
        f"{megabytes / (ended - began):.0f} MB/s",
        "≥ 50 MB/s",
        f"write {megabytes / (written - began):.0f}, read and delete {megabytes / (ended - written):.0f} MB/s; "
        f"{used / megabytes * 1000:.1f} ms CPU/MB",
    )


def exporter(port: int, directory: str) -> Sender:
    retry = Retry(initial_interval=1, max_interval=5, max_elapsed_time=0)
    spool = Settings(directory=directory, max_size=8 * 2**30)
    return sender("peer", OtlpGrpc(endpoint=f"http://127.0.0.1:{port}", retry_on_failure=retry, spool=spool))


def cost() -> Figure:
    """CPU of a sender that is given 1 MB a second while its peer is away."""
    (port,) = free_ports(1)
    model = log_request(200, padding=PADDING)
    seconds = 20
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory, exporter(port, directory) as sending:
        sending.export(fresh(model))
        time.sleep(2)  # what is imported for the first request is not of interest
        cpu = time.process_time()
        given = 0
        for _ in range(seconds * TICKS_S):
            sending.export(fresh(model))
            given += len(model.body)
            time.sleep(1 / TICKS_S)
        used = time.process_time() - cpu
        assert sending.ledger()["logs"].balanced
    share = used / (given / MB)
    return Figure("write to the spool at 1 MB/s", f"{share * 100:.2f} % of a core", "≤ 2 %", "queue, spool and retries")


@contextmanager
def peer(port: int) -> Iterator[None]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.bench.sink", str(port)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


class Lags:
    """Watches acknowledgements: the longest wait of what was made after *since_ns*."""

    def __init__(self) -> None:
        self.since_ns = time.time_ns()
        self.longest_s = 0.0

    def acknowledged(self, _exporter: str, request: Request) -> None:
        now_ns = time.time_ns()
        if request.oldest_ns >= self.since_ns:
            self.longest_s = max(self.longest_s, (now_ns - request.oldest_ns) / 1e9)

    def down(self, *_: object) -> None: ...
    def up(self, *_: object) -> None: ...
    def lost(self, *_: object) -> None: ...


def outage(seconds: float) -> Iterator[Figure]:
    (port,) = free_ports(1)
    model = log_request(RECORDS_S // TICKS_S, padding=PADDING)
    lags = Lags()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory, exporter(port, directory) as sending:
        sending.watchers.append(lags)
        with peer(port):
            give(sending, model, 10)
        before = memory(os.getpid()).resident
        cpu = cpu_s(os.getpid())
        most = give(sending, model, seconds)
        used = cpu_s(os.getpid()) - cpu
        during = memory(os.getpid()).resident
        waiting = sending.ledger()["logs"].spooled
        with peer(port):
            while not sending.is_up:
                give(sending, model, 1 / TICKS_S)
            began, accepted = time.perf_counter(), sending.ledger()["logs"].accepted
            lags.since_ns, lags.longest_s = time.time_ns(), 0.0
            while sending.ledger()["logs"].spooled > RECORDS_S:
                give(sending, model, 1 / TICKS_S)
            taken_s = time.perf_counter() - began
            rate = (sending.ledger()["logs"].accepted - accepted) / taken_s
            sending.flush(time.monotonic() + 30)
        after = memory(os.getpid()).resident
        ledger = sending.ledger()["logs"]
    yield Figure(
        f"memory, collector away {seconds:.0f} s at {RECORDS_S:,} records/s",
        f"{(during - before) / MB:+.1f} MB",
        "± 5 MB",
        f"RSS {before / MB:.0f} → at most {most / MB:.0f} → {after / MB:.0f} MB after catching up; "
        f"{waiting:,} records on disk; {used / seconds * 100:.1f} % of a core",
    )
    yield Figure(
        "records lost in it",
        f"{ledger.made - ledger.accepted:,} of {ledger.made:,}",
        "0",
        "balanced" if ledger.balanced else "DOES NOT BALANCE",
    )
    yield Figure(
        "catch-up after it", f"{rate / RECORDS_S:.0f} times the live rate", "≥ 10 times", f"{taken_s:.1f} s in all"
    )
    yield Figure("longest lag of new records meanwhile", f"{lags.longest_s:.2f} s", "≤ 5 s")


def give(sending: Sender, model: Request, seconds: float) -> int:
    """Exports at the live rate; gives the largest resident memory seen."""
    due = time.monotonic()
    most = 0
    for tick in range(max(1, round(seconds * TICKS_S))):
        sending.export(fresh(model))
        if tick % TICKS_S == 0:
            most = max(most, memory(os.getpid()).resident)
        due += 1 / TICKS_S
        time.sleep(max(0.0, due - time.monotonic()))
    return most


def emit(logger: Any, seconds: float) -> int:
    """Emits through the SDK at the live rate; gives how many."""
    from opentelemetry._logs import LogRecord, SeverityNumber

    made = 0
    due = time.monotonic()
    for _ in range(int(seconds * TICKS_S)):
        for _ in range(RECORDS_S // TICKS_S):
            logger.emit(
                LogRecord(
                    timestamp=time.time_ns(),
                    severity_number=SeverityNumber.INFO,
                    body=f"record {made}" + "x" * PADDING,
                    event_name="otelbpf.tcp.connection.closed",
                )
            )
            made += 1
        due += 1 / TICKS_S
        time.sleep(max(0.0, due - time.monotonic()))
    return made


def sdk(seconds: float) -> Iterator[Figure]:
    """The same outage with BatchLogRecordProcessor and OTLPLogExporter, as they are set up by default."""
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

    (port,) = free_ports(1)
    exporting = OTLPLogExporter(endpoint=f"http://127.0.0.1:{port}", insecure=True)
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(BatchLogRecordProcessor(exporting))
    logger = provider.get_logger("bench")
    before = memory(os.getpid()).resident
    made = emit(logger, seconds)
    during = memory(os.getpid()).resident
    with subprocess.Popen(
        [sys.executable, "-m", "tests.bench.sink", str(port), "keep"], stdout=subprocess.PIPE, text=True
    ) as back:
        back.stdout.readline()
        time.sleep(15)  # more than the longest wait between two tries
        back.terminate()
        arrived = sum(json.loads(back.stdout.read())["kinds"].values())
    emit(logger, 5)
    began = time.monotonic()
    provider.shutdown()
    stopping_s = time.monotonic() - began
    yield Figure(
        "the SDK's processor and exporter in the same outage, the peer back after it",
        f"{made - arrived:,} of {made:,} records lost",
        "",
        f"{(during - before) / MB:+.1f} MB; {stopping_s:.1f} s to shut down in another outage",
    )
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory, exporter(port, directory) as sending:
        give(sending, log_request(RECORDS_S // TICKS_S, padding=PADDING), 5)
        began = time.monotonic()
        sending.flush(began + 5)
        ended_s = time.monotonic() - began
        ledger = sending.ledger()["logs"]
    yield Figure(
        "ours shut down, the peer still away",
        f"{ended_s:.2f} s",
        "≤ 5 s (shutdown_timeout)",
        f"{ledger.spooled:,} of {ledger.made:,} records on disk for the next start",
    )


def kill_window() -> Figure:
    """How old the newest event on disk is when the whole agent is killed, with programs started all the time."""
    from tests.e2e.agent import Agent

    ages = []
    for _ in range(KILLS):
        with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
            exporter = {"endpoint": "http://127.0.0.1:9", "spool": {"directory": f"{directory}/spool"}}
            settings = {"exporters": {"otlp_grpc": exporter}, "telemetry": {"enabled": False}}
            with Agent(Path(directory), settings) as agent:
                ended = time.monotonic() + 1 + random.random()
                while time.monotonic() < ended:
                    subprocess.run(["/bin/true"], check=True)
                agent.process.kill()
                killed_ns = time.time_ns()
                agent.process.wait()
            with Spool(Path(directory) / "spool", "otlp_grpc") as spool:
                bodies = [spool.read(row.id) for row in spool.rows("logs", 0, 10**6)]
            newest_ns = max(record.time_ns for body in bodies if body for record in decode_logs(body))
            ages.append((killed_ns - newest_ns) / 1e6)
    return Figure(
        "kill -9: age of the newest event on disk", f"at most {max(ages):.0f} ms", "≤ 200 ms", f"{KILLS} kills"
    )


if __name__ == "__main__":
    print(table(figures(*map(float, sys.argv[1:]))))
