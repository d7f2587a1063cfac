"""Answers of peers, the odd ones too."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st
from urllib3 import HTTPHeaderDict

from otelbpf.export.answer import Accepted, Failure
from otelbpf.export.otlp_http import answer_of
from otelbpf.export.response import (
    MESSAGE_LIMIT,
    partial_success,
    partial_success_json,
    retry_after_s,
    shortened,
    status_details,
)
from tests.peers.scripted import Accept

NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)


def test_partial_success():
    assert partial_success(Accept(3, "too old").body(), 10) == Accepted(3, "too old")
    assert partial_success(b"", 10) == Accepted()


@pytest.mark.parametrize(("said", "counted"), [(11, 10), (-1, 0)])
def test_a_server_cannot_bend_the_ledger(said, counted):
    assert partial_success(Accept(said, "x").body(), 10) == Accepted(counted, "x")


@given(st.binary(max_size=200))
def test_garbage_is_no_partial_success_or_one_within_bounds(body):
    assert 0 <= partial_success(body, 10).rejected <= 10
    assert 0 <= partial_success_json(body, 10).rejected <= 10
    message, after_s = status_details(body)
    assert isinstance(message, str)
    assert after_s is None or after_s >= 0


def test_json():
    body = b'{"partialSuccess": {"rejectedLogRecords": "2", "errorMessage": "no"}}'
    assert partial_success_json(body, 10) == Accepted(2, "no")
    assert partial_success_json(b"{}", 10) == Accepted()


@pytest.mark.parametrize(
    "body", [b'{"partialSuccess": {"rejectedSpans": 1e999}}', b"[" * 2**16], ids=["infinite", "deep"]
)
def test_json_that_is_valid_in_form_only_is_success(body):
    assert partial_success_json(body, 10) == Accepted()


def test_retry_info():
    status = Status(message="later")
    status.details.add().Pack(ErrorInfo(reason="busy"))
    status.details.add().Pack(RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000)))
    assert status_details(status.SerializeToString()) == ("later", 1.5)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7), ("-7", 0), ("Fri, 20 Nov 2026 12:00:30 GMT", 30), ("Fri, 20 Nov 2026 11:00:00 GMT", 0), ("soon", None)],
)
def test_retry_after(header, seconds):
    assert retry_after_s(header, NOW) == seconds


@given(st.text(max_size=40))
def test_any_retry_after_is_a_wait_or_none(header):
    after_s = retry_after_s(header, NOW)
    assert after_s is None or after_s >= 0


def test_a_message_is_one_line():
    assert shortened("a\n b\r\n\tc") == "a b c"
    assert len(shortened("x" * 1000)) == MESSAGE_LIMIT


class TestHttp:
    @pytest.mark.parametrize("status", [200, 202, 204])
    def test_success(self, status):
        assert answer_of(status, HTTPHeaderDict(), b"", 5) == Accepted()

    @pytest.mark.parametrize("status", range(300, 600))
    def test_what_the_specification_names_is_tried_again_and_a_proxy_s_refusal(self, status):
        answer = answer_of(status, HTTPHeaderDict(), b"", 5)
        assert isinstance(answer, Failure)
        assert answer.retryable == (status in {407, 429, 502, 503, 504})

    def test_the_server_s_message_is_kept(self):
        body = Status(message="no such tenant").SerializeToString()
        answer = answer_of(400, HTTPHeaderDict({"Content-Type": "application/x-protobuf"}), body, 5)
        assert answer == Failure("HTTP 400", "no such tenant", retryable=False)
        assert answer_of(500, HTTPHeaderDict(), b"\xffboom", 5).message == "�boom"

    def test_a_web_page_is_no_answer(self):
        answer = answer_of(200, HTTPHeaderDict({"Content-Type": "text/html; charset=utf-8"}), b"<html>", 5)
        assert isinstance(answer, Failure)
        assert not answer.retryable

    def test_a_redirect_is_told(self):
        answer = answer_of(308, HTTPHeaderDict({"Location": "https://b/"}), b"", 5)
        assert answer == Failure("HTTP 308", "redirected to https://b/", retryable=False)
