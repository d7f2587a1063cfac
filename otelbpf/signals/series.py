"""The values of one declared metric: arrays by slot of its index, updated for a whole batch at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from otelbpf.signals import wire
from otelbpf.signals.envelope import Pieces
from otelbpf.signals.index import grown
from otelbpf.signals.keys import NUMBER_ATTRIBUTE
from otelbpf.signals.rows import Hole, Template, as_bytes, order_of, varint_format, varint_width, varints

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from otelbpf.batch import Batch
    from otelbpf.probes.probe import Constant, Counter, Level, Metric
    from otelbpf.signals.index import Index

POINT: Final = b"\x0a"
_START: Final = b"\x11"
_TIME: Final = b"\x19"
_AS_INT: Final = b"\x31"


@dataclass(frozen=True, slots=True)
class Chosen:
    """The rows of a batch that a metric takes: row ``rows[i]`` belongs into slot ``slots[i]``.

    *touched* are the distinct slots, but for a few that may be there twice.
    """

    rows: NDArray[np.intp] | slice
    slots: NDArray[np.intp]
    touched: NDArray[np.intp]


class Cap:
    """How many series the metric of one name may have; overflow points are not counted."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken = 0

    @property
    def room(self) -> int:
        return max(0, self.most - self.taken)


class Series(ABC):
    """What the three kinds have in common: which slots have a point, since when, and when it last changed."""

    tag: bytes = NUMBER_ATTRIBUTE
    monotonic = True

    def __init__(self, metric: Metric, constants: Sequence[Constant], index: Index, cap: Cap) -> None:
        self.name = metric.name
        self.when = metric.when
        self.index = index
        self._cap = cap
        self._constants = b"".join(
            wire.attribute(self.tag, item.name, wire.typed(item.name, item.value)) for item in constants
        )
        self._templates: dict[int, Template] = {}
        self._order: tuple[tuple[int, int], NDArray[np.intp]] = ((-1, -1), np.empty(0, np.intp))
        self._version = 0
        self.start_ns = np.zeros(index.capacity, np.int64)
        """0 where there is no point."""
        self.last_ns = np.zeros(index.capacity, np.int64)
        self.unsent = np.zeros(index.capacity, np.bool_)
        """Changed since it was last encoded."""
        index.tags.add(self.tag)

    @property
    def count(self) -> int:
        """Points, overflow included."""
        return int(np.count_nonzero(self.start_ns))

    @property
    def overflow_count(self) -> int:
        """Points that take what is beyond the cap. Asked by another thread, while both arrays may be made longer."""
        overflows, started = self.index.overflows, self.start_ns
        both = min(len(overflows), len(started))
        return int(np.count_nonzero(started[:both][overflows[:both]]))

    def order(self) -> NDArray[np.intp]:
        """The slots that have a point, sorted by resource; kept while none comes or goes."""
        version = (self.index.version, self._version)
        if self._order[0] != version:
            slots = np.flatnonzero(self.start_ns)
            self._order = (version, slots[order_of(self.index.resource_of[slots])])
        return self._order[1]

    def accepted(self, slots: NDArray[np.intp], touched: NDArray[np.intp], now_ns: int) -> NDArray[np.intp]:
        """*slots*, with a point begun in each; those for which there is no room become the overflow's.

        *touched* are the same slots, each seldom more than once.
        """
        if self.index.capacity > len(self.start_ns):
            self._grow(self.index.capacity)
        fresh = self.start_ns[touched] == 0
        if fresh.any():
            slots = self._begun(slots, np.unique(touched[fresh]), now_ns)
            touched = slots
        self.last_ns[touched] = now_ns
        self.unsent[touched] = True
        return slots

    def forget(self, gone: NDArray[np.intp]) -> None:
        """Ends the points in the slots *gone*."""
        if not len(gone):
            return
        self.start_ns[gone] = 0
        self._clear(gone)
        self.index.users[gone] -= 1
        self._cap.taken -= int(np.count_nonzero(~self.index.overflows[gone]))
        self._version += 1

    def idle(self, before_ns: int) -> NDArray[np.intp]:
        """The slots that have had no news since *before_ns*, and whose last news have been sent."""
        return np.flatnonzero((self.start_ns != 0) & (self.last_ns < before_ns) & ~self.unsent)

    def none_after(self, now_ns: int) -> None:
        """For a clock that was set back: nothing began, or had news, later than now. A point whose start is after its
        time would be refused, and a series with news to come would never grow old."""
        np.minimum(self.start_ns, now_ns, out=self.start_ns)
        np.minimum(self.last_ns, now_ns, out=self.last_ns)

    def sizes(self, slots: NDArray[np.intp]) -> NDArray[np.intp]:
        """The bytes that each point takes, or a little more."""
        inner = self.index.lengths[slots] + self._parts_width()
        sizes: NDArray[np.intp] = (inner + 1 + np.where(inner < 128, 1, np.where(inner < 16384, 2, 4))).astype(np.intp)
        return sizes

    def points(self, slots: NDArray[np.intp], now_ns: int) -> Pieces:
        """Two pieces a point: the row, and the attributes that other metrics have too."""
        lengths = self.index.lengths[slots] + self._parts_width()
        width = varint_width(int(lengths.max()))
        rows = (self._templates.get(width) or self._made(width)).rows(len(slots))
        rows["frame"] = varints(lengths.astype(np.uint64), width)
        rows["start"] = self.start_ns[slots]
        rows["time"] = now_ns
        self._fill(rows, slots)
        pieces = [b""] * (2 * len(slots))
        pieces[::2] = as_bytes(rows)
        pieces[1::2] = self.index.blocks[self.tag][slots].tolist()
        self.unsent[slots] = False
        return Pieces(pieces, 2, (lengths + 1 + width).astype(np.intp))

    def begin_again(self, slots: NDArray[np.intp], now_ns: int) -> None:
        """Delta: what was sent is counted from zero."""
        self._clear(slots)
        self.start_ns[slots] = now_ns

    def _begun(self, slots: NDArray[np.intp], fresh: NDArray[np.intp], now_ns: int) -> NDArray[np.intp]:
        countable = fresh[~self.index.overflows[fresh]]
        refused = countable[self._cap.room :]
        if len(refused):
            slots = self._redirected(slots, refused)
            fresh = np.unique(slots[self.start_ns[slots] == 0])
        self.start_ns[fresh] = now_ns
        self.index.users[fresh] += 1
        self._cap.taken += len(countable) - len(refused)
        self._version += 1
        return slots

    def _redirected(self, slots: NDArray[np.intp], refused: NDArray[np.intp]) -> NDArray[np.intp]:
        """*slots*, with the overflow of the same resource instead of those that were *refused*."""
        resource_of = self.index.resource_of[refused]
        first = np.unique(resource_of, return_index=True)[1]
        instead = np.arange(self.index.capacity)
        for example in refused[first].tolist():
            instead[refused[resource_of == self.index.resource_of[example]]] = self.index.overflow(example)
        if self.index.capacity > len(self.start_ns):
            self._grow(self.index.capacity)
        return instead[slots]

    def _made(self, width: int) -> Template:
        frame: list[bytes | Hole] = [POINT, Hole("frame", varint_format(width))]
        template = self._templates[width] = Template(frame + self._parts())
        return template

    def _parts_width(self) -> int:
        return sum(len(part) if isinstance(part, bytes) else np.dtype(part.format).itemsize for part in self._parts())

    def _parts(self) -> list[bytes | Hole]:
        return [self._constants + _START, Hole("start", "<i8"), _TIME, Hole("time", "<i8")]

    def _grow(self, capacity: int) -> None:
        self.start_ns = grown(self.start_ns, capacity)
        self.last_ns = grown(self.last_ns, capacity)
        self.unsent = grown(self.unsent, capacity)

    @abstractmethod
    def update(self, batch: Batch, chosen: Chosen, now_ns: int) -> None:
        """Takes the *chosen* rows of *batch* in."""

    @abstractmethod
    def _fill(self, rows: NDArray[Any], slots: NDArray[np.intp]) -> None:
        """Writes the values of *slots* into the holes of *rows*."""

    @abstractmethod
    def _clear(self, slots: NDArray[np.intp]) -> None:
        """Counts *slots* from zero again."""


class Sums(Series):
    """A Counter: one integer a slot."""

    def __init__(self, metric: Counter | Level, constants: Sequence[Constant], index: Index, cap: Cap) -> None:
        super().__init__(metric, constants, index, cap)
        self._column = getattr(metric, "column", None)
        self._values = np.zeros(index.capacity, np.int64)

    def update(self, batch: Batch, chosen: Chosen, now_ns: int) -> None:
        if not len(chosen.slots):
            return
        slots = self.accepted(chosen.slots, chosen.touched, now_ns)
        if self._column is None:
            np.add.at(self._values, slots, 1)
        else:
            np.add.at(self._values, slots, batch.number(self._column)[chosen.rows].astype(np.int64))

    def _parts(self) -> list[bytes | Hole]:
        return [*super()._parts(), _AS_INT, Hole("value", "<i8")]

    def _fill(self, rows: NDArray[Any], slots: NDArray[np.intp]) -> None:
        rows["value"] = self._values[slots]

    def _clear(self, slots: NDArray[np.intp]) -> None:
        self._values[slots] = 0

    def _grow(self, capacity: int) -> None:
        super()._grow(capacity)
        self._values = grown(self._values, capacity)


class Levels(Sums):
    """A Level: counted afresh from each snapshot. What is gone is reported as 0 once, then forgotten."""

    monotonic = False

    def update(self, batch: Batch, chosen: Chosen, now_ns: int) -> None:
        self.unsent |= self._values != 0
        self._values[:] = 0
        super().update(batch, chosen, now_ns)

    def idle(self, before_ns: int) -> NDArray[np.intp]:
        gone = (self.start_ns != 0) & (self._values == 0) & ~self.unsent
        return np.union1d(np.flatnonzero(gone), super().idle(before_ns))
