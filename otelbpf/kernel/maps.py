"""A BPF map by bytes: keys and values as the C side declares them."""

from __future__ import annotations

import ctypes
import errno
import os
from typing import TYPE_CHECKING

from otelbpf.errors import OtelbpfError
from otelbpf.kernel.libbpf import libbpf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Map:
    """One map of a loaded object; lives as long as the object. In a per-CPU map a value is those of all CPUs, each
    padded to eight bytes, one behind the other."""

    def __init__(self, name: str, fd: int, key_bytes: int, value_bytes: int, max_entries: int) -> None:
        self.name, self.fd = name, fd
        self.key_bytes, self.value_bytes, self.max_entries = key_bytes, value_bytes, max_entries

    def update(self, key: bytes, value: bytes) -> None:
        """Sets *key* to *value*; raises OtelbpfError when the map is full."""
        self._check("key", key, self.key_bytes)
        self._check("value", value, self.value_bytes)
        self._done("update", libbpf().bpf_map_update_elem(self.fd, key, value, 0))

    def lookup(self, key: bytes) -> bytes | None:
        """The value of *key*, or None."""
        self._check("key", key, self.key_bytes)
        value = ctypes.create_string_buffer(self.value_bytes)
        found = libbpf().bpf_map_lookup_elem(self.fd, key, value)
        return value.raw if self._done("lookup", found, errno.ENOENT) else None

    def delete(self, key: bytes) -> bool:
        """Whether *key* was there."""
        self._check("key", key, self.key_bytes)
        return self._done("delete", libbpf().bpf_map_delete_elem(self.fd, key), errno.ENOENT)

    def __iter__(self) -> Iterator[bytes]:
        """The keys. While others change the map, keys may come twice or not at all, as the kernel has it."""
        key: bytes | None = None
        following = ctypes.create_string_buffer(self.key_bytes)
        while self._done("iterate", libbpf().bpf_map_get_next_key(self.fd, key, following), errno.ENOENT):
            key = following.raw
            yield key

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Keys with their values; those that vanish meanwhile are left out."""
        for key in self:
            value = self.lookup(key)
            if value is not None:
                yield key, value

    def read_all(self) -> tuple[bytes, bytes]:
        """All keys and all values, in one order; of a hash map, with a few system calls."""
        return self._all(libbpf().bpf_map_lookup_batch, "read")

    def take_all(self) -> tuple[bytes, bytes]:
        """The same, and the map is empty after it. What is added to a value meanwhile may be lost."""
        return self._all(libbpf().bpf_map_lookup_and_delete_batch, "empty")

    def _all(self, call: Callable[..., int], act: str) -> tuple[bytes, bytes]:
        keys = ctypes.create_string_buffer(self.key_bytes * self.max_entries)
        values = ctypes.create_string_buffer(self.value_bytes * self.max_entries)
        before, place = None, ctypes.create_string_buffer(max(4, self.key_bytes))
        got_keys, got_values, more = b"", b"", True
        while more:
            count = ctypes.c_uint32(self.max_entries)
            more = self._done(act, call(self.fd, before, place, keys, values, count, None), errno.ENOENT)
            got_keys += ctypes.string_at(keys, count.value * self.key_bytes)
            got_values += ctypes.string_at(values, count.value * self.value_bytes)
            before = place
        return got_keys, got_values

    def __len__(self) -> int:
        return sum(1 for _key in self)

    def _check(self, what: str, given: bytes, wanted_bytes: int) -> None:
        if len(given) != wanted_bytes:
            raise ValueError(f"map {self.name}: {what} of {len(given)} bytes, must be {wanted_bytes}")

    def _done(self, act: str, result: int, absent: int = 0) -> bool:
        if result == -absent and absent:
            return False
        if result < 0:
            full = " (the map is full)" if -result == errno.E2BIG else ""
            raise OtelbpfError(f"map {self.name}: cannot {act}: {os.strerror(-result)}{full}")
        return True
