"""Which executable a process runs: its id in an event's head (device and inode) → name and path.

Learnt from exec events, which carry the path; what runs longer than the agent is asked of /proc while it lives. An
id that nobody can name any more goes by the name that the kernel gives the process.

A file may have several names (hard links: all of busybox is one), and all of them its id. Once an id was seen under a
second name, each process has the one that it was started by: its comm, which an exec sets, says which.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from otelbpf.batch import Categorical, Facts
from otelbpf.enrich.caches import Made, Memory
from otelbpf.native.distinct import distinct, distinct_together
from otelbpf.signals import names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from otelbpf.batch import Batch
    from otelbpf.enrich.caches import Counters
    from otelbpf.enrich.machine import Answers

EXECUTABLES = 16_384
PROCESSES = 16_384
LINKED = 256
"""Executables with several names."""
LINKS = 512
"""Names of one of them, the last that were used; busybox has 400, and the id of a file that is gone goes to the next."""
COMM_BYTES = 15
EXEC, EXIT = 1, 2


class Executables:
    """Executable id → what is known of it."""

    def __init__(self, machine: Answers) -> None:
        self._machine = machine
        self._known: Memory[int, Facts] = Memory(EXECUTABLES)
        self._by_comm: Made[bytes, Facts] = Made(EXECUTABLES, _by_comm)
        self._run_by: Memory[int, tuple[int, Facts | None]] = Memory(PROCESSES)
        self._links: Memory[int, dict[bytes, Facts]] = Memory(LINKED)
        self._ending: list[tuple[int, object]] = []
        self._ended: list[tuple[int, object]] = []

    def learn(self, batch: Batch) -> None:
        """Takes in the executions in a batch of the probe `process`."""
        rows = batch.rows[batch.rows["kind"] == EXEC]
        heads = rows["head"]
        executions = zip(heads["executable"].tolist(), heads["pid"].tolist(), rows["filename"].tolist(), strict=True)
        for executable, pid, filename in executions:
            facts = self._learn(executable, filename.decode(errors="replace")) if executable and filename else None
            self._run_by[pid] = executable, facts

    def _learn(self, executable: int, path: str) -> Facts:
        """*executable* was started by *path*."""
        links = self._links.get(executable)
        known = self._known.get(executable)
        if known is not None and links is None and _path(known) != path:
            links = self._links[executable] = {_comm(known): known}
        if links is not None:
            facts = links.get(_comm(made := _by_path(path)))
            if facts is None or _path(facts) != path:
                facts = made
            links.pop(_comm(facts), None)
            if len(links) >= LINKS:
                del links[next(iter(links))]
            links[_comm(facts)] = facts
            self._known[executable] = facts
        elif known is None:
            facts = self._known[executable] = _by_path(path)
        else:
            facts = known
        return facts

    def forget(self, batch: Batch) -> None:
        """The processes that end in a batch of the probe `process`: their ids will be given to others. What they did
        may be told in this turn and the next one still: each probe has a ring of its own."""
        rows = batch.rows[batch.rows["kind"] == EXIT]
        self._ending += [(pid, self._run_by.get(pid)) for pid in rows["head"]["pid"].tolist()]

    def let_go(self) -> None:
        """A turn begins: processes that ended in the turn before the last are forgotten."""
        for pid, ran in self._ended:
            if self._run_by.get(pid) is ran:
                self._run_by.pop(pid, None)
        self._ending, self._ended = [], self._ending

    def of(self, executables: NDArray[np.uint64], pids: NDArray[np.uint32], comms: NDArray[np.bytes_]) -> Categorical:
        """What each row runs."""
        found = distinct(executables)
        pairs = list(zip(executables[found.rows].tolist(), pids[found.rows].tolist(), strict=True))
        known = [self._find(executable, pid) for executable, pid in pairs]
        linked = np.array([executable in self._links for executable, _ in pairs], bool)
        if None not in known and not linked.any():
            return Categorical(found.codes, [facts for facts in known if facts is not None])
        return self._by_name(found.codes, known, linked, comms, pids, executables)

    def counters(self) -> Counters:
        return self._known.counters()

    def _find(self, executable: int, pid: int) -> Facts | None:
        if not executable:
            return None
        known = self._known.recall(executable)
        if known is not None:
            return known
        path = self._machine.executable_path(executable, pid)
        if path is None:
            return None
        self._known[executable] = facts = _by_path(path)
        return facts

    def _by_name(
        self,
        codes: NDArray[np.intp],
        known: Sequence[Facts | None],
        linked: NDArray[np.bool_],
        comms: NDArray[np.bytes_],
        pids: NDArray[np.uint32],
        executables: NDArray[np.uint64],
    ) -> Categorical:
        """Where the executable is not known, or has several names, the process and what it calls itself tell too."""
        rows = np.flatnonzero((np.array([facts is None for facts in known], bool) | linked)[codes])
        several = linked[codes]
        values: list[Facts] = [facts or Facts() for facts in known]
        place: dict[int, int] = {}
        halves = np.ascontiguousarray(comms[rows]).view(np.uint64).reshape(-1, 2)
        found = distinct_together((executables[rows], pids[rows].astype(np.uint64), halves[:, 0], halves[:, 1]))
        places = []
        for row in rows[found.rows].tolist():
            pid, comm = int(pids[row]), comms[row]
            facts = self._linked(int(executables[row]), pid, comm) if several[row] else self._by_pid(pid)
            facts = facts or self._by_comm.of(comm)
            if id(facts) not in place:
                place[id(facts)] = len(values)
                values.append(facts)
            places.append(place[id(facts)])
        codes = codes.copy()
        codes[rows] = np.array(places, np.intp)[found.codes]
        return Categorical(codes, values)

    def _linked(self, executable: int, pid: int, comm: bytes) -> Facts | None:
        """By which of its names *pid* runs *executable*. A thread may call itself anything, so comm is not all."""
        ran, started = self._run_by.get(pid, (0, None))
        started = started if ran == executable else None
        if started is not None and _comm(started) == comm:
            return started
        facts = self._links[executable].get(comm) or started
        if facts is None and (path := self._machine.executable_path(executable, pid)):
            facts = _by_path(path)
            self._run_by[pid] = executable, facts
        return facts

    def _by_pid(self, pid: int) -> Facts | None:
        """Before 6.16 a process that ends has lost its memory map, and with it the executable, when we hear of it."""
        return self._run_by.get(pid, (0, None))[1]


def _by_path(path: str) -> Facts:
    name = path.rpartition("/")[2]
    if not path.startswith("/"):
        return Facts({names.PROCESS_EXECUTABLE_NAME: name})
    return Facts({names.PROCESS_EXECUTABLE_NAME: name, names.PROCESS_EXECUTABLE_PATH: path})


def _path(facts: Facts) -> str:
    return str(facts.get(names.PROCESS_EXECUTABLE_PATH, facts[names.PROCESS_EXECUTABLE_NAME]))


def _comm(facts: Facts) -> bytes:
    """What an exec of it makes the kernel call the process."""
    return str(facts[names.PROCESS_EXECUTABLE_NAME]).encode()[:COMM_BYTES]


def _by_comm(comm: bytes) -> Facts:
    return Facts({names.PROCESS_EXECUTABLE_NAME: comm.decode(errors="replace")}) if comm else Facts()
