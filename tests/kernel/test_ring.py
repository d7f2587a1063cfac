"""Rings under load: every record once, in order, or counted as lost."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from otelbpf.kernel.btf import record_dtype
from otelbpf.kernel.drain import Drain, Source
from otelbpf.kernel.memory_order import AtomicRing, YieldingRing
from otelbpf.kernel.object import Object
from otelbpf.kernel.ring import Ring
from tests.kernel.sample import compile_sample

READERS = [Ring, YieldingRing, AtomicRing]
BURST = 1000
BURSTS = 100


@pytest.fixture(scope="module", params=[8, 64, 512], ids=lambda payload: f"payload {payload}")
def sized_sample(request, tmp_path_factory):
    return compile_sample(tmp_path_factory.mktemp("objects"), request.param)


def loaded_object(path, ring_bytes=1 << 22, **constants) -> Object:
    return Object(
        path, constants={"burst": BURST, **constants}, map_sizes={"events": ring_bytes}, programs=["produce", "hold"]
    )


def opened_ring(loaded: Object, reader: type[Ring] = Ring) -> Ring:
    events = loaded.map("events")
    return reader(events.fd, events.max_entries, loaded.layout("sample").itemsize)


def all_of(ring: Ring, limit: int) -> bytes:
    read = []
    while (records := ring.drain(limit)) is not None:
        read.append(records)
    return b"".join(read)


@pytest.mark.parametrize("reader", READERS)
def test_what_a_program_writes_is_what_is_read(sized_sample, reader):
    with loaded_object(sized_sample, some_ports=[0, 0, 53, 0]) as loaded, opened_ring(loaded, reader) as ring:
        loaded.run("produce")
        rows = np.frombuffer(all_of(ring, ring.producer), record_dtype(loaded.layout("sample")))
    assert rows["sequence"].tolist() == list(range(BURST))
    assert set(rows["negative"].tolist()) == {-7}
    assert set(rows["ports"][:, 2].tolist()) == {53}
    assert set(rows["name"].tolist()) == {b"ok"}
    assert rows["yes"].all()
    assert rows[0]["address"].tobytes() == bytes(15) + b"\1"
    assert (np.diff(rows["head"]["time_ns"].astype(np.int64)) >= 0).all()


@pytest.mark.parametrize("discard_every", [0, 2, 7])
def test_chased_under_load_every_record_comes_once_and_in_order(sized_sample, discard_every):
    with loaded_object(sized_sample, discard_every=discard_every) as loaded, opened_ring(loaded) as ring:
        producer = threading.Thread(target=lambda: [loaded.run("produce") for _ in range(BURSTS)])
        read = []
        producer.start()
        while producer.is_alive():
            read.append(all_of(ring, ring.producer))
        producer.join()
        read.append(all_of(ring, ring.producer))
        sequence = np.frombuffer(b"".join(read), record_dtype(loaded.layout("sample")))["sequence"]
        counts = loaded.bss("event_counts")
        assert counts["seen"] == BURST * BURSTS
        assert (np.diff(sequence.astype(np.int64)) > 0).all()
        assert counts["seen"] == len(sequence) + ring.discarded + counts["ring_full"]
        if discard_every:
            assert not (sequence % discard_every == 0).any()


def test_a_full_ring_loses_and_counts(sample):
    with loaded_object(sample, 1 << 12) as loaded, opened_ring(loaded) as ring:
        loaded.run("produce")
        fits = 4096 // ring.stride
        counts = loaded.bss("event_counts")
        assert (ring.pending, counts["ring_full"]) == (fits, BURST - fits)
        rows = np.frombuffer(all_of(ring, ring.producer), record_dtype(loaded.layout("sample")))
        assert rows["sequence"].tolist() == list(range(fits))
        loaded.run("produce")
        assert ring.pending == fits


def test_records_behind_a_busy_one_wait_for_it(sample):
    with loaded_object(sample) as loaded, opened_ring(loaded) as ring:
        stopped_by_busy = 0
        read = []
        holders = [threading.Thread(target=loaded.run, args=("hold",)) for _ in range(5)]
        for holder in holders:
            holder.start()
            while holder.is_alive():
                limit = ring.producer
                read.append(all_of(ring, limit))
                stopped_by_busy += ring.position < limit
            holder.join()
        read.append(all_of(ring, ring.producer))
        rows = np.frombuffer(b"".join(read), record_dtype(loaded.layout("sample")))
    assert rows["sequence"].tolist() == list(range(5))
    assert stopped_by_busy > 0


def test_the_drain_thread_loses_nothing_at_full_speed(sample):
    with (
        loaded_object(sample) as loaded,
        opened_ring(loaded) as ring,
        Drain([Source("sample", ring)], 1 << 30) as drain,
    ):
        taken: list[bytes] = []
        producer = threading.Thread(target=lambda: [paced(loaded) for _ in range(BURSTS)])
        producer.start()
        while producer.is_alive():
            drain.arrived.wait(1)
            taken += everything(drain)
        producer.join()
        drain.stop()
        taken += everything(drain)
        sequence = np.frombuffer(b"".join(taken), record_dtype(loaded.layout("sample")))["sequence"]
        counts = loaded.bss("event_counts")
        assert counts["seen"] == BURST * BURSTS == len(sequence) + counts["ring_full"] + drain.shed[0]
        assert counts["ring_full"] == drain.shed[0] == drain.pending(0) == 0
        assert sequence.tolist() == list(range(BURST * BURSTS))


def everything(drain: Drain) -> list[bytes]:
    """What was read so far, slice by slice."""
    now, taken = drain.ticks, []
    while some := drain.take(now):
        taken += [records for _, records in some]
    return taken


def paced(loaded: Object) -> None:
    """A burst, when the ring has room for it: what is tested is the drain, not the size of the ring."""
    loaded.run("produce")
    time.sleep(0.001)


def test_what_the_drain_sheds_balances(sample):
    with loaded_object(sample) as loaded, opened_ring(loaded) as ring:
        capacity = 500 * ring.stride
        with Drain([Source("sample", ring)], capacity) as drain:
            for _ in range(3):
                loaded.run("produce")
            drain.stop()
            kept = sum(map(len, everything(drain))) // ring.stride
            counts = loaded.bss("event_counts")
            assert counts["seen"] == kept + drain.shed[0] + counts["ring_full"]
            assert kept * ring.stride <= capacity
