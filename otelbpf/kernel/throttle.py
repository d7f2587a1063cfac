"""The throttle of a loaded probe (`include/throttle.bpf.h`): its rate, and the sums of what was not told one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from otelbpf.kernel.clock import boottime_ns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from otelbpf.kernel.maps import Map
    from otelbpf.kernel.object import Object

NS_PER_S = 1_000_000_000
END_OF_TIME = 2**64 - 1
KINDS = (1, 2)
"""A probe's kinds of events; for each the sums have an entry of no cgroup, which takes what there is no room for."""
IDLE_NS = 30 * NS_PER_S
SWEEP_EVERY_NS = 10 * NS_PER_S


class Shared(NamedTuple):
    """Events that had no entry of their own in the kernel's tables, so far."""

    buckets: int
    """Those of cgroups that shared one bucket."""
    totals: int
    """Those whose sums say less of them: the cgroup only, or not even that."""


class Throttle:
    """What user space does with it. Not for several threads at once; lives as long as the object."""

    def __init__(self, loaded: Object) -> None:
        self._settings = loaded.data("throttle")
        self._shared = loaded.bss("throttle_counts")
        self._events = loaded.bss("event_counts")
        marks = "snapshot_until_ns" in loaded.btf.variables
        self._snapshot_until = loaded.data("snapshot_until_ns") if marks else None
        self._buckets, self._bucket = loaded.map("throttle_buckets"), loaded.layout("bucket")
        self._sums = [loaded.map("throttled_one"), loaded.map("throttled_other")]
        self._now = loaded.map("throttled_now")
        self._key, self._value = loaded.layout("throttled_key"), loaded.layout("throttled")
        self.row = _row(self._key, self._value, loaded.layout("event_head"))
        """The dtype of what `totals` gives."""
        self._read: list[NDArray[np.void]] = []
        self._swept_ns = 0
        self.entries = 0
        """Cgroups with a bucket, at the last sweep."""
        for sums in self._sums:
            self._make_room_for_the_rest(sums)

    @property
    def capacity(self) -> int:
        """How many cgroups may have a bucket."""
        return self._buckets.max_entries

    @property
    def shared(self) -> Shared:
        return Shared(int(self._shared["buckets"]), int(self._shared["totals"]))

    def limit(self, rate: int, burst: int) -> None:
        """From now on *rate* events a second and cgroup, *burst* of them at once; a rate of 0 is no limit."""
        interval_ns = max(1, NS_PER_S // rate) if rate else 0
        self._settings["tolerance_ns"] = interval_ns * burst
        self._settings["interval_ns"] = interval_ns

    def before_snapshot(self) -> None:
        """To be called before a snapshot of what may be throttled at its end: when it returns, whatever ends is either
        told, or marked so that the snapshot passes it over."""
        if self._snapshot_until is not None:
            self._snapshot_until[()] = END_OF_TIME
            self._change_over()

    def totals(self) -> NDArray[np.void]:
        """The sums of what was throttled since the last call: a row for each cgroup, executable and what else the
        probe's counters tell apart. Rows may be alike: they are to be added up."""
        if self._events["throttled"]:
            self._change_over()
        rows, self._read = self._read, []
        return np.concatenate([np.zeros(0, self.row), *rows])

    def sweep(self) -> None:
        """Forgets the buckets that have been full for a while, so also those of cgroups that are gone."""
        now_ns = boottime_ns()
        if now_ns - self._swept_ns < SWEEP_EVERY_NS:
            return
        self._swept_ns = now_ns
        keys, values = self._buckets.read_all()
        paid_until_ns = np.frombuffer(values, self._bucket)["paid_until_ns"]
        idle = paid_until_ns < max(0, now_ns - IDLE_NS)
        for key in np.frombuffer(keys, "V8")[idle].tolist():
            self._buckets.delete(key)
        self.entries = len(idle) - int(np.count_nonzero(idle))

    def _change_over(self) -> None:
        """Lets the programs add to the other map, and takes what is in the first. The kernel returns from a change of a
        map of maps when no program uses the old one any more (synchronize_rcu(), since 4.20), so nothing is missed."""
        still, busy = self._sums
        self._now.update(bytes(4), np.uint32(busy.fd).tobytes())
        self._settings["generation"] += 1
        self._sums = [busy, still]
        self._read.append(self._rows(*still.take_all()))
        self._make_room_for_the_rest(still)

    def _rows(self, keys: bytes, values: bytes) -> NDArray[np.void]:
        key, value = np.frombuffer(keys, self._key), np.frombuffer(values, self._value)
        by_cpu = value.reshape(len(key), -1)
        rows = np.zeros(len(key), self.row)
        example = by_cpu[np.arange(len(key)), (by_cpu["pid"] != 0).argmax(axis=1)]
        rows["head"]["time_ns"] = boottime_ns()
        rows["head"]["cgroup_id"], rows["head"]["executable"] = key["cgroup_id"], key["executable"]
        rows["head"]["pid"], rows["head"]["comm"] = example["pid"], example["comm"]
        for name in _told_apart_by(self._key):
            rows[name] = key[name]
        for name in self._value["sums"].names or ():
            rows[name] = by_cpu["sums"][name].sum(axis=1)
        return rows[rows["events"] > 0]

    def _make_room_for_the_rest(self, sums: Map) -> None:
        key = np.zeros(1, self._key)
        for kind in KINDS:
            key["kind"] = kind
            sums.update(key.tobytes(), bytes(sums.value_bytes))


def _row(key: np.dtype[np.void], value: np.dtype[np.void], head: np.dtype[np.void]) -> np.dtype[np.void]:
    fields = [("head", head), *((name, key[name]) for name in _told_apart_by(key))]
    return np.dtype(fields + [(name, value["sums"][name]) for name in value["sums"].names or ()])


def _told_apart_by(key: np.dtype[np.void]) -> Iterator[str]:
    """The members of a key that the head of an event has not."""
    return (name for name in key.names or () if name not in ("cgroup_id", "executable"))
