"""A guard: a limit, what is used of it, and the steps that keep to it; and the thread that turns all of them."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Self

from otelbpf.guards import cpu, memory
from otelbpf.guards.ladder import Ladder
from otelbpf.guards.shedding import CPU_LIMIT, CPU_STEPS, MEMORY_LIMIT, Shedding, memory_steps
from otelbpf.guards.watchdog import Watchdog
from otelbpf.pulse import Pulse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from otelbpf.config import Config
    from otelbpf.export import Exporters
    from otelbpf.guards.shedding import Step
    from otelbpf.guards.watchdog import StageChange
    from otelbpf.signals.sampling import Sampling

TURN_S, HASTY_TURN_S = 0.5, 0.05
"""In a flood memory grows by tens of megabytes a second; a look costs 50 µs."""
HASTY_FROM = 0.7
MEMORY_OVER, MEMORY_UNDER, MEMORY_URGENT = 0.8, 0.65, 0.9
MEMORY_PATIENCE_S = 0.5
"""Between two steps: what was dropped is free by then."""
CPU_OVER, CPU_UNDER = 1.0, 0.5
QUIET_S = 10.0
AGAIN_S = 10.0
"""What is in force is repeated this often: an exporter that a reload has added does not know it."""
SENTENCES = 64


class GuardState(NamedTuple):
    """How one guard stands."""

    name: str
    step: str
    level: int
    used: float
    """Share of the limit."""
    downs: int
    ups: int
    """Steps taken so far."""


class Change(NamedTuple):
    """A step that was taken."""

    guard: str
    step: str
    down: bool
    sentence: str


class Guard:
    """One limit. *apply* is called with the level that holds from then on, in the thread of `turn`."""

    def __init__(
        self,
        name: str,
        ladder: Ladder,
        steps: Sequence[Step],
        pressure: Callable[[], float],
        apply: Callable[[int], None],
    ) -> None:
        self.name = name
        self._ladder = ladder
        self._steps = steps
        self._pressure = pressure
        self._apply = apply
        self._applied_s = 0.0
        self.used = 0.0
        """Share of the limit at the last look."""

    def turn(self, now_s: float) -> Change | None:
        """Looks at the pressure and takes a step if it is time; gives that step."""
        before = self._ladder.level
        self.used = self._pressure()
        level = self._ladder.follow(self.used, now_s)
        if level != before or (level and now_s - self._applied_s >= AGAIN_S):
            self._apply(level)
            self._applied_s = now_s
        if level == before:
            return None
        step = self._steps[level]
        sentence = f"{self.name}: {self.used:.0%} of it is used: {step.meaning}"
        return Change(self.name, step.name, level > before, sentence)

    @property
    def is_hasty(self) -> bool:
        """Whether the limit may be reached before the usual next look."""
        return self.name == MEMORY_LIMIT and self.used >= HASTY_FROM

    def state(self) -> GuardState:
        """As it stands; from any thread."""
        ladder = self._ladder
        return GuardState(self.name, self._steps[ladder.level].name, ladder.level, self.used, ladder.downs, ladder.ups)


class Guards:
    """Turns guards and lets the watchdog look, in a thread of its own, while entered."""

    def __init__(self, guards: Sequence[Guard], pulses: Callable[[], Iterable[Pulse]], stuck_after_s: float) -> None:
        """*pulses* are those of the stages that the watchdog looks after; that of this thread is added, so
        that whoever asks the watchdog sees it, too."""
        self._guards = guards
        self._pulse = Pulse("guards")
        self.watchdog = Watchdog(lambda: (self._pulse, *pulses()), stuck_after_s)
        self.sentences: deque[str] = deque(maxlen=SENTENCES)
        """What a person should know, oldest first."""
        self.on_change: Callable[[Change], None] | None = None
        self.on_stage: Callable[[StageChange], None] | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="guards", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """No more steps are taken; what is in force stays so. May be called twice."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def states(self) -> list[GuardState]:
        """How each guard stands, now; from any thread."""
        return [guard.state() for guard in self._guards]

    def _run(self) -> None:
        turn_s = TURN_S
        while not self._stopping.wait(turn_s):
            self._pulse.beat()
            for guard in self._guards:
                change = guard.turn(time.monotonic())
                if change is not None:
                    self._tell(change)
            for one in self.watchdog.look():
                self._tell_stage(one)
            turn_s = HASTY_TURN_S if any(guard.is_hasty for guard in self._guards) else TURN_S
        self._pulse.end()

    def _tell_stage(self, change: StageChange) -> None:
        self.sentences.append(change.sentence)
        if self.on_stage is not None:
            self.on_stage(change)

    def _tell(self, change: Change) -> None:
        self.sentences.append(change.sentence)
        if self.on_change is not None:
            self.on_change(change)


def guards(
    config: Config,
    bounds: Sequence[memory.Bound],
    outputs: Exporters,
    sampling: Sampling,
    slow_down: Callable[[float], None],
    pulses: Callable[[], Iterable[Pulse]],
) -> Guards:
    """The guards that *config* asks for, not yet turning; *bounds* are those of memory, *slow_down* sets the
    least time between two ticks of the line, *pulses* are those of the stages."""
    shedding = Shedding(outputs, sampling, slow_down)
    made = []
    if bounds:
        steps = memory_steps(config.metrics.temporality)
        ladder = Ladder(len(steps) - 1, MEMORY_OVER, MEMORY_UNDER, MEMORY_PATIENCE_S, QUIET_S, MEMORY_URGENT)
        made.append(Guard(MEMORY_LIMIT, ladder, steps, memory.pressure(bounds), shedding.memory))
    cores = cpu.budget(config)
    if cores is not None:
        ladder = Ladder(len(CPU_STEPS) - 1, CPU_OVER, CPU_UNDER, cpu.WINDOW_S, QUIET_S)
        made.append(Guard(CPU_LIMIT, ladder, CPU_STEPS, cpu.CpuPressure(cores), shedding.cpu))
    return Guards(made, pulses, config.health.stuck_after)
