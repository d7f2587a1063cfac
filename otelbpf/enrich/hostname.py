"""(network namespace, address) → the host names under which processes there asked for it.

Only names that were observed in DNS answers, never reverse DNS. The name asked for counts, not where its aliases led.
A name holds for connections that started from the answer on until its TTL and a margin have passed: programs keep an
answer a little longer than they may.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import numpy as np

from otelbpf.enrich.distinct import distinct_together, words
from otelbpf.enrich.memory import Memory
from otelbpf.signals import names

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from otelbpf.batch import Batch
    from otelbpf.enrich.memory import Counters

ADDRESSES = 16_384
NAMES_OF_ADDRESS = 16
ASKERS_OF_ADDRESS = 64
FIXED_CONNECTIONS = 65_536
MARGIN_NS = 30 * 10**9
NS_PER_S = 10**9
CLIENT, ANSWERED, CLOSED = 1, 1, 1
MAPPED = bytes(10) + b"\xff\xff"
NO_NAMES: tuple[str, ...] = ()

Names = tuple[str, ...]
"""The name to show first, then the others that hold too."""


class _Name:
    """One name of one address: from when to when it may be used, and who asked last."""

    __slots__ = ("asked_ns", "begins_ns", "earlier", "ends_ns", "names", "pid")

    def __init__(self, name: str, asked_ns: int, ends_ns: int, pid: int) -> None:
        self.names: Names = (name,)
        self.begins_ns = self.asked_ns = asked_ns
        self.ends_ns = ends_ns
        self.pid = pid
        self.earlier: tuple[int, int] | None = None

    def ask_again(self, asked_ns: int, ends_ns: int, pid: int) -> None:
        if asked_ns > self.ends_ns:  # a gap: connections of the time before it may still be told of
            self.earlier = (self.begins_ns, self.ends_ns)
            self.begins_ns = asked_ns
        self.begins_ns = min(self.begins_ns, asked_ns)
        self.asked_ns = max(self.asked_ns, asked_ns)
        self.ends_ns = max(self.ends_ns, ends_ns)
        self.pid = pid

    def holds(self, start_ns: int) -> bool:
        if self.begins_ns <= start_ns <= self.ends_ns:
            return True
        return self.earlier is not None and self.earlier[0] <= start_ns <= self.earlier[1]

    def asked_before(self, start_ns: int) -> int:
        """When it was asked for last before *start_ns*, as far as that is kept."""
        return self.asked_ns if self.asked_ns <= start_ns else self.begins_ns


class _Address:
    """The names of one address, and which of several each process asked for last."""

    __slots__ = ("_askers", "_names")

    def __init__(self) -> None:
        self._names: list[_Name] = []
        self._askers: dict[int, tuple[_Name, int]] = {}

    def learn(self, name: str, asked_ns: int, ends_ns: int, pid: int) -> None:
        known = next((known for known in self._names if known.names[0] == name), None)
        if known is None:
            known = _Name(name, asked_ns, ends_ns, pid)
            self._add(known)
        else:
            known.ask_again(asked_ns, ends_ns, pid)
        if len(self._names) > 1:
            self._asked(known, asked_ns, pid)

    def at(self, start_ns: int, pid: int) -> Names:
        """The names that hold for a connection which process *pid* started then."""
        holding = [name for name in self._names if name.holds(start_ns)]
        if len(holding) < 2:
            return holding[0].names if holding else NO_NAMES
        chosen, asked_ns = self._askers.get(pid, (None, 0))
        if chosen is None or chosen not in holding or asked_ns > start_ns:
            chosen = max(holding, key=lambda name: name.asked_before(start_ns))
        return chosen.names + tuple(sorted(name.names[0] for name in holding if name is not chosen))

    def _add(self, name: _Name) -> None:
        if len(self._names) == 1:
            only = self._names[0]
            self._asked(only, only.asked_ns, only.pid)
        if len(self._names) >= NAMES_OF_ADDRESS:
            self._names.remove(min(self._names, key=lambda known: known.asked_ns))
        self._names.append(name)

    def _asked(self, name: _Name, asked_ns: int, pid: int) -> None:
        self._askers.pop(pid, None)
        self._askers[pid] = (name, asked_ns)
        if len(self._askers) > ASKERS_OF_ADDRESS:
            del self._askers[next(iter(self._askers))]


class HostNames:
    """Learns from DNS answers, and names the other ends of connections."""

    def __init__(self) -> None:
        self._known: Memory[tuple[int, bytes], _Address] = Memory(ADDRESSES)
        self._fixed: Memory[int, Names] = Memory(FIXED_CONNECTIONS)

    def learn(self, batch: Batch) -> None:
        """Takes in a batch of the probe `dns_lookup`: what clients here were answered."""
        told = np.flatnonzero((batch.number("role") == CLIENT) & (batch.number("kind") == ANSWERED))
        if not len(told):
            return
        questions, answers = batch.things("question"), batch.things("answer")
        head = batch.rows["head"][told]
        rows = zip(
            questions.codes[told].tolist(),
            answers.codes[told].tolist(),
            head["netns"].tolist(),
            head["pid"].tolist(),
            head["time_ns"].tolist(),
            strict=True,
        )
        for question, answer, netns, pid, time_ns in rows:
            facts = answers.values[answer]
            addresses = facts.get(names.DNS_ANSWERS)
            name = questions.values[question].get(names.DNS_QUESTION_NAME)
            if addresses and name:
                ends_ns = time_ns + facts.get(names.OTELBPF_DNS_TTL, 0) * NS_PER_S + MARGIN_NS
                self._learn(name.lower(), addresses, netns, (time_ns, ends_ns, pid))

    def of(self, batch: Batch) -> tuple[NDArray[np.intp], list[Names]]:
        """For each row an index into the list of names that follows; those that hold for no name are 0."""
        codes = np.zeros(len(batch), dtype=np.intp)
        values: list[Names] = [NO_NAMES]
        place: dict[Names, int] = {NO_NAMES: 0}
        for row, found in self._named(batch):
            code = place.setdefault(found, len(values))
            if code == len(values):
                values.append(found)
            codes[row] = code
        return codes, values

    def counters(self) -> Counters:
        return self._known.counters()

    def fixed_counters(self) -> Counters:
        """Of the living connections whose names are kept."""
        return self._fixed.counters()

    def _learn(self, name: str, addresses: Iterable[str], netns: int, asked: tuple[int, int, int]) -> None:
        for text in addresses:
            key = (netns, _packed(text))
            known = self._known.get(key)
            if known is None:
                known = self._known[key] = _Address()
            known.learn(name, *asked)

    def _named(self, batch: Batch) -> Iterable[tuple[int, Names]]:
        """Rows that have a name, without a loop over those that have none."""
        cookies = batch.rows["cookie"]
        living = self._fixed
        kept = [row for row, cookie in enumerate(cookies.tolist()) if cookie in living] if living else []
        for row in kept:
            yield row, living[int(cookies[row])]
        candidates, known = self._candidates(batch)
        settled = set(kept)
        for row, address, start_ns, pid in zip(
            candidates.tolist(),
            known,
            batch.rows["start_ns"][candidates].tolist(),
            batch.rows["head"]["pid"][candidates].tolist(),
            strict=True,
        ):
            found = NO_NAMES if row in settled else address.at(start_ns, pid)
            if found:
                yield row, found
                if batch.snapshot:
                    living[int(cookies[row])] = found
        if not batch.snapshot:
            for row in kept:
                living.pop(int(cookies[row]), None)

    def _candidates(self, batch: Batch) -> tuple[NDArray[np.intp], Sequence[_Address]]:
        """The rows of clients whose start was seen and whose peer's address was in some answer."""
        rows = batch.rows
        found = distinct_together((*words(rows["remote_address"]), rows["head"]["netns"].astype(np.uint64)))
        keys = zip(rows["head"]["netns"][found.rows].tolist(), rows["remote_address"][found.rows].tolist(), strict=True)
        known = [self._known.recall(key) for key in keys]
        has_name = np.array([address is not None for address in known], dtype=bool)
        chosen = np.flatnonzero(has_name[found.codes] & (rows["role"] == CLIENT) & (rows["start_ns"] != 0))
        addresses = [known[code] for code in found.codes[chosen].tolist()]
        return chosen, [address for address in addresses if address is not None]


def _packed(text: str) -> bytes:
    """An address in an answer as the kernel side writes addresses: 16 bytes."""
    if ":" in text:
        return socket.inet_pton(socket.AF_INET6, text)
    return MAPPED + socket.inet_pton(socket.AF_INET, text)
