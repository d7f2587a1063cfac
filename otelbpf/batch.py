"""The one value that travels down the line: rows of one probe, and the columns that the stages add."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


class Facts(dict[str, Any]):
    """What is known of one thing (a process, an address, a question): attribute name → value.

    Never changed once made, so that encoded forms may be kept beside it in *encoded*; they live and die with it.
    A name that is not in it is unknown and will be left out.
    """

    __slots__ = ("encoded",)

    def __init__(self, values: Mapping[str, Any] = {}) -> None:
        super().__init__(values)
        self.encoded: dict[Any, Any] = {}

    __hash__ = object.__hash__  # type: ignore[assignment]  # identity: interned, compared by `is`


@dataclass(slots=True)
class Categorical:
    """A column of few distinct things: row *i* is ``values[codes[i]]``; codes are intp of shape (rows,)."""

    codes: NDArray[np.intp]
    values: Sequence[Facts]


Column = Categorical | np.ndarray


@dataclass(slots=True)
class Batch:
    """Rows of one probe and what the stages found out about them.

    *rows* is a structured array whose dtype comes from the BTF of the probe's object (`head` is a nested field).
    *columns* hold what is not in the rows: Categorical for things, numpy arrays of shape (rows,) for numbers and
    masks. *clock_offset_ns* added to a kernel time (CLOCK_BOOTTIME) gives Unix time.
    *snapshot* says that the rows are one whole pass over what is alive, not events; *totals* that they are sums of
    events that were throttled in the kernel.
    """

    probe: str
    rows: NDArray[np.void]
    clock_offset_ns: int
    columns: dict[str, Column] = field(default_factory=dict)
    snapshot: bool = False
    totals: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def number(self, name: str) -> NDArray[Any]:
        """The numeric column *name*: one a stage added, else a member of the C struct (`head` looked through)."""
        column = self.columns.get(name)
        if isinstance(column, np.ndarray):
            return column
        names = self.rows.dtype.names or ()
        return self.rows[name] if name in names else self.rows["head"][name]

    def things(self, name: str) -> Categorical:
        """The categorical column *name*."""
        column = self.columns[name]
        if not isinstance(column, Categorical):
            raise TypeError(f"{self.probe}: column {name} holds numbers, not things")
        return column

    def select(self, chosen: NDArray[Any] | slice) -> Batch:
        """The same batch with the rows of a mask, of indices or of a slice only."""
        if not isinstance(chosen, slice) and chosen.dtype == np.bool_:
            chosen = np.flatnonzero(chosen)
        columns: dict[str, Column] = {
            name: Categorical(_taken(column.codes, chosen), column.values)
            if isinstance(column, Categorical)
            else _taken(column, chosen)
            for name, column in self.columns.items()
        }
        return Batch(self.probe, _taken(self.rows, chosen), self.clock_offset_ns, columns, self.snapshot, self.totals)


def _taken(array: NDArray[Any], chosen: NDArray[np.intp] | slice) -> NDArray[Any]:
    """Not ``array[chosen]``, which copies a row of a struct member by member: twenty times the time of `take`."""
    return array[chosen] if isinstance(chosen, slice) else array.take(chosen, axis=0)
