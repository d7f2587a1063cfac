"""Whether this kernel has the iterators that could write to what they are shown; asked of it by bpftool, not by us."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.kernel.sample import compile_program

SOURCE = """
#include "kernel.bpf.h"
SEC("iter/bpf_map_elem") int nothing(void *context) { return 0; }
char LICENSE[] SEC("license") = "Dual BSD/GPL";
"""


def skip_without_walks_of_maps() -> None:
    if not maps_can_be_walked():
        pytest.skip("this kernel forbids iterators over the elements of maps")


@cache
def maps_can_be_walked() -> bool:
    """False where the kernel refuses even a program that does nothing; raises for any other trouble."""
    with TemporaryDirectory() as directory:
        source, pin = Path(directory, "walk.bpf.c"), Path(f"/sys/fs/bpf/otelbpf-{Path(directory).name}")
        source.write_text(SOURCE)
        made = compile_program(source, Path(directory, "walk.bpf.o"))
        done = subprocess.run(["bpftool", "prog", "load", made, pin], capture_output=True, text=True, check=False)
        pin.unlink(missing_ok=True)
    if done.returncode and "Operation not permitted" not in done.stderr:
        raise RuntimeError(done.stderr)
    return not done.returncode
