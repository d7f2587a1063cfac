"""Processes: what is executed by whom, and how every process ends.

The kernel gives the path of the file that runs, argv[0] and the parent; here follow what a declaration cannot say:
the time of creation as text, and whether an end is a failure.
"""

from __future__ import annotations

from datetime import UTC, datetime
from signal import Signals
from typing import TYPE_CHECKING

import numpy as np

from otelbpf.batch import Batch, Categorical, Facts
from otelbpf.lines import Lines, Part, words
from otelbpf.probes.probe import Attribute, Choice, Counter, Event, Known, Number, Probe, Totals, Way
from otelbpf.probes.three_digits import NANOSECONDS
from otelbpf.probes.throttled import EVENTS, THROTTLED, marked
from otelbpf.signals import names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from otelbpf.config import Config

EXEC, EXIT = 1, 2
OK, ERROR, SIGNAL, OOM = range(1, 5)
NO_CODE = -1
CLOCK_STEP_NS = 100_000_000
SIGNAL_NAMES: dict[int, str | bool] = {
    **{number: f"SIGRTMIN+{number - Signals.SIGRTMIN}" for number in range(Signals.SIGRTMIN, Signals.SIGRTMAX)},
    **{int(number): number.name for number in Signals},
}


class Prepare:
    """Adds the columns `executed`, `exited`, `failed`, `oom_killed`, `exit_class`, `code`, `duration_ns`,
    `image` and `birth`."""

    def __init__(self, _config: Config | None = None) -> None:
        self.undecodable = 0
        self._clock_offset_ns = 0

    def follow(self, config: Config) -> None:
        """It has no settings."""

    def __call__(self, batch: Batch) -> Batch:
        rows = batch.rows
        exited = rows["kind"] == EXIT
        exit_class = np.select(
            [rows["oom"] != 0, rows["exit_signal"] != 0, rows["exit_code"] != 0], [OOM, SIGNAL, ERROR], OK
        )
        columns = {
            "executed": rows["kind"] == EXEC,
            "exited": exited,
            "exit_class": exit_class,
            "failed": exited & (exit_class != OK),
            "oom_killed": exited & (exit_class == OOM),
            "code": np.where(rows["exit_signal"] != 0, NO_CODE, rows["exit_code"].astype(np.int64)),
            "duration_ns": np.maximum(rows["head"]["time_ns"].astype(np.int64) - rows["start_ns"].astype(np.int64), 0),
            "image": _images(rows),
            "birth": self._births(batch),
        }
        return Batch(batch.probe, rows, batch.clock_offset_ns, {**batch.columns, **columns}, batch.snapshot)

    def _births(self, batch: Batch) -> Categorical:
        """When each process was made; many are made in one millisecond."""
        unix_ns = batch.rows["start_ns"] + np.uint64(self._steady(batch.clock_offset_ns))
        milliseconds = unix_ns // np.uint64(10**6)
        distinct, codes = np.unique(milliseconds, return_inverse=True)
        return Categorical(codes, [Facts({names.PROCESS_CREATION_TIME: iso_time(at)}) for at in distinct.tolist()])

    def _steady(self, offset_ns: int) -> int:
        """The offset used before, until the clock is set: a process is known by pid and creation time, and the two
        records of one process must say the same time to the last digit."""
        if abs(offset_ns - self._clock_offset_ns) >= CLOCK_STEP_NS:
            self._clock_offset_ns = offset_ns
        return self._clock_offset_ns


def _with_totals(batch: Batch) -> Batch:
    """The columns of sums of processes; how they ended is as in `Prepare`, and 0 where it is not told apart."""
    batch.columns["executed"] = executed = batch.rows["kind"] == EXEC
    batch.columns["exited"] = ~executed
    batch.columns["exit_class"] = batch.rows["how"]
    return marked(batch)


def identities(batch: Batch) -> NDArray[np.uint64]:
    """A process: its start and its end are kept together."""
    rows = batch.rows
    about: NDArray[np.uint64] = rows["start_ns"].astype(np.uint64) << np.uint64(22) ^ rows["head"]["pid"]
    return about


def iso_time(unix_ms: int) -> str:
    """ISO 8601 in UTC."""
    at = datetime.fromtimestamp(unix_ms // 1000, UTC).replace(microsecond=unix_ms % 1000 * 1000, tzinfo=None)
    return at.isoformat(timespec="milliseconds") + "Z"


def _images(rows: NDArray[np.void]) -> Categorical:
    """What is known of each execution; few commands are run again and again."""
    place: dict[bytes, int] = {}
    codes = np.fromiter((place.setdefault(command, len(place)) for command in rows["command"].tolist()), np.intp)
    return Categorical(codes, [_command(command) for command in place])


def _command(command: bytes) -> Facts:
    return Facts({names.PROCESS_COMMAND: command.decode(errors="replace")} if command else {})


def exec_lines(batch: Batch) -> Iterator[str]:
    """`exec curl[4711] by bash[12]: /usr/bin/curl`"""
    head = batch.rows["head"]
    for comm, pid, parent, parent_pid, filename in zip(
        _texts(head["comm"]),
        head["pid"].tolist(),
        _parents(batch),
        batch.rows["parent_pid"].tolist(),
        _texts(batch.rows["filename"]),
        strict=True,
    ):
        yield f"exec {comm}[{pid}] by {parent}[{parent_pid}]: {filename}"


def exit_lines(batch: Batch) -> Lines:
    """`exit curl[4711] code 0 after 12.0 ms`"""
    head = batch.rows["head"]
    each = zip(
        _texts(head["comm"]),
        head["pid"].tolist(),
        batch.rows["exit_code"].tolist(),
        batch.rows["exit_signal"].tolist(),
        batch.number("oom_killed").tolist(),
        strict=True,
    )
    who = Part(words([f"exit {comm}[{pid}] {_outcome(code, number, oom)}" for comm, pid, code, number, oom in each]))
    return Lines(len(batch), who, " after ", NANOSECONDS.part(batch.number("duration_ns")))


def _outcome(code: int, number: int, oom: bool) -> str:  # noqa: FBT001 - a column of the row
    if not number:
        return f"code {code}"
    return str(SIGNAL_NAMES.get(number, f"signal {number}")) + (" (out of memory)" if oom else "")


def _texts(column: NDArray[np.bytes_]) -> Iterable[str]:
    return (text.decode(errors="replace") for text in column.tolist())


def _parents(batch: Batch) -> list[str]:
    parents = batch.columns.get("parent")
    if isinstance(parents, Categorical):
        texts = [facts.get(names.OTELBPF_PARENT_EXECUTABLE_NAME, "") for facts in parents.values]
        return [texts[code] for code in parents.codes.tolist()]
    return list(_texts(batch.rows["parent_comm"]))


PROCESS: tuple[Attribute, ...] = (
    Number(names.PROCESS_PID, "pid"),
    Known("process", (names.PROCESS_EXECUTABLE_NAME, names.PROCESS_EXECUTABLE_PATH)),
    Number(names.PROCESS_PARENT_PID, "parent_pid", absent=0),
)
EXIT_CLASS = Choice(
    names.OTELBPF_PROCESS_EXIT_CLASS, "exit_class", {OK: "ok", ERROR: "error", SIGNAL: "signal", OOM: "oom"}
)

PROBE = Probe(
    name="process",
    struct="process",
    scope=names.SCOPE_PROCESS,
    summary="what is executed by whom, and how every process ends",
    ways=(
        Way("tp_btf", ("executed", "exited")),
        Way("tp_btf_by_count", ("executed", "exited_by_count")),  # before 6.16
    ),
    prepare=Prepare,
    constants=lambda _config: {},
    events=(
        Event(
            names.EVENT_PROCESS_EXEC,
            when="executed",
            setting="process",
            body=exec_lines,
            identity=identities,
            attributes=(
                *PROCESS,
                Known("image", (names.PROCESS_COMMAND,)),
                Known("birth", (names.PROCESS_CREATION_TIME,)),
                Number(names.PROCESS_USER_ID, "uid"),
                Known("parent", (names.OTELBPF_PARENT_EXECUTABLE_NAME,)),
            ),
        ),
        Event(
            names.EVENT_PROCESS_EXIT,
            when="exited",
            setting="process",
            body=exit_lines,
            identity=identities,
            failed="failed",
            error="oom_killed",
            duration_ns="duration_ns",
            attributes=(
                *PROCESS,
                Number(names.PROCESS_EXIT_CODE, "code", absent=NO_CODE),
                Choice(names.OTELBPF_PROCESS_EXIT_SIGNAL, "exit_signal", SIGNAL_NAMES),
                Number(names.OTELBPF_PROCESS_DURATION, "duration_ns", scale=1e-9),
                Known("birth", (names.PROCESS_CREATION_TIME,)),
            ),
        ),
    ),
    metrics=(
        Counter(names.METRIC_OTELBPF_PROCESS_EXECS, column=None, by=(), when="executed"),
        Counter(
            names.METRIC_OTELBPF_PROCESS_EXITS,
            column=None,
            by=(EXIT_CLASS,),
            when="exited",
        ),
    ),
    totals=Totals(
        _with_totals,
        metrics=(
            Counter(names.METRIC_OTELBPF_PROCESS_EXECS, EVENTS, THROTTLED, when="executed"),
            Counter(names.METRIC_OTELBPF_PROCESS_EXITS, EVENTS, (EXIT_CLASS, *THROTTLED), when="exited"),
        ),
    ),
)
