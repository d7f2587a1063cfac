"""Which rows become log records while the agent's own limits do not allow all of them.

A record that is kept says how many it stands for (its weight), so sums over weights estimate sums over all. The choice
is a hash of what the event is about, the same on every node: both ends of a connection are kept or neither is, and what
is kept at one in a hundred is kept at one in ten as well. Metrics know nothing of this.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

WHOLE = np.uint64(2**64 - 1)


class Detail(NamedTuple):
    """How many rows become records: one in so many, 1 for all, 0 for none; of those that failed, and of the others."""

    name: str
    ordinary: int
    failed: int


EVERYTHING = Detail("everything", 1, 1)
SAMPLED = Detail("sampled", 10, 1)
SPARSE = Detail("sparse", 100, 10)
TOTALS = Detail("totals", 0, 0)
STEPS_DOWN = (EVERYTHING, SAMPLED, SPARSE, TOTALS)


class Due(NamedTuple):
    """The detail that holds, and the limit that asks for it."""

    detail: Detail
    reason: str


class Sample(NamedTuple):
    """The rows that are kept, and how many each stands for."""

    rows: NDArray[np.intp]
    weights: NDArray[np.uint64]


class DetailLedger(NamedTuple):
    """The log records of one probe that were due by the settings: each was made or shed."""

    made: int
    shed: Mapping[str, int]
    """Limit → records that were not made."""


class Sampling:
    """What is due now, and the account of it: records that were due by the settings = made + shed, of each probe.

    `now` is set by one thread and read by another; it is replaced as a whole.
    """

    def __init__(self, key: str) -> None:
        """*key* is the same on every node; who does not know it cannot make connections that are never kept."""
        self.now = Due(EVERYTHING, "")
        self.made: Counter[str] = Counter()
        self.shed: Counter[tuple[str, str]] = Counter()
        """(probe, limit) → records that were not made."""
        self.follow(key)

    def follow(self, key: str) -> None:
        """Chooses by another *key* from now on."""
        self._seed = np.uint64(int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest()))

    def ledger(self, probe: str) -> DetailLedger:
        """What became of the records of *probe* so far; from any thread."""
        shed = {reason: count for (of_probe, reason), count in list(self.shed.items()) if of_probe == probe}
        return DetailLedger(self.made[probe], shed)

    def of(
        self, detail: Detail, rows: NDArray[np.intp], identities: NDArray[np.uint64], failed: NDArray[np.bool_]
    ) -> Sample:
        """Those of *rows* that *detail* keeps; *identities* and *failed* are of the same rows."""
        weights = np.where(failed, np.uint64(detail.failed), np.uint64(detail.ordinary))
        is_kept = mixed(identities ^ self._seed) <= WHOLE // np.maximum(weights, np.uint64(1))
        chosen = np.flatnonzero(is_kept & (weights > 0))
        return Sample(rows[chosen], weights[chosen])


def mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Every bit of the outcome depends on every bit of the value (the finish of SplitMix64)."""
    values = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return values ^ values >> np.uint64(31)
