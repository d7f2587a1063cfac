"""How much of the memory limit is used: the `memory_limit` setting becomes a pressure, 1.0 at the limit.

`auto` looks at the cgroup, as its limit is what kills. A size is compared with what this process itself holds: its
cgroup may be shared with others. Both leave out pages of files, which the kernel takes back before it kills.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from otelbpf.guards.cgroup import memory_bounds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otelbpf.config import Config

SELF = Path("/proc/self")
NEEDED_BYTES = 96 << 20
"""With less, even an idle agent uses too much for a step to be taken back."""
OWN = ("RssAnon:", "RssShmem:")


class Bound(Protocol):
    """Something that is limited, and how much of it is used."""

    @property
    def limit_bytes(self) -> int: ...

    def used_bytes(self) -> int: ...


@dataclass(frozen=True, slots=True)
class ProcessBound:
    """A limit for what this process alone uses: memory that no file stands behind, and that of its BPF maps."""

    limit_bytes: int
    proc: Path = SELF

    def used_bytes(self) -> int:
        pairs = (line.split()[:2] for line in (self.proc / "status").read_text().splitlines() if line.startswith(OWN))
        return sum(int(kilobytes) for _, kilobytes in pairs) * 1024 + map_bytes(self.proc)


def map_bytes(proc: Path = SELF) -> int:
    """What the kernel holds for the BPF maps that this process has open; one may be counted for each descriptor of it."""
    locked: dict[str, int] = {}
    for entry in (proc / "fdinfo").iterdir():
        try:
            lines = entry.read_text().splitlines()
        except OSError:  # closed meanwhile
            continue
        fields = dict(line.partition(":")[::2] for line in lines)
        if "map_id" in fields and "memlock" in fields:
            locked[fields["map_id"]] = int(fields["memlock"])
    return sum(locked.values())


def bounds(config: Config) -> Sequence[Bound]:
    """What `memory_limit` asks to be looked at; nothing when there is no limit."""
    if config.memory_limit == "off":
        return ()
    return memory_bounds() if config.memory_limit == "auto" else (ProcessBound(int(config.memory_limit)),)


def pressure(limits: Sequence[Bound]) -> Callable[[], float]:
    """The largest share of a limit that is used; 0 while it cannot be read."""

    def read() -> float:
        try:
            return max(bound.used_bytes() / bound.limit_bytes for bound in limits)
        except (OSError, KeyError, ValueError):  # moved to another cgroup, which may have gone
            return 0.0

    return read
