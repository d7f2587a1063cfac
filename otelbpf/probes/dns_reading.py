"""Messages of a batch → the columns `question`, `answer` and `code_read`.

Most lookups of a node ask the same few names and are answered the same. Equal messages of a batch, whatever their ids,
are found by comparing whole columns of bytes, and each is looked up once; what was not read lately is parsed, a few
microseconds each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from otelbpf.batch import Categorical, Facts
from otelbpf.enrich.caches import Made
from otelbpf.errors import ProtocolError
from otelbpf.native.distinct import distinct_together
from otelbpf.protocols.dns import Message, parse, parse_question
from otelbpf.protocols.dns_registry import response_code_name, type_name
from otelbpf.signals import names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from otelbpf.batch import Batch
    from otelbpf.native.distinct import Distinct

MESSAGES, QUESTIONS, KINDS, CODES = 10_240, 8192, 1024, 1024
"""Entries of each cache; half as many in use stay for sure."""
ID_BYTES = 2
WORD_BYTES = 8
NOT_READ, UNDECODABLE = 0, 1
COUNTS = slice(6, 12)
"""Where a header counts its answers, authorities and additional records."""
ADDITIONAL = slice(4, 6)


class Read(NamedTuple):
    """What a message says, in the form that columns have."""

    question: Facts
    answer: Facts
    """Of this message alone, even when there is nothing in it."""
    code: int


class Reading:
    """Reads messages; keeps Facts of what repeats, so that their encoded forms are made once."""

    def __init__(self) -> None:
        self._blank = Read(Facts(), Facts(), -1)
        self._nonsense = Read(self._blank.question, Facts(), -1)
        self._messages: Made[tuple[bytes, int], Read] = Made(MESSAGES, self._made)
        self._questions: Made[str, Facts] = Made(QUESTIONS, _question)
        self._kinds: Made[int, Facts] = Made(KINDS, kind_of)
        self._codes: Made[int, Facts] = Made(CODES, code_of)

    def sizes(self) -> dict[str, int]:
        """Entries of each cache."""
        return {
            "messages": self._messages.counters().size,
            "questions": self._questions.counters().size,
            "kinds": self._kinds.counters().size,
            "codes": self._codes.counters().size,
        }

    def kinds(self, types: NDArray[Any]) -> Categorical:
        """The names of question types, a thing each."""
        distinct, codes = np.unique(types, return_inverse=True)
        return Categorical(codes, self._kinds.of_all(distinct.tolist()))

    def codes(self, codes: NDArray[Any]) -> Categorical:
        """The names of response codes, a thing each; -1, for no answer, has none."""
        numbers = codes.astype(np.intp) + 1
        present = np.flatnonzero(np.bincount(numbers))
        place = np.zeros(present[-1] + 1 if len(present) else 0, np.intp)
        place[present] = np.arange(len(present))
        return Categorical(place[numbers], self._codes.of_all((present - 1).tolist()))

    def add_messages(self, batch: Batch, wanted: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Reads the messages of *wanted* rows into columns; gives the rows that hold no nonsense."""
        found = [self._blank, self._nonsense]
        codes = np.full(len(batch), NOT_READ)
        if wanted.any():
            messages = _Messages(batch.rows, np.flatnonzero(wanted))
            reads = self._messages.of_all(messages.keys())
            places = np.arange(len(found), len(found) + len(reads))
            places[[read is self._nonsense for read in reads]] = UNDECODABLE
            codes[wanted] = places[messages.distinct.codes]
            found += reads
        batch.columns["question"] = _things([read.question for read in found], codes)
        batch.columns["answer"] = Categorical(codes, [read.answer for read in found])
        batch.columns["code_read"] = np.array([read.code for read in found], np.int32)[codes]
        understood: NDArray[np.bool_] = codes != UNDECODABLE
        return understood

    def _made(self, key: tuple[bytes, int]) -> Read:
        without_id, whole_bytes = key
        try:
            message = parse(bytes(ID_BYTES) + without_id, whole_bytes)
        except ProtocolError:
            return self._question_of(bytes(ID_BYTES) + without_id)
        return Read(self._questions.of(message.name), _answer(message), message.code)

    def _question_of(self, message: bytes) -> Read:
        """Of an answer whose records make no sense: it was given all the same, to this question, with this code."""
        try:
            question = parse_question(message)
        except ProtocolError:
            return self._nonsense
        return Read(self._questions.of(question.name), Facts(), question.code)


class _Messages:
    """The captured messages of some rows, without their ids."""

    def __init__(self, rows: NDArray[np.void], chosen: NDArray[np.intp]) -> None:
        captured, self._whole = rows["captured_bytes"][chosen], rows["message_bytes"][chosen]
        self._sizes = np.maximum(captured, ID_BYTES) - ID_BYTES
        start = int(rows.dtype.fields["message"][1]) + ID_BYTES  # type: ignore[index]  # it has fields
        self._width = -(-int(self._sizes.max()) // WORD_BYTES or -1) * WORD_BYTES
        room = min(self._width, rows.dtype.itemsize - start)
        self._bytes = np.zeros((len(chosen), self._width), np.uint8)
        self._bytes[:, :room] = _as_bytes(rows)[chosen, start : start + room]
        self._bytes[np.arange(self._width) >= self._sizes[:, np.newaxis]] = 0  # what was there before
        self.distinct = self._distinct()

    def keys(self) -> Sequence[tuple[bytes, int]]:
        """Each distinct message, and its length before it was cut."""
        rows = self.distinct.rows
        joined, width = self._bytes[rows].tobytes(), self._width
        sized = zip(range(0, len(joined), width), self._sizes[rows].tolist(), self._whole[rows].tolist(), strict=True)
        return [(joined[start : start + size], whole) for start, size, whole in sized]

    def _distinct(self) -> Distinct:
        words = np.ascontiguousarray(self._bytes.view(np.uint64).T)
        lengths = self._whole.astype(np.uint64) << np.uint64(16) | self._sizes
        return distinct_together([lengths, *words])


def may_have_more_code(rows: NDArray[np.void]) -> NDArray[np.bool_]:
    """Answers that may bear BADVERS, BADCOOKIE and their like, of which the header has four bits only: without
    records, but with something behind them."""
    start = int(rows.dtype.fields["message"][1])  # type: ignore[index]  # it has fields
    counts = _as_bytes(rows)[:, start + COUNTS.start : start + COUNTS.stop].astype(np.bool_)
    behind: NDArray[np.bool_] = (rows["captured_bytes"] >= COUNTS.stop) & counts[:, ADDITIONAL].any(axis=1)
    return behind & ~counts[:, : ADDITIONAL.start].any(axis=1)


def _question(name: str) -> Facts:
    return Facts({names.DNS_QUESTION_NAME: name})


def kind_of(number: int) -> Facts:
    """The name of a question type."""
    return Facts({names.OTELBPF_DNS_QUESTION_TYPE: type_name(number)})


def code_of(number: int) -> Facts:
    """The name of a response code; a negative one has none."""
    return Facts() if number < 0 else Facts({names.OTELBPF_DNS_RESPONSE_CODE: response_code_name(number)})


def _answer(message: Message) -> Facts:
    facts = Facts()
    if message.ttl is None:
        return facts
    facts[names.OTELBPF_DNS_TTL] = message.ttl
    if message.addresses:
        facts[names.DNS_ANSWERS] = message.addresses
    if message.cnames:
        facts[names.OTELBPF_DNS_CNAMES] = message.cnames
    if message.records:
        facts[names.OTELBPF_DNS_RECORDS] = message.records
    return facts


def _as_bytes(rows: NDArray[np.void]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), rows.dtype.itemsize)


def without_messages(rows: NDArray[np.void]) -> NDArray[np.void]:
    """The columns before the message, which is most of a row: rows are copied several times on their way."""
    fields: Any = rows.dtype.fields
    end = fields["message"][1]
    kept = {name: (kind, offset) for name, (kind, offset, *_) in fields.items() if offset < end}
    width = -(-end // WORD_BYTES) * WORD_BYTES
    layout: Any = {
        "names": list(kept),
        "formats": [kind for kind, _ in kept.values()],
        "offsets": [offset for _, offset in kept.values()],
        "itemsize": width,
    }
    short: NDArray[np.void] = np.ascontiguousarray(_as_bytes(rows)[:, :width]).view(np.dtype(layout)).reshape(-1)
    return short


def _things(facts: list[Facts], codes: NDArray[np.intp]) -> Categorical:
    """A column in which each thing stands once, though several messages may share it."""
    values: dict[Facts, int] = {}
    code_of = np.array([values.setdefault(thing, len(values)) for thing in facts], np.intp)
    return Categorical(code_of[codes], list(values))
