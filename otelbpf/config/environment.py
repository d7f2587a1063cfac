"""The standard variables of OpenTelemetry as settings; they speak where the file names no exporter.

Read as opentelemetry-python reads them: no protocol means grpc, OTEL_EXPORTER_OTLP_TIMEOUT is in seconds (the
specification says milliseconds). A signal's own variable wins over the general one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote

from otelbpf.config.document import Listing, Scalar, Table, printable
from otelbpf.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PREFIX = "OTEL_EXPORTER_OTLP_"
SIGNALS = ("logs", "metrics", "traces")
PROTOCOLS = {"grpc": "otlp_grpc", "http/protobuf": "otlp_http"}
_FILES = {"CERTIFICATE": "ca_file", "CLIENT_KEY": "key_file", "CLIENT_CERTIFICATE": "cert_file"}
_OF_THE_AGENT = ("service.", "process.", "telemetry.")
"""Attributes that describe the agent's own process; what is observed has its own."""


class Variables:
    """What the variables say of one signal."""

    def __init__(self, environ: Mapping[str, str], signal: str) -> None:
        self._environ = environ
        self._signal = signal

    def name(self, suffix: str) -> str | None:
        """The variable that counts for *suffix*; an empty one is as good as none, as the specification says."""
        own = f"{PREFIX}{self._signal.upper()}_{suffix}"
        return next((name for name in (own, PREFIX + suffix) if self._environ.get(name, "").strip()), None)

    def value(self, suffix: str) -> Scalar | None:
        name = self.name(suffix)
        return _scalar(name, self._environ[name].strip()) if name else None

    def exporter(self) -> tuple[str, Table] | None:
        """The kind of exporter and its settings; None when no endpoint is named."""
        endpoint = self.value("ENDPOINT")
        if endpoint is None:
            return None
        kind = self._kind()
        table = Table(endpoint.place)
        own = kind == "otlp_http" and endpoint.place != PREFIX + "ENDPOINT"
        table.put(f"{self._signal}_endpoint" if own else "endpoint", endpoint)
        for key, node in self._options():
            table.put(key, node)
        return kind, table

    def _kind(self) -> str:
        protocol = self.value("PROTOCOL")
        if protocol is None:
            return "otlp_grpc"
        kind = PROTOCOLS.get(str(protocol.value).lower())
        if kind is None:
            shown = printable(str(protocol.value))
            raise ConfigError(f'{protocol.place}: "{shown}" is not supported; set it to grpc or http/protobuf')
        return kind

    def _options(self) -> Iterator[tuple[str, Scalar | Table]]:
        if headers := self.value("HEADERS"):
            yield "headers", pairs(headers.place, str(headers.value))
        if compression := self.value("COMPRESSION"):
            yield "compression", _scalar(compression.place, str(compression.value).lower())
        if timeout := self.value("TIMEOUT"):
            yield "timeout", _scalar(timeout.place, f"{timeout.value}s")
        tls = self._tls()
        if tls.entries:
            yield "tls", tls

    def _tls(self) -> Table:
        table = Table("the environment")
        for suffix, key in _FILES.items():
            if node := self.value(suffix):
                table.put(key, node)
        if insecure := self.value("INSECURE"):
            word = str(insecure.value).lower()
            table.put("insecure", Scalar(insecure.place, {"true": True, "false": False}.get(word, word), word))
        return table


def exporters(environ: Mapping[str, str]) -> Table:
    """What stands for `exporters`: one for all signals, or one for each kind of settings that they have."""
    groups: list[tuple[str, Table, list[str]]] = []
    for signal in SIGNALS:
        found = Variables(environ, signal).exporter()
        if found is None:
            continue
        kind, table = found
        for other_kind, other, signals in groups:
            if other_kind == kind and _same(other, table):
                signals.append(signal)
                break
        else:
            groups.append((kind, table, [signal]))
    result = Table("the environment")
    for kind, table, signals in groups:
        name = kind if len(groups) == 1 else f"{kind}/{'_'.join(signals)}"
        if signals != list(SIGNALS):
            table.put("signals", Listing("the environment", [_scalar("the environment", signal) for signal in signals]))
        result.put(name, table)
    return result


def _same(one: Table, other: Table) -> bool:
    return one.entries == other.entries


def resource_attributes(environ: Mapping[str, str]) -> Table:
    """OTEL_RESOURCE_ATTRIBUTES without what describes the agent itself (service.name and the like)."""
    name = "OTEL_RESOURCE_ATTRIBUTES"
    table = pairs(name, environ.get(name, ""))
    kept = {key: node for key, node in table.entries.items() if not key.startswith(_OF_THE_AGENT)}
    return Table(name, dict(kept), dict.fromkeys(kept, name))


def pairs(variable: str, text: str) -> Table:
    """`key=value,key=value` with percent-encoded values; ConfigError without showing them, as they may be secrets."""
    table = Table(variable)
    for number, pair in enumerate(filter(None, (part.strip() for part in text.split(","))), 1):
        key, equals, value = pair.partition("=")
        key = unquote(key.strip())
        if not equals or not key:
            raise ConfigError(f"{variable}: pair {number} is not key=value; write it such as key1=value1,key2=value2")
        table.put(key, _scalar(variable, unquote(value.strip())))
    return table


def _scalar(place: str, text: str) -> Scalar:
    return Scalar(place, text, text)
