"""The compiled loops, by ctypes. `make bpf` compiles them; nothing is compiled on a node."""

from __future__ import annotations

import ctypes as c
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otelbpf.compiled import compiled_for
from otelbpf.errors import CannotRun

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PROTOTYPES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "otelbpf_measure": (c.c_int64, (c.c_void_p, c.c_int64, c.c_int64, c.c_void_p)),
    "otelbpf_lay": (None, (c.c_void_p, c.c_int64, c.c_char_p, c.c_char_p)),
    "otelbpf_distinct": (
        c.c_int64,
        (c.c_void_p, c.c_int64, c.c_int64, c.c_uint64, c.c_void_p, c.c_uint64, c.c_void_p, c.c_void_p),
    ),
    "otelbpf_address_words": (None, (c.c_void_p, c.c_int64, c.c_bool, c.c_void_p, c.c_void_p)),
    "otelbpf_port_words": (None, (c.c_void_p, c.c_int64, c.c_void_p, c.c_void_p)),
    "otelbpf_hash_each": (None, (c.c_char_p, c.c_int64, c.c_void_p, c.c_int64, c.c_void_p)),
}


@functools.cache
def library() -> Any:
    """The library, opened on first use; CannotRun when there is none for this machine."""
    path = Path(__file__).parent / "objects" / f"{compiled_for()}.so"
    try:
        opened = c.CDLL(str(path))
    except OSError as refused:
        raise CannotRun(f"compiled loops: {refused}; `make bpf` makes them for x86_64 and aarch64") from refused
    for name, (result, arguments) in _PROTOTYPES.items():
        function = getattr(opened, name)
        function.restype, function.argtypes = result, arguments
    return opened


def address_of(array: NDArray[Any]) -> int:
    """Where *array*, which must be contiguous, begins; for as long as somebody holds it.

    By the first byte of its buffer: numpy's own way to say it takes four times as long, but it is the only one where
    the buffer is read-only.
    """
    if not array.size:
        return 0
    if not array.flags.writeable:
        return array.ctypes.data
    return c.addressof(c.c_char.from_buffer(array.data))
