"""A sender with a spool: what is on disk, in which order it leaves, and what becomes of it when the disk is no help."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager

import pytest

from otelbpf.config import Retry, SendingQueue
from otelbpf.config import Spool as Settings
from otelbpf.export import keeper as keeping
from otelbpf.export.account import SignalLedger
from otelbpf.export.answer import Accepted, Failure
from otelbpf.export.sender import Sender
from otelbpf.export.spool import ASIDE, Spool
from tests.peers.otlp import log_request, metric_request, numbers

MIB = 2**20
AWAY = Failure("HTTP 503", "", retryable=True)
SOON = Retry(initial_interval=0.001, max_interval=0.002, max_elapsed_time=0)


class Peer:
    """A transport whose peer is away until `back` is set; keeps what it took."""

    component = "test"
    timeout_s = 30.0
    endpoint = None

    def __init__(self) -> None:
        self.back = threading.Event()
        self.took = []

    def check(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def close(self):
        pass

    def send(self, request, timeout_s):
        if not self.back.is_set():
            return AWAY
        self.took.append(request)
        return Accepted()

    def numbers(self):
        return numbers([request.body for request in self.took if request.signal == "logs"])


def settings(tmp_path, **more):
    return Settings(directory=str(tmp_path / "spool"), **({"max_age": 1e9} | more))  # the records bear fixed times


@contextmanager
def sender(tmp_path, peer, queue=None, **more):
    queue = queue or SendingQueue()
    with Sender("peer", peer, SOON, queue, ("logs", "metrics"), settings(tmp_path, **more)) as running:
        yield running


def until(condition):
    """Waits for *condition*; the test's own time limit is the only one."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it does not come true"
        time.sleep(0.002)


def answers_again(running):
    """A flush that meets the last answer of an outage leaves the rest on disk, as it should."""
    return any(entry.accepted for entry in running.ledger().values())


def on_disk(tmp_path):
    with Spool(tmp_path / "spool", "peer") as spool:
        return {signal: kept.items for signal, kept in spool.kept().items()}


def test_what_waits_is_on_disk_and_found_by_the_next_run(tmp_path):
    peer = Peer()
    with sender(tmp_path, peer) as first:
        for number in range(10):
            first.export(log_request(5, 5 * number))
        until(lambda: first.ledger()["logs"].spooled == 50)
        assert first.ledger()["logs"] == SignalLedger(50, 0, 0, {}, 0, spooled=50)
        assert not first.flush(time.monotonic() + 30)
    assert first.ledger()["logs"] == SignalLedger(50, 0, 0, {}, 0, spooled=50)
    assert on_disk(tmp_path) == {"logs": 50}
    peer.back.set()
    with sender(tmp_path, peer) as second:
        until(lambda: peer.numbers() == list(range(50)))
        assert second.flush(time.monotonic() + 30)
    assert second.ledger()["logs"] == SignalLedger(0, 50, 0, {}, 0, recovered=50)
    assert on_disk(tmp_path) == {}


def test_what_was_not_yet_written_at_the_end_is_written_then(tmp_path):
    with sender(tmp_path, Peer()) as running:
        running.export(log_request(5))
        running.flush(time.monotonic() + 30)
    assert running.ledger()["logs"] == SignalLedger(5, 0, 0, {}, 0, spooled=5)
    assert on_disk(tmp_path) == {"logs": 5}


def test_an_end_without_a_peer_does_not_use_up_the_time(tmp_path):
    with sender(tmp_path, Peer()) as running:
        running.export(log_request(5))
        until(lambda: running.ledger()["logs"].spooled)
        began = time.monotonic()
        running.flush(began + 3600)
    assert time.monotonic() - began < 3000


def test_memory_stays_flat_during_an_outage(tmp_path):
    peer = Peer()
    with sender(tmp_path, peer) as running:
        for number in range(100):
            running.export(log_request(10, 10 * number, padding=50_000))
            if number % 20 == 19:
                until(lambda: running.ledger()["logs"].queued == 0)
        until(lambda: running.sizes()["logs"].size_bytes <= 2 * MIB)
        assert running.ledger()["logs"].spooled == 1000
        peer.back.set()
        until(lambda: answers_again(running))
        assert running.flush(time.monotonic() + 60)
    assert sorted(peer.numbers()) == list(range(1000))
    assert running.ledger()["logs"] == SignalLedger(1000, 1000, 0, {}, 0)


def test_new_logs_go_before_the_backlog_and_each_keeps_its_order(tmp_path):
    peer = Peer()
    with sender(tmp_path, peer) as running:
        for number in range(60):
            running.export(log_request(1, number, padding=100_000))
        until(lambda: running.ledger()["logs"].queued == 0)
        peer.back.set()
        until(lambda: answers_again(running))
        assert running.flush(time.monotonic() + 60)
    took = peer.numbers()
    assert sorted(took) == list(range(60))
    newest = [number for number in took if number >= 52]
    backlog = [number for number in took if 0 < number < 45]
    assert newest == sorted(newest)
    assert backlog == sorted(backlog)
    assert took.index(59) < took.index(44)


def test_metrics_keep_their_order(tmp_path):
    peer = Peer()
    with sender(tmp_path, peer) as running:
        for number in range(60):
            running.export(metric_request(500)._replace(oldest_ns=number))
        until(lambda: running.ledger()["metrics"].queued == 0)
        peer.back.set()
        until(lambda: answers_again(running))
        assert running.flush(time.monotonic() + 60)
    assert [request.oldest_ns for request in peer.took] == list(range(60))


def test_the_oldest_goes_when_there_is_no_room(tmp_path):
    peer = Peer()
    with sender(tmp_path, peer, max_size=16 * MIB) as running:
        running.export(metric_request(10))
        for number in range(60):
            running.export(log_request(1, number, padding=MIB // 2))
            until(lambda: running.ledger()["logs"].queued == 0)
        until(lambda: running.ledger()["logs"].dropped)
        assert running.spool_size().size_bytes <= 16 * MIB
        peer.back.set()
        until(lambda: answers_again(running))
        assert running.flush(time.monotonic() + 60)
    ledger = running.ledger()["logs"]
    assert ledger.balanced
    assert ledger.dropped == {"spool_full": 60 - ledger.accepted}
    assert ledger.accepted > 20
    # the first was being tried all the time
    assert sorted(peer.numbers())[1:] == list(range(61 - ledger.accepted, 60))
    assert running.ledger()["metrics"].accepted == 10


def test_what_is_too_old_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(keeping, "IDLE_S", 0.01)
    with sender(tmp_path, Peer(), max_age=3600) as running:
        for number in range(60):
            running.export(log_request(1, number, padding=100_000)._replace(oldest_ns=1))
        until(lambda: running.ledger()["logs"].dropped.get("spool_expired", 0) > 40)
        assert running.ledger()["logs"].balanced


def test_a_damaged_file_is_set_aside_and_said(tmp_path, caplog):
    peer = Peer()
    directory = tmp_path / "spool" / "peer"
    directory.mkdir(parents=True)
    (directory / "spool.db").write_bytes(b"nonsense" * 10_000)
    with sender(tmp_path, peer) as running:
        running.export(log_request(5))
        until(lambda: running.ledger()["logs"].spooled == 5)
        running.flush(time.monotonic() + 30)
    assert (directory / ("spool.db" + ASIDE)).read_bytes() == b"nonsense" * 10_000
    assert "set aside" in caplog.text


def test_a_file_that_is_damaged_under_way(tmp_path, caplog):
    peer = Peer()
    with sender(tmp_path, peer) as running:
        for number in range(100):
            running.export(log_request(1, number, padding=200_000))
        until(lambda: running.ledger()["logs"].queued == 0)
        path = running._keeper._spool.path
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * (size - 4096))
        peer.back.set()
        until(lambda: running.ledger()["logs"].queued == running.ledger()["logs"].spooled == 0)
        ledger = running.ledger()["logs"]
        assert ledger.balanced
        assert ledger.dropped.keys() == {"spool_corrupt"}
        running.export(log_request(1, 999))
        until(lambda: 999 in peer.numbers())


def test_without_a_disk_it_goes_on_in_memory_and_says_so_once(tmp_path, caplog):
    (tmp_path / "spool").touch()  # no directory can be made there
    peer = Peer()
    with sender(tmp_path, peer) as running:
        for number in range(5):
            running.export(log_request(1, number))
        until(lambda: said_of_memory(caplog))  # that the peer is away may be said before it
        peer.back.set()
        until(lambda: answers_again(running))
        assert running.flush(time.monotonic() + 60)
    assert peer.numbers() == [0, 1, 2, 3, 4]
    assert len(said_of_memory(caplog)) == 1


def said_of_memory(caplog):
    return [message for message in caplog.messages if "in memory only" in message]


def test_a_disk_that_comes_back_is_used_again(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(keeping, "RETRY_S", 0.01)
    blocked = tmp_path / "spool"
    blocked.touch()
    with sender(tmp_path, Peer()) as running:
        running.export(log_request(5))
        until(lambda: caplog.messages)
        blocked.unlink()
        until(lambda: running.ledger()["logs"].spooled == 5)
        running.flush(time.monotonic() + 30)
    assert on_disk(tmp_path) == {"logs": 5}


def test_what_is_answered_at_once_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(keeping, "WRITE_DELAY_S", 60.0)
    peer = Peer()
    peer.back.set()
    with sender(tmp_path, peer) as running:
        for number in range(100):
            running.export(log_request(1, number))
        until(lambda: running.ledger()["logs"].accepted == 100)
    with Spool(tmp_path / "spool", "peer") as spool:
        assert spool.write([log_request(1)]) == [1]  # numbers are used once: nothing was written before


@pytest.mark.parametrize("consumers", [1, 4])
def test_load_during_outages_is_delivered_once(tmp_path, consumers):
    peer = Peer()
    with sender(tmp_path, peer, SendingQueue(num_consumers=consumers)) as running:
        for number in range(400):
            if number % 50 == 0:
                (peer.back.clear if number % 100 else peer.back.set)()
            running.export(log_request(2, 2 * number, padding=20_000))
            assert running.ledger()["logs"].balanced
            if number % 40 == 0:
                time.sleep(0.05)
        before = running.ledger()["logs"].accepted
        peer.back.set()
        until(lambda: running.ledger()["logs"].accepted > before)
        assert running.flush(time.monotonic() + 60)
    assert sorted(peer.numbers()) == list(range(800))
    assert running.ledger()["logs"] == SignalLedger(800, 800, 0, {}, 0)
    assert on_disk(tmp_path) == {}
