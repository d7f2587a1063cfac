"""Settings: what they are, and reading them from a file, `--set` and the standard variables."""

from otelbpf.config.settings import (
    Config,
    Console,
    Duration,
    OtlpGrpc,
    OtlpHttp,
    Retry,
    SendingQueue,
    Size,
    Slow,
    Tls,
)

__all__ = ["Config", "Console", "Duration", "OtlpGrpc", "OtlpHttp", "Retry", "SendingQueue", "Size", "Slow", "Tls"]
