from __future__ import annotations

from contextlib import ExitStack
from mmap import PAGESIZE

import pytest

from otelbpf.errors import OtelbpfError
from otelbpf.kernel import drain as drain_module
from otelbpf.kernel.drain import Drain, Source
from otelbpf.kernel.ring import Ring
from tests.unit.kernel.fake_ring import FakeRing

STRIDE = 16


@pytest.fixture
def rings():
    fakes = [FakeRing(PAGESIZE, 8), FakeRing(PAGESIZE, 8)]
    with ExitStack() as open_:
        sources = [
            Source(name, open_.enter_context(Ring(fake.fd, PAGESIZE, 8)))
            for name, fake in zip(("tcp", "dns"), fakes, strict=True)
        ]
        yield fakes, sources


def counted(taken: list[tuple[int, bytes]]) -> dict[int, list[int]]:
    numbers: dict[int, list[int]] = {}
    for index, records in taken:
        found = [int.from_bytes(records[at + 8 : at + 16], "little") for at in range(0, len(records), STRIDE)]
        numbers.setdefault(index, []).extend(found)
    return numbers


def test_records_of_all_rings_arrive_with_their_source(rings):
    (tcp, dns), sources = rings
    with Drain(sources, 1 << 20) as drain:
        tcp.put(bytes([1]))
        tcp.put(bytes([2]))
        dns.put(bytes([3]))
        taken: list[tuple[int, bytes]] = []
        while sum(len(records) for _, records in taken) < 3 * STRIDE:
            assert drain.arrived.wait(10)
            taken += drain.take()
    assert counted(taken) == {0: [1, 2], 1: [3]}


def test_stopping_reads_the_rings_once_more(rings):
    (tcp, _dns), sources = rings
    with Drain(sources, 1 << 20) as drain:
        tcp.put(bytes([1]))
        drain.stop()
        tcp.put(bytes([2]))
        assert counted(drain.take()) == {0: [1]}
        assert drain.pending(0) == 1
        drain.stop()


def test_what_nobody_takes_is_pending_and_not_in_the_ring(rings):
    (tcp, _dns), sources = rings
    with Drain(sources, 1 << 20) as drain:
        for value in range(5):
            tcp.put(bytes([value]))
        drain.stop()
        assert (drain.pending(0), drain.pending(1), sources[0].ring.pending) == (5, 0, 0)
        drain.take()
        assert drain.pending(0) == 0


def test_over_capacity_the_oldest_of_that_source_is_shed_and_counted(rings):
    (tcp, dns), sources = rings
    with Drain(sources, 2 * STRIDE) as drain:
        dns.put(bytes([10]))
        for value in range(5):
            tcp.put(bytes([value]))
            while sources[0].ring.pending:
                drain.arrived.wait(0.01)
        drain.stop()
        assert counted(drain.take()) == {0: [3, 4], 1: [10]}
        assert drain.shed == [3, 0]
        assert drain.most_waiting_bytes <= 2 * STRIDE


def test_what_ends_the_thread_is_raised_by_take(rings):
    (tcp, _dns), sources = rings
    broken = [Source("tcp", sources[0].ring), sources[1]]
    tcp.record_bytes = 4
    with Drain(broken, 1 << 20) as drain:
        tcp.put(b"\1")
        assert drain.arrived.wait(10)
        with pytest.raises(OtelbpfError, match="do not belong together"):
            drain.take()


def test_catching_up_waits_for_what_the_rings_hold(rings):
    (tcp, dns), sources = rings
    with Drain(sources, 1 << 20) as drain:
        drain.catch_up(10)  # nothing there: returns at once
        for value in range(3):
            tcp.put(bytes([value]))
            dns.put(bytes([10 + value]))
            drain.catch_up(10)
            assert counted(drain.take()) == {0: [value], 1: [10 + value]}
        drain.stop()
        tcp.put(b"\1")
        drain.catch_up(10)  # nobody reads any more: does not wait for it


def test_what_is_much_is_taken_in_slices_of_whole_ticks(rings, monkeypatch):
    (tcp, dns), sources = rings
    monkeypatch.setattr(drain_module, "_SLICE_BYTES", 2 * STRIDE)
    monkeypatch.setattr(drain_module, "PLENTY_BYTES", 6 * STRIDE)
    with Drain(sources, 1 << 20) as drain:
        for value in range(3):
            assert not drain.plenty.is_set()
            tcp.put(bytes([value]))
            dns.put(bytes([10 + value]))
            drain.catch_up(10)
        assert drain.plenty.wait(10)
        now = drain.ticks
        tcp.put(b"\3")
        drain.catch_up(10)
        assert [counted(drain.take(now)) for _ in range(4)] == [{0: [n], 1: [10 + n]} for n in range(3)] + [{}]
        assert (drain.pending(0), drain.pending(1)) == (1, 0)
