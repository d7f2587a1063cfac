"""The agent's own thread group in the initial pid namespace: what the kernel's programs compare with.

os.getpid() is not it in a pod without hostPID, and no file of /proc tells: the kernel is asked, by a program that
returns who runs it.
"""

from __future__ import annotations

from otelbpf.kernel.attach import object_path
from otelbpf.kernel.object import Object


def self_pid() -> int:
    """Raises Unsupported where a `syscall` program cannot be loaded (before kernel 5.14)."""
    with Object(object_path("self"), constants={}, map_sizes={}, programs=["caller"]) as asked:
        return asked.run("caller")
