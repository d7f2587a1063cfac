"""A BPF ring buffer, read by mapping it and copying runs of equal-sized records out.

Layout: one page with the consumer position, one with the producer position, then the data, mapped twice in a row so
that any run of records is contiguous. A record is a u32 length (bit 31 busy, bit 30 discarded), a u32 page offset and
the payload padded to 8 bytes; a ring here holds one record size only, so records stand at a fixed stride.

Order of work, which everything rests on: read the producer position, check the headers *in the ring*, copy, publish
the consumer position. Copying first and checking busy bits in the copy would be wrong: memcpy may load a tail record
while it is busy and its header after the commit.

Positions are read and written through memoryviews cast to 'Q': one aligned 8-byte load or store. `struct.pack_into`
is not that (it writes a zero, or byte by byte, first), and the kernel then believes that the ring is full.
"""

from __future__ import annotations

from array import array
from mmap import MAP_POPULATE, MAP_SHARED, PAGESIZE, PROT_READ, PROT_WRITE, mmap
from typing import TYPE_CHECKING, Self

from otelbpf.errors import OtelbpfError

if TYPE_CHECKING:
    from types import TracebackType

_BUSY, _DISCARDED = 1 << 31, 1 << 30
HEADER_BYTES = 8
"""Of a record, before the struct."""


class Ring:
    """The reader of one ring map. Not safe for two readers: they would both get every record.

    Stdlib only, and never lets go of the GIL, so that a busy thread elsewhere costs a tick one hand-over at most.
    """

    def __init__(self, fd: int, ring_bytes: int, record_bytes: int, max_batch_bytes: int = 256 << 10) -> None:
        """*fd* is the map's, *ring_bytes* its max_entries, *record_bytes* the size of the C struct."""
        self.fd = fd
        self.stride = HEADER_BYTES + (record_bytes + 7 & ~7)
        self.discarded = 0
        """Records that a program took back."""
        self.position = 0
        self._left = 0
        self._open = False
        self._ring_bytes = ring_bytes
        self._record_bytes = record_bytes
        # A copy that stays in the cache of a core, and below what the allocator would map anew each time.
        self._max_batch = max(1, min(max_batch_bytes, ring_bytes) // self.stride)
        self._clean_headers = array("I", [record_bytes]) * self._max_batch

    def __enter__(self) -> Self:
        self._consumer_page = mmap(self.fd, PAGESIZE, MAP_SHARED, PROT_READ | PROT_WRITE)
        self._producer_pages = mmap(
            self.fd, PAGESIZE + 2 * self._ring_bytes, MAP_SHARED | MAP_POPULATE, PROT_READ, offset=PAGESIZE
        )
        self._open_views()
        self._open = True
        return self

    def _open_views(self) -> None:
        everything = memoryview(self._producer_pages)
        self._consumer = memoryview(self._consumer_page).cast("Q")
        self._producer = everything[:PAGESIZE].cast("Q")
        self._data = everything[PAGESIZE:]
        self._words = self._data.cast("I")
        self._clean = memoryview(self._clean_headers).tobytes()
        self.position = self._consumer[0]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left, self._open = self.pending, False
        for view in (self._words, self._data, self._producer, self._consumer):
            view.release()
        self._consumer_page.close()
        self._producer_pages.close()

    @property
    def capacity(self) -> int:
        """Records that it holds when it is full."""
        return self._ring_bytes // self.stride

    @property
    def producer(self) -> int:
        """Where the kernel will write next: a limit for `drain`."""
        return self._producer[0]

    @property
    def pending(self) -> int:
        """Records in the ring that have not been read; after closing, those that were left in it."""
        if not self._open:
            return self._left
        return (self.producer - self.position) // self.stride

    def drain(self, limit_position: int) -> bytes | None:
        """Whole records, headers included, up to *limit_position* and one batch at most.

        None when there is nothing to get now: empty, or the record at the head is still being written. Empty bytes
        when all that was there had been discarded. *limit_position* was read from `producer` before.
        """
        position = self.position
        count = min((limit_position - position) // self.stride, self._max_batch)
        if count <= 0:
            return None
        offset = position & self._ring_bytes - 1
        headers = self._words[offset >> 2 : offset + count * self.stride >> 2 : self.stride >> 2].tobytes()
        if not self._clean.startswith(headers):
            clean = self._clean_prefix(headers, count)
            if not clean:
                return self._drain_singly(offset, count)
            count = clean
        self._fence()
        length = count * self.stride
        records = bytes(self._data[offset : offset + length])
        self._publish(position + length)
        return records

    def _clean_prefix(self, headers: bytes, count: int) -> int:
        """How many records from the head on are neither busy nor discarded; a busy tail is common with many CPUs."""
        clean, dirty = 0, count
        while dirty - clean > 1:
            middle = (clean + dirty) // 2
            if self._clean.startswith(headers[: 4 * middle]):
                clean = middle
            else:
                dirty = middle
        return clean

    def _drain_singly(self, offset: int, count: int) -> bytes | None:
        """Record by record, because the one at the head is busy (stop), discarded (leave out) or foreign (raise)."""
        records, done = [], 0
        for at in range(offset, offset + count * self.stride, self.stride):
            header = self._words[at >> 2]
            if header & _BUSY:
                break
            if header & ~_DISCARDED != self._record_bytes:
                raise OtelbpfError(
                    f"ring: a record of {header & ~_DISCARDED} bytes among records of {self._record_bytes}; "
                    "the BPF object and its struct do not belong together"
                )
            done += 1
            if header & _DISCARDED:
                self.discarded += 1
            else:
                self._fence()
                records.append(bytes(self._data[at : at + self.stride]))
        if not done:
            return None
        self._publish(self.position + done * self.stride)
        return b"".join(records)

    def _publish(self, position: int) -> None:
        self.position = self._consumer[0] = position

    def _fence(self) -> None:
        """x86 reorders neither loads with loads nor stores with earlier loads, and each step here is an opaque C call.

        Other machines: `memory_order.py`.
        """


def ring_bytes(wanted: int) -> int:
    """The least size that a ring can have and that holds *wanted* bytes: a power of two, whole pages."""
    return max(PAGESIZE, 1 << (wanted - 1).bit_length())
