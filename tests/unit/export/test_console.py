"""Lines for people."""

from __future__ import annotations

import errno
import os
import time

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from otelbpf.config import Console, Retry, SendingQueue
from otelbpf.export import sender
from otelbpf.export.answer import Accepted, Failure
from otelbpf.export.console import ConsoleTransport, Lines, kind_of, wants_colour
from otelbpf.export.request import Request
from otelbpf.export.sender import Sender
from tests.peers.otlp import log_request, metric_request


@pytest.fixture(autouse=True)
def _utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def encoded(body: str, *, event: str = "otelbpf.dns.lookup", severity: int = 9, **resource: str) -> bytes:
    message = ExportLogsServiceRequest()
    group = message.resource_logs.add()
    for key, value in resource.items():
        attribute = group.resource.attributes.add()
        attribute.key, attribute.value.string_value = key.replace("_", "."), value
    record = group.scope_logs.add().log_records.add()
    record.time_unix_nano = 1_790_000_000_118_999_999
    record.event_name, record.severity_number, record.body.string_value = event, severity, body
    return message.SerializeToString()


def line(body: str, *, colour: bool = False, **more) -> str:
    (text,) = Lines(colour=colour).of(encoded(body, **more))
    return text


def test_a_line():
    assert line("A example.org → 1.2.3.4", service_name="web") == (
        "14:13:20.118  dns   web             A example.org → 1.2.3.4\n"
    )


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        ("otelbpf.tcp.connection.closed", "tcp"),
        ("otelbpf.tcp.connection.failed", "tcp"),
        ("otelbpf.dns.lookup", "dns"),
        ("otelbpf.process.exec", "exec"),
        ("otelbpf.process.exit", "exit"),
        ("other", "other"),
        ("", ""),
    ],
)
def test_kinds(event, kind):
    assert kind_of(event) == kind


def test_the_pod_comes_before_the_unit_and_the_service():
    assert "  api-1  " in line("x", service_name="web", k8s_pod_name="api-1").replace("       ", "")
    assert "ssh.service" in line("x", service_name="web", systemd_unit_name="ssh.service")


def test_columns_grow_with_long_names_and_cut_longer_ones():
    lines = Lines(colour=False)
    first, second, third = (
        next(iter(lines.of(encoded("body", service_name=name)))) for name in ("short", "n" * 20, "m" * 40)
    )
    assert first.index("body") == 36
    assert second.index("body") == 42
    assert "m" * 23 + "…  body" in third


def test_a_name_from_the_network_cannot_move_the_cursor():
    assert "\x1b" not in line("evil \x1b[2J\r\n name\x9b", service_name="a\x1bb")
    assert line("one\ntwo").count("\n") == 1


def test_a_body_that_is_no_text_shows_the_event():
    assert line("").endswith("otelbpf.dns.lookup\n")


@pytest.mark.parametrize(("severity", "tint"), [(9, ""), (13, "\x1b[33m"), (17, "\x1b[31m")])
def test_colours_follow_the_severity(severity, tint):
    assert f"  {tint}body" in line("body", colour=True, severity=severity, service_name="web")


def test_colours_are_for_a_terminal_that_wants_them():
    terminal, other = os.openpty()
    try:
        assert wants_colour(other, {})
        assert not wants_colour(other, {"NO_COLOR": "1"})
        assert not wants_colour(other, {"TERM": "dumb"})
    finally:
        os.close(terminal)
        os.close(other)
    assert not wants_colour(os.open(os.devnull, os.O_RDONLY), {})


def test_it_writes_all_even_in_pieces():
    written = bytearray()

    def write(_fd: int, data: bytes) -> int:
        written.extend(data[:7])
        return len(data[:7])

    with ConsoleTransport(write=write) as console:
        assert console.send(log_request(3), 1) == Accepted()
    assert written.decode().splitlines()[2].endswith("record 2 ")


def test_metrics_are_not_shown():
    with sender("console", Console()) as console:
        console.export(metric_request(3))
        assert console.flush(time.monotonic() + 30)
        assert console.ledger() == {}


def test_a_reader_that_went_is_told_once_and_its_lines_are_counted(caplog):
    calls = []

    def write(fd: int, data: bytes) -> int:
        calls.append(data)
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    console = Sender("console", ConsoleTransport(write=write), Retry(), SendingQueue(), ("logs",))
    with console:
        for _ in range(3):
            console.export(log_request(5))
        assert console.flush(time.monotonic() + 30)
        assert console.ledger()["logs"].dropped == {"output_closed": 15}
    assert len(calls) == 1
    (message,) = caplog.messages
    assert message == "exporter console: 5 logs lost (output_closed): cannot write to the output: Broken pipe"


def test_a_reader_that_does_not_read_holds_nobody():
    reading, writing = os.pipe()
    console = Sender("console", ConsoleTransport(fd=writing), Retry(), SendingQueue(), ("logs",))
    with console:
        for number in range(10):
            console.export(log_request(10, number * 10, padding=10_000))
        assert not console.flush(time.monotonic() + 0.2)
        ledger = console.ledger()["logs"]
    assert ledger.balanced
    assert ledger.dropped["shutdown"] == 100 - ledger.accepted
    os.close(reading)
    os.close(writing)


def test_a_closed_output_is_a_failure_that_is_not_tried_again():
    with ConsoleTransport(fd=-1) as console:
        answer = console.send(Request("logs", encoded("x"), 1, 0), 1)
    assert isinstance(answer, Failure)
    assert not answer.retryable
