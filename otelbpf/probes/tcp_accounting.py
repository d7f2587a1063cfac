"""What is new in a row: absolute counters of connections → differences that may be added up.

A connection is told at its end, and while it lives in each snapshot, always with counters from its beginning, and with
what they were when it was adopted, if it is older than the agent. What has been counted is remembered for those that a
snapshot has seen, in one sorted array, so that a tick is a handful of numpy calls. One that there is no room for is
counted when it ends. A close may overtake the snapshot in which its connection still lived: then the snapshot's row is
dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otelbpf.batch import Batch

CLOSED, FAILED, SNAPSHOT = 1, 2, 3
COUNTERS = ("tx_bytes", "rx_bytes", "retransmits", "tx_resets", "rx_resets")
RECENT = 1 << 17
"""Connections that ended, remembered until a snapshot that was taken before is through: many seconds at 10,000/s."""
BEFORE = ("tx_bytes", "rx_bytes", "retransmits")
"""The counters that did not begin with the agent: the kernel keeps what they were when it adopted the connection."""
PASSES_KEPT = 40
"""Snapshots that a connection may be missing from: the kernel's walk leaves one out when its neighbour ends, and a
close may wait in the ring. After that its close was lost."""
RTT_EVERY_NS = 60_000_000_000

_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_TRACKED = np.dtype([("key", "u8"), *((name, "i8") for name in COUNTERS), ("rtt_told_ns", "i8"), ("seen", "i8")])


def connection_key(rows: NDArray[np.void]) -> NDArray[np.uint64]:
    """One number for one connection. The cookie alone is the socket's, which may be connected again."""
    return rows["cookie"] + rows["start_ns"] * _SPREAD


class Memory:
    """The last RECENT keys that were added."""

    def __init__(self) -> None:
        self._keys = np.zeros(RECENT, np.uint64)
        self._added = 0

    def add(self, keys: NDArray[np.uint64]) -> None:
        keys = keys[-RECENT:]
        at = self._added % RECENT
        until_end = min(len(keys), RECENT - at)
        self._keys[at : at + until_end] = keys[:until_end]
        self._keys[: len(keys) - until_end] = keys[until_end:]
        self._added += len(keys)

    def has(self, keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Which of *keys* are remembered. First the other way round: few are asked for, and sorting all that are
        remembered takes a hundred times as long."""
        if not self._added:
            return np.zeros(len(keys), np.bool_)
        remembered = self._keys[: min(self._added, RECENT)]
        return np.isin(keys, remembered[np.isin(remembered, keys)])


class Accounting:
    """Adds the difference columns to the rows of one probe; keeps what it needs for that, bounded."""

    def __init__(self, max_tracked: int) -> None:
        self._max_tracked = max_tracked
        self._tracked = np.zeros(0, _TRACKED)
        self._ended = Memory()
        self._forgotten = Memory()
        """Tracked ones that were missing for too long. One that is seen again was counted before, nobody knows how
        far: it counts from there on."""
        self._pass = 0

    @property
    def fill(self) -> tuple[int, int]:
        """Living connections that are tracked, and how many can be; those beyond are counted when they end."""
        return len(self._tracked), self._max_tracked

    def events(self, batch: Batch) -> Batch:
        """Closed and failed connections: `<counter>_new`, `opened` and `rtt_due` are added."""
        rows = batch.rows
        keys = connection_key(rows)
        closed = rows["kind"] == CLOSED
        place, known = self._find(keys)
        known &= closed
        forgotten = self._forgotten.has(keys)
        self._add_differences(batch, self._counted(rows, place, known, forgotten))
        batch.columns["opened"] = ~closed | ~known & ~forgotten & (rows["adopted"] == 0)
        batch.columns["rtt_due"] = closed & (rows["srtt_us"] > 0)
        self._ended.add(keys[closed])
        return batch

    def snapshot(self, batch: Batch) -> Batch:
        """All that lives; without the rows that have ended since, or that the kernel's walk met twice."""
        self._pass += 1
        batch = batch.select(self._still_alive(connection_key(batch.rows)))
        rows = batch.rows
        keys = connection_key(rows)
        place, known = self._find(keys)
        tracked = self._with_room(known)
        forgotten = self._forgotten.has(keys)
        base = self._counted(rows, place, known, forgotten)
        for name, values in base.items():
            base[name] = np.where(tracked, values, rows[name])
        self._add_differences(batch, base)
        batch.columns["opened"] = tracked & ~known & ~forgotten & (rows["adopted"] == 0)
        rtt_told_ns = self._rtt_told_ns(rows, place, known)
        due = tracked & (rows["srtt_us"] > 0) & (_time_ns(rows) - rtt_told_ns >= RTT_EVERY_NS)
        batch.columns["rtt_due"] = due
        rtt_told_ns[due] = _time_ns(rows)[due]
        self._keep(rows[tracked], keys[tracked], {name: base[name][tracked] for name in base}, rtt_told_ns[tracked])
        return batch

    def _find(self, keys: NDArray[np.uint64]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Where each key would stand among the tracked, and whether it does."""
        if not len(self._tracked):
            return np.zeros(len(keys), np.intp), np.zeros(len(keys), np.bool_)
        place = np.minimum(np.searchsorted(self._tracked["key"], keys), len(self._tracked) - 1)
        return place, self._tracked["key"][place] == keys

    def _counted(
        self,
        rows: NDArray[np.void],
        place: NDArray[np.intp],
        known: NDArray[np.bool_],
        forgotten: NDArray[np.bool_],
    ) -> dict[str, NDArray[np.int64]]:
        """What has been counted of each row before, or is not to be: of a new one what came before its adoption."""
        counted = {name: np.zeros(len(rows), np.int64) for name in COUNTERS}
        if rows["adopted"].any():
            for name in BEFORE:
                counted[name][:] = rows[f"{name}_before"]
        if forgotten.any():
            for name, values in counted.items():
                values[forgotten] = rows[name][forgotten]
        if known.any():
            for name, values in counted.items():
                values[known] = self._tracked[name][place[known]]
        return counted

    def _add_differences(self, batch: Batch, counted: dict[str, NDArray[np.int64]]) -> None:
        # A snapshot on another CPU may catch the kernel between two of its counters: never count backwards.
        for name, values in counted.items():
            batch.columns[f"{name}_new"] = np.maximum(batch.rows[name].astype(np.int64) - values, 0)

    def _still_alive(self, keys: NDArray[np.uint64]) -> NDArray[np.intp]:
        _, first = np.unique(keys, return_index=True)
        return np.sort(first[~self._ended.has(keys[first])])

    def _with_room(self, known: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Those that are tracked from now on: first come, first served, so that none is counted twice."""
        room = self._max_tracked - len(self._tracked)
        return known | (np.cumsum(~known) <= room)

    def _rtt_told_ns(
        self, rows: NDArray[np.void], place: NDArray[np.intp], known: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        start_ns = rows["start_ns"].astype(np.int64)
        told_ns = np.where(start_ns > 0, start_ns, _time_ns(rows))
        if known.any():
            told_ns[known] = self._tracked["rtt_told_ns"][place[known]]
        return told_ns

    def _keep(
        self,
        rows: NDArray[np.void],
        keys: NDArray[np.uint64],
        counted: dict[str, NDArray[np.int64]],
        rtt_told_ns: NDArray[np.int64],
    ) -> None:
        seen = np.zeros(len(rows), _TRACKED)
        seen["key"] = keys
        for name, values in counted.items():
            seen[name] = np.maximum(rows[name].astype(np.int64), values)
        seen["rtt_told_ns"] = rtt_told_ns
        seen["seen"] = self._pass
        missing = self._tracked[~np.isin(self._tracked["key"], keys)]
        missing = missing[~self._ended.has(missing["key"])]
        too_long = missing["seen"] <= self._pass - PASSES_KEPT
        self._forgotten.add(missing["key"][too_long])
        together = np.concatenate([seen, missing[~too_long]])
        self._tracked = together[np.argsort(together["key"])]


def _time_ns(rows: NDArray[np.void]) -> NDArray[np.int64]:
    times: NDArray[np.int64] = rows["head"]["time_ns"].astype(np.int64)
    return times
