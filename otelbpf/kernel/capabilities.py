"""What this process may do, and how to let it."""

from __future__ import annotations

import os
from pathlib import Path

NEEDED = {"CAP_NET_ADMIN": 12, "CAP_PERFMON": 38, "CAP_BPF": 39}
"""To load, to trace, and to attach to cgroups."""
RECOMMENDED = {"CAP_SYS_PTRACE": 19}
"""To read /proc of processes of other users. An agent that is not root needs CAP_DAC_READ_SEARCH as well, for what is root's."""
_OF_OTHERS = {"CAP_DAC_READ_SEARCH": 2}
_ALL_IN_ONE = 21  # CAP_SYS_ADMIN, which stood for CAP_BPF and CAP_PERFMON before they existed, and still does
_IMPLIED_BY_ALL = {"CAP_PERFMON", "CAP_BPF"}

HOW_TO_GIVE = (
    "run as root, or give them with systemd's AmbientCapabilities=, "
    "`setcap`, or securityContext.capabilities.add of the container"
)


def effective(status: str | None = None) -> int:
    """The effective capabilities as a bit mask, from the text of /proc/self/status."""
    text = Path("/proc/self/status").read_text() if status is None else status
    line = next(line for line in text.splitlines() if line.startswith("CapEff:"))
    return int(line.split()[1], 16)


def missing(held: int | None = None) -> list[str]:
    """The needed capabilities that the mask *held* (default: this process's) lacks."""
    have = effective() if held is None else held
    admin = have >> _ALL_IN_ONE & 1
    return [name for name, bit in NEEDED.items() if not have >> bit & 1 and not (admin and name in _IMPLIED_BY_ALL)]


def recommended(uid: int | None = None) -> dict[str, int]:
    """Those without which processes of other users stay unnamed, for a process of *uid* (default: this one's)."""
    return RECOMMENDED | ({} if (os.geteuid() if uid is None else uid) == 0 else _OF_OTHERS)


def missing_recommended(held: int | None = None, uid: int | None = None) -> list[str]:
    """The recommended capabilities that the mask *held* (default: this process's) lacks."""
    have = effective() if held is None else held
    return [name for name, bit in recommended(uid).items() if not have >> bit & 1]


def sentence(absent: list[str]) -> str:
    """One sentence for a person: what is missing and how to give it."""
    noun = "capability" if len(absent) == 1 else "capabilities"
    return f"missing {noun} {', '.join(absent)}: {HOW_TO_GIVE}"
