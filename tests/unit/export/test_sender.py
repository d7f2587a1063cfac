"""The sender's decisions, with a transport that does what the test says."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import Self

import pytest

from otelbpf.config import Retry, SendingQueue, Spool
from otelbpf.conveyor import pace_s
from otelbpf.errors import OtelbpfError
from otelbpf.export import Exporters
from otelbpf.export.account import SignalLedger
from otelbpf.export.answer import Accepted, Answer, Failure
from otelbpf.export.endpoint import Endpoint
from otelbpf.export.sender import Sender
from tests.peers.otlp import log_request, metric_request

AWAY = Failure("UNAVAILABLE", "connect: Connection refused (111)", retryable=True)
SOON = Retry(initial_interval=0.001, max_interval=0.002)
SMALL = SendingQueue(max_bytes=2**20)


class Scripted:
    """A transport that answers from a list, then accepts."""

    component = "test"
    timeout_s = 30.0
    endpoint = Endpoint("127.0.0.1", 4317, secure=False)

    def __init__(self, *answers: Answer) -> None:
        self.answers = deque(answers)
        self.sent: list[tuple[str, int]] = []
        self.open = threading.Event()
        self.open.set()

    def check(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.open.set()

    def send(self, request, timeout_s):
        if not self.open.wait(timeout_s):
            return Failure("DEADLINE_EXCEEDED", "", retryable=True)
        self.sent.append((request.signal, request.oldest_ns))
        return self.answers.popleft() if self.answers else Accepted()


class Notes:
    def __init__(self) -> None:
        self.heard: list[tuple[object, ...]] = []

    def acknowledged(self, exporter, request):
        self.heard.append(("acknowledged", request.items))

    def down(self, exporter, sentence):
        self.heard.append(("down", sentence))

    def up(self, exporter):
        self.heard.append(("up",))

    def lost(self, exporter, signal, reason, items, message):
        self.heard.append(("lost", signal, reason, items))


def soon() -> float:
    return time.monotonic() + 30


def exporter(transport, retry=SOON, queue=SMALL, spool=None) -> Sender:
    sender = Sender("peer", transport, retry, queue, ("logs", "metrics"), spool)
    sender.watchers.append(Notes())
    return sender


def test_what_is_accepted_is_acknowledged():
    with exporter(Scripted()) as sender:
        sender.export(log_request(3))
        assert sender.flush(soon())
        assert sender.ledger() == {"logs": SignalLedger(3, 3, 0, {}, 0)}
        assert sender.watchers[0].heard == [("acknowledged", 3)]


def test_signals_it_does_not_carry_are_not_its_business():
    sender = Sender("peer", Scripted(), SOON, SMALL, ("metrics",))
    with sender:
        sender.export(log_request(3))
        assert sender.ledger() == {}


def test_partial_success_is_counted(caplog):
    with exporter(Scripted(Accepted(2, "too old"))) as sender:
        sender.export(log_request(5))
        sender.flush(soon())
        assert sender.ledger()["logs"] == SignalLedger(5, 3, 2, {}, 0)
    assert caplog.messages == ["exporter peer: 2 logs lost (rejected): too old"]


def test_a_refusal_is_not_tried_again():
    transport = Scripted(Failure("PERMISSION_DENIED", "bad", retryable=False))
    with exporter(transport) as sender:
        sender.export(log_request(5))
        sender.export(log_request(7, 5))
        sender.flush(soon())
        assert sender.ledger()["logs"] == SignalLedger(12, 7, 5, {}, 0)
    assert len(transport.sent) == 2


def test_a_failure_is_tried_again_in_order_and_told_once(caplog):
    transport = Scripted(AWAY, AWAY, AWAY)
    with exporter(transport) as sender:
        sender.export(log_request(5))
        sender.export(log_request(7, 5))
        assert sender.flush(soon())
        assert sender.ledger()["logs"] == SignalLedger(12, 12, 0, {}, 0)
        kinds = [note[0] for note in sender.watchers[0].heard]
    assert [oldest for _, oldest in transport.sent] == sorted(oldest for _, oldest in transport.sent)
    assert kinds == ["down", "up", "acknowledged", "acknowledged"]
    assert len(caplog.messages) == 2
    assert "nothing listens on 127.0.0.1:4317" in caplog.messages[0]
    assert caplog.messages[1] == "exporter peer: the peer answers again"


def test_one_signal_that_fails_does_not_hold_the_other():
    transport = Scripted(Failure("HTTP 503", "", retryable=True, after_s=3600))
    with exporter(transport, Retry(max_elapsed_time=0)) as sender:
        sender.export(log_request(1))
        sender.export(metric_request(2))
        sender.export(metric_request(2))
        while sender.ledger()["metrics"].accepted < 4:
            time.sleep(0.001)
        assert sender.ledger()["logs"].queued == 1
        assert not sender.is_up


def test_a_wait_that_is_too_long_gives_up():
    transport = Scripted(Failure("HTTP 503", "", retryable=True, after_s=3600))
    with exporter(transport, Retry(max_elapsed_time=300)) as sender:
        sender.export(log_request(4))
        while sender.ledger()["logs"].queued:
            time.sleep(0.001)
        assert sender.ledger()["logs"].dropped == {"given_up": 4}


def test_retries_may_be_off():
    with exporter(Scripted(AWAY), Retry(enabled=False)) as sender:
        sender.export(log_request(4))
        sender.flush(soon())
        assert sender.ledger()["logs"].dropped == {"given_up": 4}


def test_a_full_queue_drops_the_oldest_and_the_producer_never_waits():
    transport = Scripted()
    transport.open.clear()
    size = len(log_request(1).body)
    with exporter(transport, queue=SendingQueue(max_bytes=4 * size)) as sender:
        for _ in range(1000):
            sender.export(log_request(1))
        ledger = sender.ledger()["logs"]
        assert ledger.balanced
        assert ledger.queued <= 4
        assert ledger.dropped["queue_full"] == 1000 - ledger.queued
        transport.open.set()
        assert sender.flush(soon())
        assert sender.ledger()["logs"].balanced
        assert sender.ledger()["logs"].queued == 0


def test_what_is_left_at_the_deadline_is_counted_as_shutdown():
    transport = Scripted()
    transport.open.clear()
    with exporter(transport) as sender:
        for number in range(5):
            sender.export(log_request(2, number))
        assert not sender.flush(time.monotonic() + 0.05)
        assert sender.ledger()["logs"] == SignalLedger(10, 0, 0, {"shutdown": 10}, 0)
        sender.export(log_request(3))
        assert sender.ledger()["logs"] == SignalLedger(13, 0, 0, {"shutdown": 13}, 0)


def test_a_flush_does_not_wait_for_the_next_retry():
    transport = Scripted(AWAY)
    with exporter(transport, Retry(initial_interval=3600, max_elapsed_time=0)) as sender:
        sender.export(log_request(2))
        while not transport.sent:
            time.sleep(0.001)
        assert sender.flush(soon())
        assert sender.ledger()["logs"].accepted == 2


def test_leaving_without_a_flush_counts_what_was_queued():
    transport = Scripted()
    transport.open.clear()
    with exporter(transport) as sender:
        sender.export(log_request(2))
    assert sender.ledger()["logs"] == SignalLedger(2, 0, 0, {"shutdown": 2}, 0)


def test_exporters_fail_independently():
    stuck = Scripted()
    stuck.open.clear()
    members = [Sender(name, transport, SOON, SMALL, ("logs",)) for name, transport in (("a", stuck), ("b", Scripted()))]
    with Exporters(members) as exporters:
        exporters.export(log_request(4))
        assert not exporters.flush(time.monotonic() + 0.1)
        assert exporters.ledger() == {
            ("a", "logs"): SignalLedger(4, 0, 0, {"shutdown": 4}, 0),
            ("b", "logs"): SignalLedger(4, 4, 0, {}, 0),
        }
        assert exporters.sizes()["b", "logs"].size_bytes == 0


def test_the_same_complaint_is_logged_once_a_minute(caplog):
    with exporter(Scripted(*[Failure("INTERNAL", "no", retryable=False)] * 5)) as sender:
        for _ in range(5):
            sender.export(log_request(1))
        sender.flush(soon())
    assert len(caplog.records) == 1
    assert caplog.records[0].levelno == logging.WARNING


@pytest.mark.parametrize("member_count", [1, 3])
def test_exporters_open_all_or_none(member_count):
    class Broken(Scripted):
        def check(self):
            raise ValueError("broken")

    members = [Sender(f"m{number}", Scripted(), SOON, SMALL, ("logs",)) for number in range(member_count)]
    with (
        pytest.raises(ValueError, match="broken"),
        Exporters([*members, Sender("x", Broken(), SOON, SMALL, ("logs",))]),
    ):
        pass
    assert all(member._stopping.is_set() for member in members)


class Mistaken(Scripted):
    """A transport with a mistake: what it answers first is none."""

    def __init__(self, raised: BaseException) -> None:
        super().__init__()
        self.raised: BaseException | None = raised

    def send(self, request, timeout_s):
        if self.raised is not None:
            raised, self.raised = self.raised, None
            raise raised
        return super().send(request, timeout_s)


def test_a_mistake_costs_the_request_and_not_the_exporter(caplog):
    with exporter(Mistaken(KeyError("resource"))) as sender:
        sender.export(log_request(5))
        sender.export(log_request(7, 5))
        assert sender.flush(soon())
        assert sender.ledger()["logs"] == SignalLedger(12, 7, 0, {"internal_error": 5}, 0)
        assert sender.failure is None
    (said,) = caplog.messages
    assert said.startswith("exporter peer: 5 logs lost (internal_error): KeyError: 'resource' (test_sender.py:")


def test_what_ends_a_thread_is_told_to_who_asks():
    with Exporters([exporter(Mistaken(SystemExit("gone")))]) as outputs:
        assert outputs.alive
        outputs.check()
        outputs.export(log_request(5))
        until = soon()
        while outputs.alive and time.monotonic() < until:
            time.sleep(0.001)
        with pytest.raises(OtelbpfError, match=r"exporter peer ended because of a bug in otelbpf: SystemExit: gone"):
            outputs.check()
        outputs.flush(time.monotonic() + 0.1)
        assert outputs.ledger()["peer", "logs"].balanced


def test_ticks_are_short_while_one_of_them_keeps_what_waits_on_disk(tmp_path):
    plain = Sender("a", Scripted(), SOON, SMALL, ("logs",))
    keeping = Sender("b", Scripted(), SOON, SMALL, ("logs",), Spool(directory=str(tmp_path)))
    with Exporters([plain, keeping]) as exporters:
        assert pace_s(on_disk=exporters.keep_on_disk) < 0.2
        exporters.replace([plain], time.monotonic() + 5)
        assert pace_s(on_disk=exporters.keep_on_disk) > 0.2
