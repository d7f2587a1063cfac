"""The object that the tests of otelbpf/kernel load: it makes known records, and holds programs that kernels refuse."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("sample.bpf.c")
INCLUDE = SOURCE.parents[2] / "otelbpf" / "probes" / "include"


def compile_sample(directory: Path, payload: int = 64) -> Path:
    """Compiles it into *directory*; records have *payload* bytes more than their 97 of other members."""
    return compile_program(SOURCE, directory / f"sample{payload}.bpf.o", f"-DPAYLOAD={payload}")


def compile_program(source: Path, made: Path, *more: str) -> Path:
    """Compiles any BPF source as the project's own are."""
    architecture = {"x86_64": "x86", "aarch64": "arm64"}[platform.machine()]
    headers = f"/usr/include/{platform.machine()}-linux-gnu"
    flags = [
        "-g",
        "-O2",
        "-Wall",
        "-Werror",
        "-target",
        "bpf",
        f"-D__TARGET_ARCH_{architecture}",
        *more,
    ]
    command = [
        os.environ.get("CLANG", "clang"),
        *flags,
        f"-I{INCLUDE}",
        f"-I{headers}",
        "-c",
        str(source),
        "-o",
        str(made),
    ]
    subprocess.run(command, check=True)
    return made


def open_files() -> set[str]:
    """The numbers of the files that this process has open; that of the listing itself is gone by then."""
    return {name for name in os.listdir("/proc/self/fd") if Path("/proc/self/fd", name).exists()}  # noqa: PTH208
