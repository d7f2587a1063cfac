"""A guest: one of Debian's kernels, in software alone, with a system of two read-only disks and two serial lines.

Never KVM: a machine may offer one that runs its own kind of kernels only, and then a guest stands still for ever.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LIMIT_S = 240
TRIES = 2
MEMORY = "700M"
CPU = "max"
"""For RDRAND, since Python wants random numbers before there is entropy, and for all that numpy wants."""
MACHINE = ("-machine", "q35", "-accel", "tcg,thread=single", "-cpu", CPU, "-smp", "1", "-m", MEMORY)
ALONE = ("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot")
KERNEL_WORDS = "console=ttyS0 quiet panic=-1 root=PARTUUID=07e1b9f0-01 rootwait ro clearcpuid=cx16"
"""Without it Linux 6.12 died in kmalloc here once, it seems by what qemu 7.2 leaves in the flags after a CMPXCHG16B."""


class GuestFailed(Exception):  # noqa: N818 - reads as a sentence where it is raised
    """A guest ended, or was ended, without a result; the text is the end of its console."""


@dataclass(frozen=True)
class Cache:
    """What scripts/kernels.sh made."""

    directory: Path

    @classmethod
    def found(cls) -> Cache:
        """Where the script puts it."""
        beside = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
        return cls(Path(os.environ.get("OTELBPF_KERNELS", f"{beside}/otelbpf-kernels")))

    def kernel(self, name: str) -> Path:
        return self.directory / name / "vmlinuz"

    @property
    def is_there(self) -> bool:
        return self.system.exists()

    @property
    def system(self) -> Path:
        return self.directory / "root.disk"


def project_disk(directory: Path) -> Path:
    """A disk with this project as it is now; the guest has it at /opt/otelbpf."""
    tree, disk = directory / "project", directory / "project.ext4"
    ignored = shutil.ignore_patterns("__pycache__", "aarch64")
    shutil.copytree(ROOT / "otelbpf", tree / "otelbpf", ignore=ignored)
    shutil.copytree(ROOT / "tests" / "kernels", tree / "tests" / "kernels", ignore=ignored)
    shutil.copy(ROOT / "tests" / "__init__.py", tree / "tests")
    make = ("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-L", "project", "-d", tree, disk, "64M")
    subprocess.run(make, check=True, stdout=subprocess.DEVNULL, env={"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"})
    return disk


def run(kernel: str, project: Path, directory: Path) -> dict[str, Any]:
    """What tests/kernels/guest told; a guest that ended without that is started once more.

    Raises GuestFailed when it has not told anything then.
    """
    for attempt in range(1, TRIES + 1):
        console, told = directory / f"console-{attempt}", directory / f"told-{attempt}"
        with console.open("wb") as output:
            process = subprocess.Popen(
                _command(kernel, project, told), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
            try:
                process.wait(LIMIT_S)
            except subprocess.TimeoutExpired:
                pass
            finally:
                process.kill()
                process.wait()
        text = told.read_text() if told.exists() else ""
        if text.endswith("\n"):
            result: dict[str, Any] = json.loads(text)
            return result
    raise GuestFailed(f"Linux {kernel} gave no result; the end of its console: {console.read_text()[-3000:]}")


def _command(kernel: str, project: Path, told: Path) -> list[str]:
    cache = Cache.found()
    return [
        "qemu-system-x86_64", *MACHINE, *ALONE,
        "-kernel", str(cache.kernel(kernel)), "-append", KERNEL_WORDS,
        "-serial", "stdio", "-chardev", f"file,id=told,path={told}", "-serial", "chardev:told",
        "-device", "nvme,id=disks,serial=disks",  # the one kind of disk that these kernels know without a module
        *_disk(1, cache.system), *_disk(2, project),
    ]  # fmt: skip


def _disk(number: int, image: Path) -> list[str]:
    return [
        "-drive", f"file={image},id=disk{number},if=none,format=raw,readonly=on",
        "-device", f"nvme-ns,bus=disks,nsid={number},drive=disk{number}",
    ]  # fmt: skip
