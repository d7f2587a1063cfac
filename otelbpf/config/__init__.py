"""Settings: what they are, and reading them from a file, `--set` and the standard variables."""

from otelbpf.config.load import load, loads
from otelbpf.config.quantities import parse_duration
from otelbpf.config.render import render
from otelbpf.config.schema import schema
from otelbpf.config.settings import (
    Config,
    Console,
    Duration,
    Kubernetes,
    OtlpGrpc,
    OtlpHttp,
    Retry,
    SendingQueue,
    Size,
    Slow,
    Spool,
    Throttle,
    Tls,
)

__all__ = [
    "Config",
    "Console",
    "Duration",
    "Kubernetes",
    "OtlpGrpc",
    "OtlpHttp",
    "Retry",
    "SendingQueue",
    "Size",
    "Slow",
    "Spool",
    "Throttle",
    "Tls",
    "load",
    "loads",
    "parse_duration",
    "render",
    "schema",
]
