"""(network namespace, address) → the host names under which processes there asked for it.

Only names that were observed in DNS answers, never reverse DNS. The name asked for counts, not where its aliases led.
A name holds for connections that started from the answer on until its TTL and a margin have passed: programs keep an
answer a little longer than they may.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from otelbpf.enrich.caches import Memory
from otelbpf.native.distinct import Distinct, distinct_together, words
from otelbpf.signals import names

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otelbpf.batch import Batch, Facts
    from otelbpf.enrich.caches import Counters

ADDRESSES = 16_384
NAMES_OF_ADDRESS = 16
ASKERS_OF_ADDRESS = 64
FIXED_CONNECTIONS = 65_536
MARGIN_NS = 30 * 10**9
NS_PER_S = 10**9
CLIENT, ANSWERED, CLOSED = 1, 1, 1
MAPPED = bytes(10) + b"\xff\xff"
NEVER = (1, 0, 0)
NO_NAMES: tuple[str, ...] = ()

Names = tuple[str, ...]
"""The name to show first, then the others that hold too."""


class _Asked(NamedTuple):
    """That a process asked for a name, once or several times in a row, and was given the same answer."""

    pid: int
    first_ns: int
    last_ns: int
    ends_ns: int


class _Lesson(NamedTuple):
    """What an answer teaches: the addresses of a name, for how long after each time that it was given."""

    name: str
    addresses: tuple[bytes, ...]
    holds_ns: int


class _Name:
    """One name of one address: from when to when it may be used, and who asked last."""

    __slots__ = ("asked_ns", "begins_ns", "earlier", "ends_ns", "names", "pid")

    def __init__(self, name: str, asked: _Asked) -> None:
        self.names: Names = (name,)
        self.pid, self.begins_ns, self.asked_ns, self.ends_ns = asked
        self.earlier: tuple[int, int] | None = None

    def ask_again(self, asked: _Asked) -> None:
        if asked.first_ns > self.ends_ns:  # a gap: connections of the time before it may still be told of
            self.earlier = (self.begins_ns, self.ends_ns)
            self.begins_ns = asked.first_ns
        elif asked.first_ns < self.begins_ns:
            self.begins_ns = asked.first_ns
        if asked.last_ns > self.asked_ns:
            self.asked_ns, self.pid = asked.last_ns, asked.pid
        self.ends_ns = max(self.ends_ns, asked.ends_ns)

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

    def learn(self, name: str, asked: _Asked) -> None:
        for known in self._names:
            if known.names[0] == name:
                known.ask_again(asked)
                break
        else:
            known = _Name(name, asked)
            self._add(known)
        if len(self._names) > 1:
            self._asked(known, asked.last_ns, asked.pid)

    def at(self, start_ns: int, pid: int) -> Names:
        """The names that hold for a connection which process *pid* started then."""
        holding = [name for name in self._names if name.holds(start_ns)]
        if len(holding) < 2:
            return holding[0].names if holding else NO_NAMES
        chosen, asked_ns = self._askers.get(pid, (None, 0))
        if chosen is None or chosen not in holding or asked_ns > start_ns:
            chosen = max(holding, key=lambda name: name.asked_before(start_ns))
        return chosen.names + tuple(sorted(name.names[0] for name in holding if name is not chosen))

    @property
    def alone(self) -> _Name | None:
        """The name, if there is one only and it holds for one span of time."""
        return self._names[0] if len(self._names) == 1 and self._names[0].earlier is None else None

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
        alike = _asked_alike(questions.codes[told], answers.codes[told], head)
        rows = zip(
            questions.codes[told][alike.rows].tolist(),
            answers.codes[told][alike.rows].tolist(),
            head["netns"][alike.rows].tolist(),
            head["pid"][alike.rows].tolist(),
            *_first_and_last(head["time_ns"], alike),
            strict=True,
        )
        for question, answer, netns, pid, first_ns, last_ns in rows:
            facts = answers.values[answer]
            lesson = facts.encoded[_Lesson] if _Lesson in facts.encoded else _lesson(questions.values[question], facts)
            if lesson is not None:
                asked = _Asked(pid, first_ns, last_ns, last_ns + lesson.holds_ns)
                for address in lesson.addresses:
                    self._address(netns, address).learn(lesson.name, asked)

    def of(self, batch: Batch) -> tuple[NDArray[np.intp], list[Names]]:
        """For each row an index into the list of names that follows; those that hold for no name are 0."""
        found = _Found(len(batch))
        settled = self._take_fixed(batch, found)
        self._take_known(batch, found)
        if batch.snapshot:
            cookies = batch.rows["cookie"]
            for row in np.flatnonzero((found.codes != 0) & ~settled).tolist():
                self._fixed[int(cookies[row])] = found.values[found.codes[row]]
        return found.codes, found.values

    def counters(self) -> Counters:
        return self._known.counters()

    def fixed_counters(self) -> Counters:
        """Of the living connections whose names are kept."""
        return self._fixed.counters()

    def _address(self, netns: int, address: bytes) -> _Address:
        key = netns, address
        if key in self._known:  # cachetools' get() costs twice as much
            return self._known[key]
        known = self._known[key] = _Address()
        return known

    def _take_fixed(self, batch: Batch, found: _Found) -> NDArray[np.bool_]:
        """Rows of living connections that have been named keep their name; those told otherwise than by a snapshot
        live no more."""
        settled = np.zeros(len(batch), dtype=bool)
        if not self._fixed:
            return settled
        for row, cookie in enumerate(batch.rows["cookie"].tolist()):
            if cookie in self._fixed:
                settled[row] = True
                found.put(row, self._fixed[cookie] if batch.snapshot else self._fixed.pop(cookie))
        return settled

    def _take_known(self, batch: Batch, found: _Found) -> None:
        """Names rows of clients whose start was seen and whose peer's address was in some answer."""
        rows = batch.rows
        clients = np.flatnonzero((rows["role"] == CLIENT) & (rows["start_ns"] != 0) & (found.codes == 0))
        if not self._known or not len(clients):
            return
        addresses, netns = rows["remote_address"][clients], rows["head"]["netns"][clients]
        ends = distinct_together((*words(addresses), netns.astype(np.uint64)))
        keys = zip(netns[ends.rows].tolist(), addresses[ends.rows].tolist(), strict=True)
        known = [self._known.recall(key) for key in keys]
        starts_ns = rows["start_ns"][clients]
        alone = [_alone(address, found) for address in known]
        begins_ns, ends_ns, codes = np.array(alone, dtype=np.uint64).T[:, ends.codes]
        found.codes[clients] = np.where((begins_ns <= starts_ns) & (starts_ns <= ends_ns), codes, 0).astype(np.intp)
        choosing = np.array([address is not None and address.alone is None for address in known], dtype=bool)
        for at in np.flatnonzero(choosing[ends.codes]).tolist():
            row, address = int(clients[at]), known[ends.codes[at]]
            if address is not None:
                found.put(row, address.at(int(starts_ns[at]), int(rows["head"]["pid"][row])))


class _Found:
    """Names of rows: codes and the names that they stand for; code 0 is no name."""

    def __init__(self, rows: int) -> None:
        self.codes = np.zeros(rows, dtype=np.intp)
        self.values: list[Names] = [NO_NAMES]
        self._place: dict[Names, int] = {NO_NAMES: 0}

    def code(self, found: Names) -> int:
        code = self._place.setdefault(found, len(self.values))
        if code == len(self.values):
            self.values.append(found)
        return code

    def put(self, row: int, found: Names) -> None:
        self.codes[row] = self.code(found)


def _alone(address: _Address | None, found: _Found) -> tuple[int, int, int]:
    """From when to when which name (its code) holds, for an address with only one; else never."""
    name = None if address is None else address.alone
    return NEVER if name is None else (name.begins_ns, name.ends_ns, found.code(name.names))


def _asked_alike(questions: NDArray[np.intp], answers: NDArray[np.intp], head: NDArray[np.void]) -> Distinct:
    """The rows in which the same process asked for the same and was told the same, in the order of the last of each.

    Rows so far apart that a name may have ended in between stand alone.
    """
    each = np.arange(len(head))
    if np.ptp(head["time_ns"]) > MARGIN_NS:
        return Distinct(each, each)
    process = head["netns"].astype(np.uint64) << np.uint64(32) | head["pid"]
    found = distinct_together((process, questions.astype(np.uint64), answers.astype(np.uint64)))
    last = np.zeros(len(found.rows), np.intp)
    np.maximum.at(last, found.codes, each)
    order = np.argsort(last)
    place = np.empty(len(order), np.intp)
    place[order] = np.arange(len(order))
    return Distinct(last[order], place[found.codes])


def _first_and_last(times_ns: NDArray[np.uint64], alike: Distinct) -> tuple[list[int], list[int]]:
    first, last = times_ns[alike.rows], times_ns[alike.rows]
    np.minimum.at(first, alike.codes, times_ns)
    np.maximum.at(last, alike.codes, times_ns)
    return first.tolist(), last.tolist()


def _lesson(question: Facts, answer: Facts) -> _Lesson | None:
    """Kept with the answer, which is that to one question only."""
    addresses, name = answer.get(names.DNS_ANSWERS), question.get(names.DNS_QUESTION_NAME)
    holds_ns = answer.get(names.OTELBPF_DNS_TTL, 0) * NS_PER_S + MARGIN_NS
    lesson = _Lesson(name.lower(), tuple(map(_packed, addresses)), holds_ns) if addresses and name else None
    answer.encoded[_Lesson] = lesson
    return lesson


def _packed(text: str) -> bytes:
    """An address in an answer as the kernel side writes addresses: 16 bytes."""
    if ":" in text:
        return socket.inet_pton(socket.AF_INET6, text)
    return MAPPED + socket.inet_pton(socket.AF_INET, text)
