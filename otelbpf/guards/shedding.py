"""What the steps of both guards do: the room of queues, and how many records are made, how often. Nothing here touches
a counter.

Metrics are made before records, of every event. While they are cumulative the newest points hold what the older ones
said, so older points that wait may go, as the last of all; differences (`temporality: delta`) may not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from otelbpf.kernel.allocator import Trimming
from otelbpf.signals.sampling import EVERYTHING, STEPS_DOWN, TOTALS, Detail, Due

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otelbpf.export import Exporters
    from otelbpf.signals.sampling import Sampling

MEMORY_LIMIT, CPU_LIMIT = "memory_limit", "cpu_limit"
RECORDS = ("logs", "traces")
POINTS = ("metrics",)
LONG_TICK_S = 0.5
CUT = 1 / 8
"""Of the room of a queue, while memory is short."""


class Step(NamedTuple):
    """What holds at one level of a guard: a word for machines, half a sentence for people."""

    name: str
    meaning: str


CPU_STEPS = (
    Step("everything", "every record is made again, within a quarter of a second"),
    Step("batched", "records are made every half second, more at a time"),
    Step("sampled", "one in 10 of the records of what went well is made"),
    Step("sparse", "one in 100 of the records of what went well, and one in 10 of what failed, is made"),
    Step("totals", "no record is made, metrics only"),
)
MEMORY_STEPS = (
    Step("everything", "queues have all their room, and every record is made again"),
    Step("queues", "an eighth of their room is left to the queues of log records and spans"),
    Step("records", "no log record is made"),
    Step("points", "an eighth of its room is left to the queue of metrics, whose newest points hold the totals"),
)


def memory_steps(temporality: str) -> Sequence[Step]:
    """The steps of the memory guard; points that are differences are never shed."""
    return MEMORY_STEPS if temporality == "cumulative" else MEMORY_STEPS[:-1]


class Shedding:
    """Carries the levels of both guards out. Called by one thread."""

    def __init__(self, outputs: Exporters, sampling: Sampling, slow_down: Callable[[float], None]) -> None:
        """*slow_down* sets the least time between two ticks of the line."""
        self._slow_down = slow_down
        self._outputs = outputs
        self._sampling = sampling
        self._trim = Trimming()
        self._detail = dict.fromkeys((MEMORY_LIMIT, CPU_LIMIT), EVERYTHING)

    def memory(self, level: int) -> None:
        """From now on *level* of MEMORY_STEPS holds."""
        self._due(MEMORY_LIMIT, TOTALS if level > 1 else EVERYTHING)
        self._outputs.keep_within(1.0 if level < 1 else CUT if level < 2 else 0.0, RECORDS)
        self._outputs.keep_within(1.0 if level < 3 else CUT, POINTS)
        self._trim()

    def cpu(self, level: int) -> None:
        """From now on *level* of CPU_STEPS holds."""
        self._slow_down(LONG_TICK_S if level else 0.0)
        self._due(CPU_LIMIT, STEPS_DOWN[max(0, level - 1)])

    def _due(self, limit: str, detail: Detail) -> None:
        """The sparser of what both limits ask for holds."""
        self._detail[limit] = detail
        reason = max(self._detail, key=lambda one: STEPS_DOWN.index(self._detail[one]))
        sparsest = self._detail[reason]
        self._sampling.now = Due(sparsest, reason if sparsest is not EVERYTHING else "")
