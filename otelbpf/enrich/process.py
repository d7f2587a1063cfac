"""Which executable a process runs: its id in an event's head (device and inode) → name and path.

Learnt from exec events, which carry the path; what runs longer than the agent is asked of /proc while it lives. An
id that nobody can name any more goes by the name that the kernel gives the process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from otelbpf.batch import Categorical, Facts
from otelbpf.enrich.distinct import distinct
from otelbpf.enrich.memory import Made, Memory
from otelbpf.signals import names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from otelbpf.batch import Batch
    from otelbpf.enrich.machine import Answers
    from otelbpf.enrich.memory import Counters

EXECUTABLES = 16_384
PROCESSES = 16_384
EXEC, EXIT = 1, 2


class Executables:
    """Executable id → what is known of it."""

    def __init__(self, machine: Answers) -> None:
        self._machine = machine
        self._known: Memory[int, Facts] = Memory(EXECUTABLES)
        self._by_comm: Made[bytes, Facts] = Made(EXECUTABLES, _by_comm)
        self._run_by: Memory[int, int] = Memory(PROCESSES)

    def learn(self, batch: Batch) -> None:
        """Takes in the executions in a batch of the probe `process`."""
        rows = batch.rows[batch.rows["kind"] == EXEC]
        executables = rows["head"]["executable"].tolist()
        self._run_by.update(zip(rows["head"]["pid"].tolist(), executables, strict=True))
        for executable, filename in dict(zip(executables, rows["filename"].tolist(), strict=True)).items():
            path = filename.decode(errors="replace")
            known = self._known.get(executable)
            if executable and path and (known is None or known.get(names.PROCESS_EXECUTABLE_PATH) != path):
                self._known[executable] = _by_path(path)

    def forget(self, batch: Batch) -> None:
        """The processes that end in a batch of the probe `process`: their ids will be given to others."""
        rows = batch.rows[batch.rows["kind"] == EXIT]
        for pid in rows["head"]["pid"].tolist():
            self._run_by.pop(pid, None)

    def of(self, executables: NDArray[np.uint64], pids: NDArray[np.uint32], comms: NDArray[np.bytes_]) -> Categorical:
        """What each row runs."""
        found = distinct(executables)
        pairs = zip(executables[found.rows].tolist(), pids[found.rows].tolist(), strict=True)
        known = [self._find(executable, pid) for executable, pid in pairs]
        if None not in known:
            return Categorical(found.codes, [facts for facts in known if facts is not None])
        return self._with_comms(found.codes, known, comms, pids)

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

    def _with_comms(
        self,
        codes: NDArray[np.intp],
        known: Sequence[Facts | None],
        comms: NDArray[np.bytes_],
        pids: NDArray[np.uint32],
    ) -> Categorical:
        """The rows whose executable is not known go by what their process was seen to start, else by comm."""
        nameless = np.array([facts is None for facts in known])[codes]
        values: list[Facts] = [facts or Facts() for facts in known]
        codes = codes.copy()
        place: dict[int, int] = {}
        for row in np.flatnonzero(nameless).tolist():
            facts = self._by_pid(int(pids[row])) or self._by_comm.of(comms[row])
            if id(facts) not in place:
                place[id(facts)] = len(values)
                values.append(facts)
            codes[row] = place[id(facts)]
        return Categorical(codes, values)

    def _by_pid(self, pid: int) -> Facts | None:
        """Before 6.16 a process that ends has lost its memory map, and with it the executable, when we hear of it."""
        executable = self._run_by.get(pid)
        return None if executable is None else self._known.get(executable)


def _by_path(path: str) -> Facts:
    name = path.rpartition("/")[2]
    if not path.startswith("/"):
        return Facts({names.PROCESS_EXECUTABLE_NAME: name})
    return Facts({names.PROCESS_EXECUTABLE_NAME: name, names.PROCESS_EXECUTABLE_PATH: path})


def _by_comm(comm: bytes) -> Facts:
    return Facts({names.PROCESS_EXECUTABLE_NAME: comm.decode(errors="replace")}) if comm else Facts()
