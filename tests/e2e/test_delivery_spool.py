"""The spool against what ends agents and disks: kill -9 at any moment, a full disk, an outage of a real collector."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from otelbpf.config import OtlpGrpc, OtlpHttp, Retry, SendingQueue, Spool
from otelbpf.export import keeper as keeping
from otelbpf.export import sender
from otelbpf.export.account import SignalLedger
from tests.e2e.collector import Collector
from tests.e2e.polling import wait_for
from tests.peers.otlp import log_request, metric_request, numbers
from tests.peers.scripted import HttpPeer

SOON = Retry(initial_interval=0.01, max_interval=0.05, max_elapsed_time=0)
KILLS = int(os.environ.get("OTELBPF_KILLS", "200"))
ROOT = Path(__file__).parents[2]
FOREVER = 1e9
"""Age of what the tests send: their records bear fixed times."""


def spooled(endpoint: str, directory: Path, **more) -> OtlpHttp:
    spool = Spool(directory=str(directory), max_age=FOREVER, **more)
    return OtlpHttp(endpoint=endpoint, retry_on_failure=SOON, spool=spool)


def killed(endpoint: str, directory: Path, first: int, after_s: float) -> list[int]:
    """Runs the writer and kills it; gives the numbers that it said were safe."""
    command = [sys.executable, "-m", "tests.peers.spool_writer", endpoint, str(directory), str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        told = [process.stdout.readline()]  # it is at work
        time.sleep(after_s)
        process.kill()
        told += process.stdout.readlines()
    return [int(line) for line in told if line.endswith(b"\n")]


def test_kill_at_any_moment(tmp_path):
    """Whatever was on disk or acknowledged arrives, none is damaged, and none twice but what was under way."""
    chance = random.Random(5)
    safe: set[int] = set()
    with HttpPeer() as peer:
        for number in range(KILLS):
            if chance.random() < 0.5:
                peer.__exit__()
                safe.update(killed(peer.endpoint, tmp_path, number * 10**6, chance.uniform(0, 0.15)))
                peer.__enter__()
            else:
                safe.update(killed(peer.endpoint, tmp_path, number * 10**6, chance.uniform(0, 0.15)))
        with sender("peer", spooled(peer.endpoint, tmp_path)) as last:
            wait_for(lambda: last.ledger().get("logs"), "what is on disk to be found")
            assert last.flush(time.monotonic() + 60)
    arrived = numbers(peer.bodies())
    assert safe <= set(arrived)
    assert not list((tmp_path / "peer").glob("*.corrupt"))
    # Twice: its answer came, or was on its way, when the agent was killed and the row was still there.
    assert len(arrived) - len(set(arrived)) <= 100 * KILLS
    print(f"{KILLS} kills: {len(safe)} safe, {len(arrived)} arrived, {len(arrived) - len(set(arrived))} twice")


@contextmanager
def small_disk(directory: Path, size: str):
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", directory], check=True)


def test_a_full_disk(tmp_path, caplog, monkeypatch):
    """What fits waits on disk, the rest in memory, which is said; when the peer is back all of it arrives."""
    monkeypatch.setattr(keeping, "RETRY_S", 0.2)
    with small_disk(tmp_path / "disk", "20m") as disk, HttpPeer() as peer:
        peer.__exit__()
        with sender("peer", spooled(peer.endpoint, disk)) as sending:
            for number in range(300):
                sending.export(log_request(1, number, padding=100_000))
            wait_for(lambda: "the disk is full" in caplog.text, "the full disk to be said")
            ledger = sending.ledger()["logs"]
            assert ledger.balanced
            assert ledger.spooled > 100
            assert ledger.queued > 50
            assert not ledger.dropped
            peer.__enter__()
            wait_for(lambda: sending.ledger()["logs"].accepted == 300, "all of it to arrive")
            assert sending.flush(time.monotonic() + 30)
        assert sorted(numbers(peer.bodies())) == list(range(300))
        assert sending.ledger()["logs"] == SignalLedger(300, 300, 0, {}, 0)
        assert sum("in memory only" in message for message in caplog.messages) <= 2


def test_others_fill_the_disk(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(keeping, "RETRY_S", 0.2)
    with small_disk(tmp_path / "disk", "40m") as disk, HttpPeer() as peer:
        peer.__exit__()
        with sender("peer", spooled(peer.endpoint, disk)) as sending:
            for number in range(100):
                sending.export(log_request(1, number, padding=100_000))
            wait_for(lambda: sending.ledger()["logs"].spooled == 100, "the disk")
            with (disk / "other").open("wb") as other:
                try:
                    while True:
                        other.write(bytes(65536))
                        other.flush()
                except OSError:
                    pass
            for number in range(100, 200):
                sending.export(log_request(1, number, padding=100_000))
            peer.__enter__()
            wait_for(lambda: sending.ledger()["logs"].accepted == 200, "all of it to arrive")
            sending.flush(time.monotonic() + 30)
        assert sorted(numbers(peer.bodies())) == list(range(200))
        assert sending.ledger()["logs"].balanced


def test_exporters_have_spools_of_their_own(tmp_path):
    with HttpPeer() as well, HttpPeer() as away:
        away.__exit__()
        with sender("a", spooled(well.endpoint, tmp_path)) as one, sender("b", spooled(away.endpoint, tmp_path)) as two:
            for number in range(50):
                one.export(log_request(2, 2 * number))
                two.export(log_request(2, 2 * number))
            assert one.flush(time.monotonic() + 30)
            two.flush(time.monotonic() + 5)
    assert one.ledger()["logs"] == SignalLedger(100, 100, 0, {}, 0)
    assert two.ledger()["logs"] == SignalLedger(100, 0, 0, {}, 0, spooled=100)


@pytest.mark.parametrize("consumers", [1, 4])
def test_a_collector_that_is_away_and_comes_back(tmp_path, consumers):
    """Everything that was made meanwhile arrives, once, each in its order."""
    (tmp_path / "collector").mkdir()
    with Collector(tmp_path / "collector") as collector:
        settings = OtlpGrpc(
            endpoint=collector.grpc_endpoint,
            retry_on_failure=SOON,
            spool=Spool(directory=str(tmp_path / "spool"), max_age=FOREVER),
            sending_queue=SendingQueue(num_consumers=consumers),
        )
        with sender("peer", settings) as sending:
            sending.export(log_request(100))
            wait_for(lambda: sending.ledger()["logs"].accepted == 100, "the first records")
            collector.stop()
            for number in range(1, 300):
                sending.export(log_request(100, 100 * number, padding=200))
                sending.export(metric_request(10))
            wait_for(lambda: sending.ledger()["logs"].queued == 0, "all of it on disk")
            assert sending.sizes()["logs"].size_bytes < 2**22
            collector.start()
            wait_for(lambda: sending.ledger()["logs"].accepted == 30_000, "the backlog", 60)
            assert sending.flush(time.monotonic() + 60)
        assert sending.ledger()["logs"] == SignalLedger(30_000, 30_000, 0, {}, 0)
        assert sending.ledger()["metrics"] == SignalLedger(2990, 2990, 0, {}, 0)
        collector.stop()
        arrived = [int(record.body.split()[1]) for record in collector.records("grpc")]
        assert sorted(arrived) == list(range(30_000))
        assert len(collector.points("grpc")) == 2990


def test_a_collector_that_is_stopped_does_not_hold_the_end(tmp_path):
    """SIGSTOP: connections are taken, nothing is answered. What waits is there for the next run."""
    (tmp_path / "collector").mkdir()
    with Collector(tmp_path / "collector") as collector:
        spool = Spool(directory=str(tmp_path / "spool"), max_age=FOREVER)
        settings = OtlpGrpc(endpoint=collector.grpc_endpoint, retry_on_failure=SOON, spool=spool)
        collector.process.send_signal(19)
        with sender("peer", settings) as sending:
            for number in range(50):
                sending.export(log_request(10, 10 * number))
            began = time.monotonic()
            sending.flush(began + 1)
        assert time.monotonic() - began < 30
        assert sending.ledger()["logs"] == SignalLedger(500, 0, 0, {}, 0, spooled=500)
        collector.process.send_signal(18)
        with sender("peer", settings) as again:
            wait_for(lambda: again.ledger().get("logs"), "what is on disk to be found")
            assert again.flush(time.monotonic() + 30)
        assert again.ledger()["logs"] == SignalLedger(0, 500, 0, {}, 0, recovered=500)
        collector.stop()
        arrived = [int(record.body.split()[1]) for record in collector.records("grpc")]
        assert set(arrived) == set(range(500))
