"""Gets a probe its signal: tries its ways in order, with the real programs, and says what came of it.

One hook that this kernel refuses costs one detail or one signal, never the agent.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from otelbpf.compiled import compiled_for
from otelbpf.errors import Unsupported
from otelbpf.kernel import features
from otelbpf.kernel.btf import Btf, record_dtype
from otelbpf.kernel.drain import Source
from otelbpf.kernel.memory_order import ring_class
from otelbpf.kernel.object import Object
from otelbpf.kernel.ring import ring_bytes
from otelbpf.kernel.throttle import Throttle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np

    from otelbpf.kernel.ring import Ring
    from otelbpf.probes.probe import Probe, Walk, Way

_RING = "events"
_THROTTLED = "throttled_now"
_LOST_WITHOUT = {
    "adopt": "what existed before the agent started",
    "sweep": "what has timed out",
}
_LOST_WITHOUT_WALK = "what is alive, until it ends"


class Refusal(NamedTuple):
    """A way or a program that this kernel did not accept."""

    what: str
    reason: str


@dataclass(slots=True)
class AttachedProbe:
    """A probe in the kernel, or the reasons why it is not there."""

    probe: Probe
    way: Way | None = None
    walk: Walk | None = None
    """The one of the probe's that gives a snapshot."""
    refused: list[Refusal] = field(default_factory=list)
    """Ways and programs that were tried in vain, in order."""
    lost: list[str] = field(default_factory=list)
    """Details that are not seen because an optional program is missing."""
    object: Object | None = None
    ring: Ring | None = None
    struct: np.dtype[np.void] | None = None
    """The rows of a snapshot."""
    record: np.dtype[np.void] | None = None
    """The records of the ring: the same fields, behind the record's header."""
    counts: Any = None
    """Live view of `event_counts`; stays readable when the probe is gone."""
    throttle: Throttle | None = None
    """For a probe that has one."""
    seconds: float = 0.0
    """What loading and attaching took, failed tries included."""

    @property
    def state(self) -> Literal["attached", "degraded", "failed"]:
        """`attached`, `degraded` (works, but see `lost`) or `failed`."""
        if self.way is None:
            return "failed"
        return "degraded" if self.lost else "attached"

    @property
    def source(self) -> Source:
        """The ring, for the drain."""
        if self.ring is None:
            raise Unsupported(self.probe.name, "not attached")
        return Source(self.probe.name, self.ring)

    def has(self, program: str | None) -> bool:
        """Whether *program* (a name of the probe, or None) is loaded."""
        return self.object is not None and program is not None and program in self.object.programs

    def adopt(self) -> bytes:
        """Runs the `adopt` iterator: what exists already becomes known to the other programs."""
        return self._iterate(self.probe.adopt, None)

    def snapshot(self) -> bytes:
        """Rows of `struct`, one for each thing that is alive; empty when the probe has no such program."""
        if self.throttle is not None:
            self.throttle.before_snapshot()
        return b"" if self.walk is None else self._iterate(self.walk.program, self.walk.over)

    def sweep(self) -> None:
        """Runs the `sweep` program: what has timed out becomes events. And forgets what the throttle need not know."""
        if self.throttle is not None:
            self.throttle.sweep()
        if self.object is not None and self.probe.sweep is not None and self.has(self.probe.sweep):
            self.object.run(self.probe.sweep)

    def limit(self, config: Any) -> None:
        """From now on the throttle is as *config* has it."""
        if self.throttle is None:
            return
        chosen = getattr(config.probes, self.probe.name).throttle
        if chosen == "off":
            self.throttle.limit(0, 0)
        else:
            self.throttle.limit(chosen.rate, chosen.burst)

    def detach(self) -> None:
        """No new events from here on; what is in the ring, and what is alive, can still be read."""
        if self.object is not None:
            self.object.detach()

    def _iterate(self, program: str | None, over: str | None) -> bytes:
        if self.object is None or program is None or not self.has(program):
            return b""
        return self.object.iterate(program, over)


def object_path(probe: str) -> Path:
    """The compiled object of a probe, for this machine."""
    return Path(__file__).parents[1] / "probes" / "objects" / compiled_for() / f"{probe}.bpf.o"


@contextmanager
def attach(
    probe: Probe,
    config: Any,
    *,
    path: Path | None = None,
    knobs: Mapping[str, int] = MappingProxyType({}),
    before_attach: Callable[[Object], None] = lambda _object: None,
) -> Iterator[AttachedProbe]:
    """The probe by the first of its ways that this kernel accepts; never raises for what the kernel refuses.

    *knobs* are values of constants that several objects have; an object without one ignores it.
    *before_attach* is called with the loaded object before any program can run (to fill filter maps).
    Raises CannotRun when the object or libbpf is missing: then no probe can work.
    """
    attached = AttachedProbe(probe)
    began = time.perf_counter()
    settings = _settings(probe, config, path or object_path(probe.name), knobs)
    with ExitStack() as open_:
        for way in probe.ways:
            opened = _open_way(attached, way, before_attach, settings)
            if opened is not None:
                open_.push(opened)
                attached.ring = open_.enter_context(_describe(attached, way, opened))
                attached.throttle = Throttle(opened) if opened.has_map(_THROTTLED) else None
                attached.limit(config)
                break
        attached.seconds = time.perf_counter() - began
        yield attached


@contextmanager
def attach_all(
    probes: Sequence[Probe],
    config: Any,
    *,
    knobs: Mapping[str, int] = MappingProxyType({}),
    before_attach: Callable[[Object], None] = lambda _object: None,
) -> Iterator[list[AttachedProbe]]:
    """Each of *probes* as `attach` gives it, in order; attached side by side, because the kernel takes some 80 ms to
    verify one and nobody should notice a start. *before_attach* is called in several threads."""
    openings = [attach(probe, config, knobs=knobs, before_attach=before_attach) for probe in probes]
    with ExitStack() as open_:
        with ThreadPoolExecutor(len(openings) or 1, thread_name_prefix="attach") as pool:
            entered = [pool.submit(opening.__enter__) for opening in openings]
        for opening, entry in zip(openings, entered, strict=True):
            if entry.exception() is None:
                open_.push(opening)
        yield [entry.result() for entry in entered]


def examine(probe: Probe, config: Any, *, path: Path | None = None) -> dict[str, str | None]:
    """Each way of the probe → why it cannot be used here, or None; each that can is attached for a moment."""
    settings = _settings(probe, config, path or object_path(probe.name), {})
    answers: dict[str, str | None] = {}
    for way in probe.ways:
        trial = AttachedProbe(probe)
        opened = _open_way(trial, way, lambda _object: None, settings)
        if opened is None:
            answers[way.name] = trial.refused[-1].reason
        else:
            opened.release()
            answers[way.name] = None
    return answers


def _settings(probe: Probe, config: Any, path: Path, knobs: Mapping[str, int]) -> dict[str, Any]:
    """What the object of the probe is opened with, whatever the way."""
    return {
        "path": path,
        "constants": _constants(probe, config, path, knobs),
        "map_sizes": {**probe.map_sizes(config), **_ring_size(probe, config)},
    }


def _constants(probe: Probe, config: Any, path: Path, knobs: Mapping[str, int]) -> dict[str, int]:
    """The probe's own, and what it takes from the machine where its object has a knob for it."""
    shared = {
        **knobs,
        "cgroup_v1": int(features.cgroup_v1_memory_mount() is not None),
        "self_pid": features.initial_pid() if config.filters.exclude_self else 0,
    }
    declared = Btf.read(path).variables
    own = probe.constants(config)
    return {**{name: value for name, value in shared.items() if name in declared}, **own}


def _ring_size(probe: Probe, config: Any) -> dict[str, int]:
    settings = getattr(config.probes, probe.name, None)
    return {} if settings is None else {_RING: ring_bytes(settings.ring_size)}


def _open_way(
    attached: AttachedProbe, way: Way, before_attach: Callable[[Object], None], settings: Mapping[str, Any]
) -> Object | None:
    """The object, loaded and attached, or None when a program the way cannot do without was refused."""
    optional = _optional(attached.probe, way)
    absent: set[str] = set()
    while True:
        walk = next((walk for walk in attached.probe.snapshots if walk.program not in absent), None)
        walking = {walk.program} if walk else set()
        chosen = [name for name in (*way.programs, *optional, *walking) if name not in absent]
        opened = Object(programs=chosen, **settings)
        try:
            with ExitStack() as undo:
                undo.enter_context(opened)
                before_attach(opened)
                _attach_programs(attached, way, opened, absent)
                undo.pop_all()
        except Unsupported as refusal:
            dispensable = refusal.what in {*optional, *walking} - absent
            if not dispensable:
                attached.refused.append(Refusal(f"way {way.name}", str(refusal)))
                return None
            attached.refused.append(Refusal(refusal.what, refusal.reason))
            absent.add(refusal.what)
        else:
            attached.walk = walk
            attached.lost = [optional[name] for name in optional if name in absent]
            if attached.probe.snapshots and walk is None:
                attached.lost.append(_LOST_WITHOUT_WALK)
            return opened


def _optional(probe: Probe, way: Way) -> dict[str, str]:
    """Programs that the probe can do without → what is lost."""
    lost = {name: way.lost.get(name, f"what {name} sees") for name in way.optional}
    for role, detail in _LOST_WITHOUT.items():
        program = getattr(probe, role)
        if program is not None and program not in way.programs:
            lost.setdefault(program, detail)
    return lost


def _attach_programs(attached: AttachedProbe, way: Way, opened: Object, absent: set[str]) -> None:
    for program in way.programs:
        opened.attach(program)
    for program in way.optional:
        if program in absent:
            continue
        try:
            opened.attach(program)
        except Unsupported as refusal:
            attached.refused.append(Refusal(program, refusal.reason))
            absent.add(program)


def _describe(attached: AttachedProbe, way: Way, opened: Object) -> Ring:
    struct = opened.layout(attached.probe.struct)
    attached.way, attached.object = way, opened
    attached.struct, attached.record = struct, record_dtype(struct)
    attached.counts = opened.bss("event_counts")
    ring = opened.map(_RING)
    return ring_class()(ring.fd, ring.max_entries, struct.itemsize)
