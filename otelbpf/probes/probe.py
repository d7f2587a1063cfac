"""What a probe is: a declaration, not a program.

The engine in `signals/` compiles it once at start; the documentation is generated from it. Columns named here are
members of the probe's C struct (head members included) or columns that `prepare` or an enricher added to the batch.
An attribute whose value is unknown is left out, by rule.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from otelbpf.batch import Batch
    from otelbpf.signals.names import AttributeName, EventName, MetricName


@dataclass(frozen=True, slots=True)
class Constant:
    """An attribute that is the same on every record."""

    name: AttributeName
    value: str | int | bool


@dataclass(frozen=True, slots=True)
class Number:
    """A numeric column. *scale* makes it a double (``value * scale``); a row whose value is *absent* leaves it out."""

    name: AttributeName
    column: str
    scale: float | None = None
    absent: int | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """A small integer column as text; a value that is not among *values* leaves the attribute out."""

    name: AttributeName
    column: str
    values: Mapping[int, str | bool]


@dataclass(frozen=True, slots=True)
class Hex:
    """A column of fixed bytes (dtype V or S, or uint8 of shape (rows, width)) as lower-case hex text."""

    name: AttributeName
    column: str


@dataclass(frozen=True, slots=True)
class Address:
    """A column of addresses (16 bytes; IPv4 mapped) as text; the unspecified address is unknown."""

    name: AttributeName
    column: str


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the thing in a Categorical column: those of *names* that its Facts hold."""

    column: str
    names: tuple[AttributeName, ...]


Attribute = Constant | Number | Choice | Hex | Address | Known


@dataclass(frozen=True, slots=True)
class Event:
    """A log record for each row of *when*. *when*, *failed* and *error* are boolean columns: a row is INFO, WARN where
    it failed, ERROR where *error* holds.

    *body* gives one readable line a row. *trace_id* is a column of 16 bytes a row. *setting* names the `logs` setting
    that decides whether it is made (`all`, `failed`, `off`, or as slow as *duration_ns*, a column, says).
    """

    name: EventName
    attributes: tuple[Attribute, ...]
    body: Callable[[Batch], Iterable[str]]
    setting: str
    when: str | None = None
    failed: str | None = None
    error: str | None = None
    duration_ns: str | None = None
    trace_id: str | None = None
    identity: Callable[[Batch], NDArray[np.uint64]] | None = None
    """A number a row, the same wherever the same thing is seen: it decides which are kept while records are sampled."""
    complete: Callable[[Any, Batch], None] | None = None
    """Adds the columns that only records need; takes the whole Config and the rows that become records."""


@dataclass(frozen=True, slots=True)
class Counter:
    """Adds up *column* (None: counts rows) by the attributes *by*; integers, monotonic."""

    name: MetricName
    column: str | None
    by: tuple[Attribute, ...]
    when: str | None = None


@dataclass(frozen=True, slots=True)
class Histogram:
    """Distributes ``column * scale``; the bounds belong to the name."""

    name: MetricName
    column: str
    scale: float
    by: tuple[Attribute, ...]
    when: str | None = None


@dataclass(frozen=True, slots=True)
class Level:
    """How many there are now, counted afresh from each snapshot: an UpDownCounter that cannot drift."""

    name: MetricName
    by: tuple[Attribute, ...]
    when: str | None = None


Metric = Counter | Histogram | Level


@dataclass(frozen=True, slots=True)
class Totals:
    """How the sums of events that were throttled are counted: their rows are what `struct throttled_key` and `struct
    throttled_sums` of the object hold, behind a head.

    *prepare* adds columns; *metrics* are the counters of the probe, by what is left of their attributes.
    """

    prepare: Callable[[Batch], Batch]
    metrics: tuple[Counter, ...]


class Prepare(Protocol):
    """Turns raw rows into columns, where a declaration cannot say it. May keep bounded state. One per running probe."""

    undecodable: int
    """Rows that could not be understood so far; they are dropped from the batch that is returned."""

    def __call__(self, batch: Batch) -> Batch:
        """The batch with its columns added; never raises for what is in the rows."""

    def follow(self, config: Any) -> None:
        """Takes the settings that may change while it runs from *config*; between two batches, its state stays."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way for a probe to get its signal: the programs it loads and attaches, and what it lacks."""

    name: str
    programs: tuple[str, ...]
    optional: tuple[str, ...] = ()
    """Programs whose absence loses one detail only; *lost* says which."""
    lost: Mapping[str, str] = field(default_factory=dict)
    """Program → what is not seen without it."""


@dataclass(frozen=True, slots=True)
class Walk:
    """An iterator program that gives all that is alive."""

    program: str
    over: str | None = None
    """The map whose elements it is shown, where its kind needs one."""
    misses: str = ""
    """What it does not see, and a walk before it does."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Everything the agent needs to know about one source of events; `NAME.bpf.c` is its other half."""

    name: str
    struct: str
    scope: str
    summary: str
    ways: tuple[Way, ...]
    prepare: Callable[[Any], Prepare]
    """Takes the whole Config; called once when the probe starts."""
    constants: Callable[[Any], Mapping[str, int]]
    """Takes the whole Config; gives the values of the object's `const volatile` knobs."""
    events: tuple[Event, ...] = ()
    metrics: tuple[Metric, ...] = ()
    totals: Totals | None = None
    """For a probe with a throttle."""
    adopt: str | None = None
    """An iterator program run once after attaching (what exists already)."""
    snapshots: tuple[Walk, ...] = ()
    """Run each metrics interval: the first that the kernel accepts; its output is an array of the same struct."""
    sweep: str | None = None
    """A `syscall` program run each second (what has timed out)."""
    cost: str = ""
    """What it costs in the kernel, measured as docs/performance.md says; empty when it is negligible."""
    map_sizes: Callable[[Any], Mapping[str, int]] = field(default=lambda _config: {})
    tables: Callable[[Any], Mapping[str, tuple[int, int]]] = field(default=lambda _prepare: {})
    """Takes what `prepare` gave; the bounded tables that it keeps: name → entries, and how many fit."""
