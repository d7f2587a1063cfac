"""libbpf.so.1 by ctypes: the prototypes we call, and what it has to say kept for our own sentences."""

from __future__ import annotations

import ctypes as c
import functools
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from otelbpf.errors import CannotRun

if TYPE_CHECKING:
    from collections.abc import Iterator

LIBRARY = "libbpf.so.1"
_OPENING = threading.Lock()
_WARNING_OR_INFORMATION = 1

_PROTOTYPES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "libbpf_major_version": (c.c_uint32, ()),
    "libbpf_minor_version": (c.c_uint32, ()),
    "libbpf_set_print": (c.c_void_p, (c.c_void_p,)),
    "bpf_object__open_file": (c.c_void_p, (c.c_char_p, c.c_void_p)),
    "bpf_object__load": (c.c_int, (c.c_void_p,)),
    "bpf_object__close": (None, (c.c_void_p,)),
    "bpf_object__next_program": (c.c_void_p, (c.c_void_p, c.c_void_p)),
    "bpf_object__next_map": (c.c_void_p, (c.c_void_p, c.c_void_p)),
    "bpf_object__find_map_by_name": (c.c_void_p, (c.c_void_p, c.c_char_p)),
    "bpf_program__name": (c.c_char_p, (c.c_void_p,)),
    "bpf_program__section_name": (c.c_char_p, (c.c_void_p,)),
    "bpf_program__fd": (c.c_int, (c.c_void_p,)),
    "bpf_program__set_autoload": (c.c_int, (c.c_void_p, c.c_bool)),
    "bpf_program__attach": (c.c_void_p, (c.c_void_p,)),
    "bpf_program__attach_cgroup": (c.c_void_p, (c.c_void_p, c.c_int)),
    "bpf_program__attach_iter": (c.c_void_p, (c.c_void_p, c.c_void_p)),
    "bpf_map__name": (c.c_char_p, (c.c_void_p,)),
    "bpf_map__fd": (c.c_int, (c.c_void_p,)),
    "bpf_map__key_size": (c.c_uint32, (c.c_void_p,)),
    "bpf_map__value_size": (c.c_uint32, (c.c_void_p,)),
    "bpf_map__type": (c.c_int, (c.c_void_p,)),
    "bpf_map__max_entries": (c.c_uint32, (c.c_void_p,)),
    "bpf_map__set_max_entries": (c.c_int, (c.c_void_p, c.c_uint32)),
    "bpf_map__initial_value": (c.c_void_p, (c.c_void_p, c.POINTER(c.c_size_t))),
    "bpf_link__fd": (c.c_int, (c.c_void_p,)),
    "bpf_link__destroy": (c.c_int, (c.c_void_p,)),
    "bpf_iter_create": (c.c_int, (c.c_int,)),
    "bpf_prog_test_run_opts": (c.c_int, (c.c_int, c.c_void_p)),
    "bpf_prog_load": (c.c_int, (c.c_int, c.c_char_p, c.c_char_p, c.c_void_p, c.c_size_t, c.c_void_p)),
    "bpf_enable_stats": (c.c_int, (c.c_int,)),
    "bpf_map_lookup_elem": (c.c_int, (c.c_int, c.c_void_p, c.c_void_p)),
    "bpf_map_update_elem": (c.c_int, (c.c_int, c.c_void_p, c.c_void_p, c.c_uint64)),
    "bpf_map_delete_elem": (c.c_int, (c.c_int, c.c_void_p)),
    "bpf_map_get_next_key": (c.c_int, (c.c_int, c.c_void_p, c.c_void_p)),
    "bpf_map_lookup_batch": (c.c_int, (c.c_int, *[c.c_void_p] * 4, c.POINTER(c.c_uint32), c.c_void_p)),
    "bpf_map_lookup_and_delete_batch": (c.c_int, (c.c_int, *[c.c_void_p] * 4, c.POINTER(c.c_uint32), c.c_void_p)),
    "libbpf_num_possible_cpus": (c.c_int, ()),
    "btf__load_vmlinux_btf": (c.c_void_p, ()),
    "btf__find_by_name_kind": (c.c_int32, (c.c_void_p, c.c_char_p, c.c_uint32)),
    "btf__type_by_id": (c.POINTER(c.c_uint32), (c.c_void_p, c.c_uint32)),
    "btf__free": (None, (c.c_void_p,)),
}


class TestRun(c.Structure):
    """struct bpf_test_run_opts; libbpf reads only `size` bytes of it."""

    _fields_ = (
        ("size", c.c_size_t),
        ("data_in", c.c_void_p),
        ("data_out", c.c_void_p),
        ("data_size_in", c.c_uint32),
        ("data_size_out", c.c_uint32),
        ("context_in", c.c_void_p),
        ("context_out", c.c_void_p),
        ("context_size_in", c.c_uint32),
        ("context_size_out", c.c_uint32),
        ("retval", c.c_uint32),
        ("repeat", c.c_int),
        ("duration", c.c_uint32),
        ("flags", c.c_uint32),
        ("cpu", c.c_uint32),
        ("batch_size", c.c_uint32),
    )


class IteratorTarget(c.Structure):
    """struct bpf_iter_attach_opts with the first member of union bpf_iter_link_info behind it."""

    _fields_ = (("size", c.c_size_t), ("link_info", c.c_void_p), ("link_info_bytes", c.c_uint32))


class Libbpf:
    """The opened library: each function of the table above is an attribute.

    Functions that give a pointer give None on failure; `error()` is the errno of the last call of this thread.
    """

    def __init__(self, library: c.CDLL, c_library: c.CDLL) -> None:
        self._listening = threading.local()
        for name, (result, arguments) in _PROTOTYPES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)
        self._vasprintf = c_library.vasprintf
        self._vasprintf.argtypes = (c.POINTER(c.c_void_p), c.c_char_p, c.c_void_p)
        self._free = c_library.free
        self._free.argtypes, self._free.restype = (c.c_void_p,), None
        # Kept for as long as the library: it is the process's only printer.
        self._printer = c.CFUNCTYPE(c.c_int, c.c_int, c.c_char_p, c.c_void_p)(self._print)
        self.libbpf_set_print(c.cast(self._printer, c.c_void_p))

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def error(self) -> int:
        """The errno of this thread's last call."""
        return c.get_errno()

    @contextmanager
    def messages(self) -> Iterator[list[str]]:
        """What libbpf says in this thread while the block runs; outside of such a block it is discarded."""
        outer = getattr(self._listening, "to", None)
        heard: list[str] = []
        self._listening.to = heard
        try:
            yield heard
        finally:
            self._listening.to = outer

    def _print(self, level: int, template: bytes, arguments: int) -> int:
        heard = getattr(self._listening, "to", None)
        if level > _WARNING_OR_INFORMATION or heard is None:
            return 0
        # A verifier log comes as one message of up to megabytes: only libc can tell its length, and only once.
        # A va_list is passed by reference in both the x86-64 and the AArch64 calling convention.
        text = c.c_void_p()
        if self._vasprintf(c.byref(text), template, arguments) >= 0:
            heard.append(c.string_at(text.value or 0).decode(errors="replace"))
            self._free(text)
        return 0


def libbpf() -> Libbpf:
    """The library, opened on first use; CannotRun when the machine has none that will do."""
    with _OPENING:  # probes are attached side by side: of two printers one would be freed while libbpf calls it
        return _opened()


@functools.cache
def _opened() -> Libbpf:
    try:
        return Libbpf(c.CDLL(LIBRARY, use_errno=True), c.CDLL(None))
    except OSError as missing:
        raise CannotRun(f"{LIBRARY} cannot be opened ({missing}); install Debian's package libbpf1") from missing
    except AttributeError as old:
        raise CannotRun(f"{LIBRARY} is too old ({old}); version 1.0 or newer is needed") from old
