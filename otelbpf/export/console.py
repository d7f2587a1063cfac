"""One readable line on stdout for every log record.

    12:30:01.118  tcp   web            client curl[811] → example.org:443 …
    local time    kind  whose          the record's body

Metrics are not shown: a table every few seconds would tear the lines apart. stdout is written by descriptor, never
through sys.stdout: the thread may be held there by a slow reader, and must not hold a lock the interpreter needs to end.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Self

from otelbpf.export.answer import OUTPUT_CLOSED, Accepted, Answer, Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from otelbpf.export.request import Request

WHOSE = ("k8s.pod.name", "systemd.unit.name", "service.name", "container.id")
"""The first of these that the resource has stands in the third column."""
WHOSE_WIDTH = (14, 24)
"""The column grows with what it has to hold, between these; longer names are cut."""
KIND_WIDTH = 5
WARN, ERROR = 13, 17
DIM, RED, YELLOW, CYAN, PLAIN = "\x1b[2m", "\x1b[31m", "\x1b[33m", "\x1b[36m", "\x1b[0m"
UNPRINTABLE = dict.fromkeys((*range(32), *range(127, 160)), "?")
"""A name in a record may come from the network: it must not move the cursor of whoever reads."""


def wants_colour(fd: int, environ: Mapping[str, str]) -> bool:
    """Colours are for a terminal whose user did not refuse them (https://no-color.org)."""
    return not environ.get("NO_COLOR") and environ.get("TERM") != "dumb" and os.isatty(fd)


class Lines:
    """Turns log records into lines, with columns that stay where they are."""

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour
        self._width = WHOSE_WIDTH[0]
        self._second = -1
        self._clock = ""

    def of(self, body: bytes) -> Iterable[str]:
        """The lines for the records of an ExportLogsServiceRequest."""
        from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

        for group in ExportLogsServiceRequest.FromString(body).resource_logs:
            whose = self._whose(group.resource.attributes)
            for scope in group.scope_logs:
                for record in scope.log_records:
                    yield self._line(record, whose)

    def _line(self, record: Any, whose: str) -> str:
        text = record.body.string_value.translate(UNPRINTABLE) or record.event_name
        when = self._time(record.time_unix_nano)
        kind = f"{kind_of(record.event_name):<{KIND_WIDTH}}"
        if not self._colour:
            return f"{when}  {kind} {whose}  {text}\n"
        tint = RED if record.severity_number >= ERROR else YELLOW if record.severity_number >= WARN else ""
        return f"{DIM}{when}{PLAIN}  {CYAN}{kind}{PLAIN} {whose}  {tint}{text}{PLAIN if tint else ''}\n"

    def _time(self, time_ns: int) -> str:
        second, rest = divmod(time_ns, 1_000_000_000)
        if second != self._second:  # thousands of records share a second
            self._second = second
            self._clock = time.strftime("%H:%M:%S", time.localtime(second))
        return f"{self._clock}.{rest // 1_000_000:03}"

    def _whose(self, pairs: Any) -> str:
        known = {pair.key: pair.value.string_value for pair in pairs}
        name = next((known[key] for key in WHOSE if known.get(key)), "").translate(UNPRINTABLE)
        self._width = min(max(self._width, len(name)), WHOSE_WIDTH[1])
        if len(name) > self._width:
            name = name[: self._width - 1] + "…"
        return f"{name:<{self._width}}"


def kind_of(event_name: str) -> str:
    """`tcp`, `dns`, `exec`, `exit`: the word of an event's name that tells it from others at a glance."""
    words = event_name.split(".")
    if words[0] == "otelbpf":
        words = words[1:]
    return words[-1] if words[0] == "process" else words[0]


class ConsoleTransport:
    """Prints log records to a descriptor. A context manager."""

    component = "otelbpf_console"
    timeout_s = float("inf")
    endpoint = None

    def __init__(self, fd: int = 1, write: Callable[[int, bytes], int] = os.write) -> None:
        self._fd = fd
        self._write = write
        self._lines: Lines | None = None
        self._closed = False

    def check(self) -> None:
        pass

    def __enter__(self) -> Self:
        self._lines = Lines(colour=wants_colour(self._fd, os.environ))
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def close(self) -> None:
        pass

    def send(self, request: Request, timeout_s: float) -> Answer:
        if self._lines is None or self._closed or request.signal != "logs":
            return self._gone("nobody reads the output any more") if self._closed else Accepted()
        left = "".join(self._lines.of(request.body)).encode("utf-8", "replace")
        try:
            while left:
                left = left[self._write(self._fd, left) :]
        except OSError as error:
            self._closed = True
            return self._gone(f"cannot write to the output: {error.strerror}")
        return Accepted()

    @staticmethod
    def _gone(message: str) -> Failure:
        return Failure("output", message, retryable=False, reason=OUTPUT_CLOSED)
