"""ring → array: what reading a record costs, and how many a second go through without loss."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from otelbpf.kernel.allocator import give_memory_back
from otelbpf.kernel.btf import record_dtype
from otelbpf.kernel.drain import Drain, Source
from otelbpf.kernel.object import Object
from otelbpf.kernel.ring import Ring
from tests.bench.figure import Figure
from tests.kernel.sample import compile_sample

if TYPE_CHECKING:
    from collections.abc import Iterator

USUAL_BYTES = 4 << 20
"""The largest ring of the default configuration."""
RING_BYTES = 64 << 20
"""Of 5,000,000 events a second this is a tenth of a second, as a default ring is of what a node really sees."""
BURST = 8192
PASSES = 30
LIVE_S = 3.0
PAYLOADS = (8, 120)


def figures() -> Iterator[Figure]:
    """Prefilled rings (the reader's CPU alone), then a producer at full speed on the other core; memory as in the agent."""
    give_memory_back()
    with TemporaryDirectory(prefix="otelbpf-bench-") as directory:
        for payload in PAYLOADS:
            path = compile_sample(Path(directory), payload)
            with Object(
                path, constants={"burst": BURST}, map_sizes={"events": USUAL_BYTES}, programs=["produce"]
            ) as loaded:
                yield prefilled(loaded)
            with Object(
                path, constants={"burst": BURST}, map_sizes={"events": RING_BYTES}, programs=["produce"]
            ) as loaded:
                yield live(loaded)


def opened(loaded: Object) -> Ring:
    events = loaded.map("events")
    return Ring(events.fd, events.max_entries, loaded.layout("sample").itemsize)


def prefilled(loaded: Object) -> Figure:
    """Draining one full batch and seeing it as an array; the lower quartile of the passes, as others disturb."""
    dtype = record_dtype(loaded.layout("sample"))
    costs = []
    with opened(loaded) as ring:
        for _ in range(PASSES):
            loaded.run("produce")
            began, rows = time.thread_time_ns(), 0
            while (records := ring.drain(ring.producer)) is not None:
                rows += len(np.frombuffer(records, dtype))
            costs.append((time.thread_time_ns() - began) / rows)
    return Figure(
        f"ring → array, {dtype.itemsize} B with header, ring of 4 MiB",
        f"{np.quantile(costs, 0.25):.1f} ns an event",
        "≤ 20 ns",
    )


def everything(drain: Drain) -> Iterator[tuple[int, bytes]]:
    now = drain.ticks
    while taken := drain.take(now):
        yield from taken


def live(loaded: Object) -> Figure:
    """A producer that never rests, the drain thread of the agent, a taker every 10 ms."""
    stride = loaded.layout("sample").itemsize
    counts = loaded.bss("event_counts")
    seen_before, lost_before = int(counts["seen"]), int(counts["ring_full"])
    ending = threading.Event()

    def produce() -> None:
        while not ending.is_set():
            loaded.run("produce")

    with opened(loaded) as ring:
        drain = Drain([Source("sample", ring)], capacity_bytes=1 << 30)
        producer = threading.Thread(target=produce)
        taken = 0
        with drain:
            producer.start()
            began = time.monotonic()
            while time.monotonic() - began < LIVE_S:
                time.sleep(0.01)
                taken += sum(len(part) for _, part in everything(drain))
            cpu = time.clock_gettime(time.pthread_getcpuclockid(drain._thread.ident or 0))
            elapsed = time.monotonic() - began
            ending.set()
            producer.join()
        records = taken // ring.stride
    seen, lost = int(counts["seen"]) - seen_before, int(counts["ring_full"]) - lost_before
    measured = f"{seen / elapsed / 1e6:.1f} M events/s, {lost} lost, {cpu / elapsed:.0%} of a core"
    note = f"{records} of {seen} taken while it ran; ring {RING_BYTES >> 20} MiB"
    return Figure(f"drain thread, record of {stride} B", measured, "≥ 5 M/s, none lost, < 25 %", note)
