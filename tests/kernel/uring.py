"""io_uring, by its system calls: one operation at a time, in a ring that ends with its process.

The offsets and structures are those of <linux/io_uring.h>.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct

SETUP, ENTER = 425, 426
SEND, RECV = 26, 27
OF_COMPLETIONS, OF_ENTRIES = 0x8000000, 0x10000000
GET_EVENTS = 1
KERNEL_POLLS = 2
WAKE_UP = 2
ENTRY = struct.Struct("<BBHiQQIIQ")
COMPLETION = struct.Struct("<Qi")
COMPLETION_BYTES = 16
QUEUE = struct.Struct("<10I")
"""Offsets in a ring: head, tail, mask, entries, …; of submissions the seventh, of completions the sixth is the array."""


class Ring:
    """One ring of the calling process. With *kernel_polls* a thread of the kernel's takes what is submitted."""

    def __init__(self, *, kernel_polls: bool = False) -> None:
        parameters = bytearray(120)
        struct.pack_into("<I", parameters, 8, KERNEL_POLLS if kernel_polls else 0)
        self._polled = kernel_polls
        self._fd = _call(SETUP, 4, (ctypes.c_char * 120).from_buffer(parameters))
        self._submitted = QUEUE.unpack_from(parameters, 40)
        self._completed = QUEUE.unpack_from(parameters, 80)
        self._entries = mmap.mmap(self._fd, mmap.PAGESIZE, offset=OF_ENTRIES)
        self._submissions = mmap.mmap(self._fd, mmap.PAGESIZE)
        self._completions = mmap.mmap(self._fd, mmap.PAGESIZE, offset=OF_COMPLETIONS)

    def done(self, operation: int, descriptor: int, buffer: bytearray) -> int:
        """Does SEND or RECV and waits for it; its result, or minus the error."""
        address = ctypes.addressof((ctypes.c_char * len(buffer)).from_buffer(buffer))
        ENTRY.pack_into(self._entries, 0, operation, 0, 0, descriptor, 0, address, len(buffer), 0, 0)
        tail = struct.unpack_from("<I", self._submissions, self._submitted[1])[0]
        struct.pack_into("<I", self._submissions, self._submitted[6] + 4 * (tail % self._submitted_entries()), 0)
        struct.pack_into("<I", self._submissions, self._submitted[1], tail + 1)
        _call(ENTER, self._fd, 1, 1, GET_EVENTS | (WAKE_UP if self._polled else 0), None, 0)
        head = struct.unpack_from("<I", self._completions, self._completed[0])[0]
        at = self._completed[5] + COMPLETION_BYTES * (head % self._completed_entries())
        result: int = COMPLETION.unpack_from(self._completions, at)[1]
        struct.pack_into("<I", self._completions, self._completed[0], head + 1)
        return result

    def _submitted_entries(self) -> int:
        return int(struct.unpack_from("<I", self._submissions, self._submitted[3])[0])

    def _completed_entries(self) -> int:
        return int(struct.unpack_from("<I", self._completions, self._completed[3])[0])


def _call(number: int, *arguments: object) -> int:
    result = ctypes.CDLL(None, use_errno=True).syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(result)
