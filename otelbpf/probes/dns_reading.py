"""Messages of a batch → the columns `question`, `answer` and `code_read`.

Most lookups of a node ask the same few names and are answered the same: a message that was read lately, whatever its
id, is not read again. What is not known then is parsed, a few microseconds each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from otelbpf.batch import Categorical, Facts
from otelbpf.errors import ProtocolError
from otelbpf.protocols.dns import Message, parse
from otelbpf.protocols.dns_registry import type_name
from otelbpf.signals import names

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from otelbpf.batch import Batch

MESSAGES, QUESTIONS, KINDS = 2048, 8192, 1024
"""Entries of each cache. A full one is emptied: that is rare, cheap, and costs no bookkeeping on each look-up."""
ID_BYTES = 2
NOT_READ, UNDECODABLE = 0, 1


class Read(NamedTuple):
    """What a message says, in the form that columns have."""

    question: Facts
    answer: Facts
    code: int


class Reading:
    """Reads messages; keeps Facts of what repeats, so that their encoded forms are made once."""

    def __init__(self) -> None:
        self._nothing = Facts()
        self._blank = Read(self._nothing, self._nothing, -1)
        self._messages: dict[bytes, Read | None] = {}
        self._questions: dict[str, Facts] = {}
        self._kinds: dict[int, Facts] = {}

    def sizes(self) -> dict[str, int]:
        """Entries of each cache."""
        return {"messages": len(self._messages), "questions": len(self._questions), "kinds": len(self._kinds)}

    def kinds(self, types: NDArray[Any]) -> Categorical:
        """The names of question types, a thing each."""
        distinct, codes = np.unique(types, return_inverse=True)
        return Categorical(codes, [self._kind(number) for number in distinct.tolist()])

    def add_messages(self, batch: Batch, wanted: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Reads the messages of *wanted* rows into columns; gives the rows that hold no nonsense."""
        found: list[Read] = [self._blank, self._blank]
        places: dict[int, int] = {}
        codes = np.zeros(len(batch), np.intp)
        codes[wanted] = [
            UNDECODABLE if read is None else _place(read, places, found) for read in self._read(batch.rows[wanted])
        ]
        batch.columns["question"] = _things([read.question for read in found], codes)
        batch.columns["answer"] = _things([read.answer for read in found], codes)
        batch.columns["code_read"] = np.array([read.code for read in found], np.int32)[codes]
        understood: NDArray[np.bool_] = codes != UNDECODABLE
        return understood

    def _read(self, rows: NDArray[np.void]) -> Iterable[Read | None]:
        width = rows.dtype["message"].itemsize
        messages = rows["message"].tobytes()
        known = self._messages
        captured, whole = rows["captured_bytes"].tolist(), rows["message_bytes"].tolist()
        for start, size, bytes_ in zip(range(0, len(messages), width), captured, whole, strict=True):
            if size != bytes_:
                yield self._made(messages[start : start + size], bytes_)
                continue
            key = messages[start + ID_BYTES : start + size]
            try:
                yield known[key]
            except KeyError:
                if len(known) >= MESSAGES:
                    known.clear()
                known[key] = read = self._made(messages[start : start + size], bytes_)
                yield read

    def _made(self, message: bytes, whole_bytes: int) -> Read | None:
        try:
            parsed = parse(message, whole_bytes)
        except ProtocolError:
            return None
        return Read(self._question(parsed.name), self._answer(parsed), parsed.code)

    def _question(self, name: str) -> Facts:
        facts = self._questions.get(name)
        if facts is None:
            if len(self._questions) >= QUESTIONS:
                self._questions.clear()
            facts = self._questions[name] = Facts({names.DNS_QUESTION_NAME: name})
        return facts

    def _answer(self, message: Message) -> Facts:
        if message.ttl is None:
            return self._nothing
        facts = Facts({names.OTELBPF_DNS_TTL: message.ttl})
        if message.addresses:
            facts[names.DNS_ANSWERS] = message.addresses
        if message.cnames:
            facts[names.OTELBPF_DNS_CNAMES] = message.cnames
        if message.records:
            facts[names.OTELBPF_DNS_RECORDS] = message.records
        return facts

    def _kind(self, number: int) -> Facts:
        facts = self._kinds.get(number)
        if facts is None:
            if len(self._kinds) >= KINDS:
                self._kinds.clear()
            facts = self._kinds[number] = Facts({names.OTELBPF_DNS_QUESTION_TYPE: type_name(number)})
        return facts


def _place(thing: Any, places: dict[int, int], values: list[Any]) -> int:
    """Where *thing* stands among *values*, to which it is added the first time."""
    place = places.setdefault(id(thing), len(values))
    if place == len(values):
        values.append(thing)
    return place


def _things(facts: list[Facts], codes: NDArray[np.intp]) -> Categorical:
    """A column in which each thing stands once, though several messages may share it."""
    values: list[Facts] = []
    places: dict[int, int] = {}
    code_of = np.array([_place(thing, places, values) for thing in facts], np.intp)
    return Categorical(code_of[codes], values)
