"""The exception tree.

OtelbpfError            whatever the user can cause or cure: one line that says what, where and what to do
├── ConfigError         a setting, a file or a variable is wrong; names the file, the line and the key
├── CannotRun           the kernel, the machine or the permissions do not allow the agent to run at all
├── Hangs               a stage hangs for good: the process has to end without waiting for it
├── Unsupported         this kernel cannot do one thing; an answer that picks the next way, not a failure
├── VerifierError       the kernel refused a program; carries the last lines of its log
└── ProtocolError       bytes from the network that are not what they should be; counted, never shown
"""

from __future__ import annotations

import traceback
from pathlib import Path


class OtelbpfError(Exception):
    """The base: its text is one sentence for a person."""


class ConfigError(OtelbpfError):
    """A configuration that cannot be used."""


class CannotRun(OtelbpfError):  # noqa: N818 - reads as a sentence where it is raised
    """The agent cannot start here."""


class Hangs(OtelbpfError):  # noqa: N818 - reads as a sentence where it is raised
    """Nothing was closed: closing what hangs would hang, too. Whoever catches it ends the process at once."""


class Unsupported(OtelbpfError):  # noqa: N818 - an answer, not an error
    """*what* is not possible on this kernel because of *reason*."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"{what}: {reason}")
        self.what = what
        self.reason = reason


class VerifierError(Unsupported):
    """The verifier refused a program; *log* is all it said, the text its last lines."""

    def __init__(self, program: str, log: str, kept_lines: int = 4) -> None:
        lines = [line for line in log.splitlines() if line.strip()]
        omitted = max(0, len(lines) - kept_lines)
        tail = " | ".join(line.strip() for line in lines[-kept_lines:])
        super().__init__(program, f"refused by the verifier: {tail} ({omitted} lines omitted)")
        self.log = log


class ProtocolError(OtelbpfError):
    """A message that cannot be parsed."""


def described(error: BaseException | None) -> str:
    """One that nobody expected, in one line: its kind, what it says, and where it was raised."""
    if error is None:
        return "unknown"
    trace = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(trace[-1].filename).name}:{trace[-1].lineno})" if trace else ""
    return f"{type(error).__name__}: {error}{where}"
