"""Whether a peer takes OTLP, found out by sending it an empty request."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from otelbpf.config import Console, OtlpGrpc, OtlpHttp
from otelbpf.export.answer import Accepted, Answer, Failure
from otelbpf.export.diagnose import diagnose
from otelbpf.export.otlp_grpc import GrpcTransport
from otelbpf.export.otlp_http import HttpTransport
from otelbpf.export.request import Request

if TYPE_CHECKING:
    from collections.abc import Collection

ASKED = ("logs", "metrics")
"""Signals that are made; a collector without a pipeline for spans is not at fault."""


def probe(name: str, settings: OtlpGrpc | OtlpHttp | Console, timeout_s: float = 5.0) -> tuple[bool, str]:
    """Whether the exporter *name* reaches its peer, and a sentence that says it. Takes about *timeout_s* at most.

    Raises ConfigError for an endpoint or a file that is none.
    """
    if isinstance(settings, Console):
        return True, f"one line an event on {'the terminal' if os.isatty(1) else 'stdout'}"
    transport = GrpcTransport(name, settings) if isinstance(settings, OtlpGrpc) else HttpTransport(name, settings)
    transport.check()
    with transport:
        for signal, answer in _answers(transport, settings.signals, timeout_s):
            if isinstance(answer, Failure):
                return False, f"{signal}: {diagnose(answer, transport.endpoint)}"
    protocol = "gRPC" if isinstance(settings, OtlpGrpc) else "HTTP"
    tls = " with TLS" if transport.endpoint.secure else ""
    return True, f"{transport.endpoint.authority} accepts OTLP over {protocol}{tls}"


def _answers(
    transport: GrpcTransport | HttpTransport, signals: Collection[str], timeout_s: float
) -> list[tuple[str, Answer]]:
    answers: list[tuple[str, Answer]] = []
    for signal in ASKED:
        if signal in signals:
            answers.append((signal, transport.send(Request(signal, b"", 0, 0), timeout_s)))
            if not isinstance(answers[-1][1], Accepted):
                break
    return answers
