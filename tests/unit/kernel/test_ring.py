from __future__ import annotations

import os
from mmap import PAGESIZE

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otelbpf.errors import OtelbpfError
from otelbpf.kernel.memory_order import AtomicRing, YieldingRing, ring_class
from otelbpf.kernel.ring import Ring, ring_bytes
from tests.unit.kernel.fake_ring import FakeRing

READERS = [Ring, YieldingRing, AtomicRing]


def payloads(records: bytes | None, stride: int) -> list[int]:
    """The number that each record carries."""
    whole = records or b""
    assert len(whole) % stride == 0
    return [int.from_bytes(whole[at + 8 : at + 12], "little") for at in range(0, len(whole), stride)]


def number(value: int) -> bytes:
    return value.to_bytes(4, "little")


@pytest.fixture(params=READERS, ids=lambda reader: reader.__name__)
def reader(request):
    return request.param


def test_records_come_whole_and_in_order(reader):
    fake = FakeRing(PAGESIZE, 20)
    with reader(fake.fd, PAGESIZE, 20) as ring:
        for value in range(5):
            fake.put(number(value))
        assert ring.pending == 5
        assert payloads(ring.drain(ring.producer), ring.stride) == [0, 1, 2, 3, 4]
        assert ring.drain(ring.producer) is None
        assert fake.consumer == fake.producer == ring.position


def test_nothing_is_read_beyond_the_limit(reader):
    fake = FakeRing(PAGESIZE, 20)
    with reader(fake.fd, PAGESIZE, 20) as ring:
        fake.put(number(1))
        limit = ring.producer
        fake.put(number(2))
        assert payloads(ring.drain(limit), ring.stride) == [1]
        assert ring.drain(limit) is None
        assert ring.pending == 1


def test_a_batch_has_a_bound(reader):
    fake = FakeRing(PAGESIZE, 8)
    with reader(fake.fd, PAGESIZE, 8, max_batch_bytes=3 * 16) as ring:
        for value in range(7):
            fake.put(number(value))
        assert [payloads(ring.drain(ring.producer), 16) for _ in range(3)] == [[0, 1, 2], [3, 4, 5], [6]]


def test_a_busy_head_gives_nothing_until_it_is_committed(reader):
    fake = FakeRing(PAGESIZE, 20)
    with reader(fake.fd, PAGESIZE, 20) as ring:
        busy = fake.reserve(number(1))
        fake.put(number(2))
        assert ring.drain(ring.producer) is None
        assert fake.consumer == 0
        fake.commit(busy)
        assert payloads(ring.drain(ring.producer), ring.stride) == [1, 2]


def test_records_before_a_busy_one_are_read_and_none_behind_it(reader):
    fake = FakeRing(PAGESIZE, 20)
    with reader(fake.fd, PAGESIZE, 20) as ring:
        for value in range(9):
            fake.put(number(value))
        fake.reserve(number(9))
        fake.put(number(10))
        assert payloads(ring.drain(ring.producer), ring.stride) == list(range(9))
        assert ring.drain(ring.producer) is None


def test_discarded_records_are_left_out_and_counted(reader):
    fake = FakeRing(PAGESIZE, 20)
    with reader(fake.fd, PAGESIZE, 20) as ring:
        for value in range(6):
            fake.commit(fake.reserve(number(value)), discard=value in {0, 1, 4})
        read = []
        while (records := ring.drain(ring.producer)) is not None:
            read += payloads(records, ring.stride)
        assert read == [2, 3, 5]
        assert ring.discarded == 3
        assert ring.pending == 0


def test_a_run_of_discarded_records_is_empty_but_not_the_end(reader):
    fake = FakeRing(PAGESIZE, 20)
    with reader(fake.fd, PAGESIZE, 20) as ring:
        fake.commit(fake.reserve(number(0)), discard=True)
        assert ring.drain(ring.producer) == b""
        assert ring.drain(ring.producer) is None


def test_records_across_the_end_of_the_ring_are_whole(reader):
    fake = FakeRing(PAGESIZE, 48)
    per_ring = PAGESIZE // fake.stride
    with reader(fake.fd, PAGESIZE, 48) as ring:
        read = []
        for value in range(5 * per_ring):
            assert fake.put(number(value))
            if value % 50 == 49:
                read += payloads(ring.drain(ring.producer), ring.stride)
        read += payloads(ring.drain(ring.producer), ring.stride)
        assert read == list(range(5 * per_ring))


def test_a_record_of_another_size_is_an_error_of_ours(reader):
    fake = FakeRing(PAGESIZE, 20)
    with reader(fake.fd, PAGESIZE, 24) as ring:
        fake.put(number(1))
        with pytest.raises(OtelbpfError, match="a record of 20 bytes among records of 24"):
            ring.drain(ring.producer)


def test_a_reader_resumes_where_the_last_one_stopped(reader):
    fake = FakeRing(PAGESIZE, 20)
    fake.put(number(1))
    with reader(fake.fd, PAGESIZE, 20) as ring:
        ring.drain(ring.producer)
        fake.put(number(2))
    assert ring.pending == 1
    with reader(fake.fd, PAGESIZE, 20) as ring:
        assert payloads(ring.drain(ring.producer), ring.stride) == [2]


@pytest.mark.parametrize("start", [2**32 - 64, 2**40])
def test_positions_have_64_bits(reader, start):
    fake = FakeRing(PAGESIZE, 8)
    fake.consumer = fake.producer = start
    with reader(fake.fd, PAGESIZE, 8) as ring:
        for value in range(10):
            fake.put(number(value))
        assert payloads(ring.drain(ring.producer), 16) == list(range(10))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["put", "reserve", "commit", "discard", "drain", "drain"]), max_size=400),
    st.integers(1, 64),
)
def test_any_interleaving_reads_every_committed_record_once_and_in_order(acts, record_bytes):
    fake = FakeRing(PAGESIZE, max(4, record_bytes))
    busy: list[tuple[int, int]] = []
    committed: set[int] = set()
    read: list[int] = []
    with Ring(fake.fd, PAGESIZE, fake.record_bytes, max_batch_bytes=16 * 32) as ring:
        for value, act in enumerate(acts):
            if act in {"put", "reserve"} and (position := fake.reserve(number(value))) is not None:
                busy.append((position, value))
            if act in {"put", "commit", "discard"} and busy:
                position, one = busy.pop()
                fake.commit(position, discard=act == "discard")
                committed |= {one} if act != "discard" else set()
            if act == "drain":
                read += payloads(ring.drain(ring.producer), ring.stride)
        for position, one in busy:
            fake.commit(position)
            committed.add(one)
        while (records := ring.drain(ring.producer)) is not None:
            read += payloads(records, ring.stride)
    os.close(fake.fd)
    assert read == sorted(committed)


@pytest.mark.parametrize(
    ("machine", "readers"),
    [("x86_64", {Ring}), ("aarch64", {AtomicRing, YieldingRing}), ("riscv64", {AtomicRing, YieldingRing})],
)
def test_the_reader_follows_the_memory_model(machine, readers):
    assert ring_class(machine) in readers


@pytest.mark.parametrize(
    ("wanted", "given"), [(1, PAGESIZE), (PAGESIZE, PAGESIZE), (PAGESIZE + 1, 2 * PAGESIZE), (3 << 20, 4 << 20)]
)
def test_ring_sizes_are_powers_of_two_of_whole_pages(wanted, given):
    assert ring_bytes(wanted) == given
