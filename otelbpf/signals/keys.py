"""Which series a row belongs to, for a whole batch at once: one 64-bit key a row.

A key is the sum of a keyed hash of every attribute, so it is the same in every batch whatever codes the batch uses,
and equal values of two Facts are one series. Two of 100,000 series share a key with a probability of 3 in 10^10; the
hash is keyed anew in each process, so that nobody can choose names that collide.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from cachetools import FIFOCache

from otelbpf.batch import Categorical, Facts
from otelbpf.probes.probe import Choice, Known, Number
from otelbpf.signals import names, wire
from otelbpf.signals.attributes import Blocks, Codes, occurring

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from otelbpf.batch import Batch
    from otelbpf.signals.name import AttributeName

NUMBER_ATTRIBUTE: Final = b"\x3a"
HISTOGRAM_ATTRIBUTE: Final = b"\x4a"
OTHER: Final = "_other"
VALUES_PER_RESOURCE: Final[Mapping[AttributeName, int]] = {names.DNS_QUESTION_NAME: 200, names.SERVER_ADDRESS: 200}
"""Attributes whose values others choose: so many of them each resource may have, the rest is `_other`."""
NOTHING: Final = Facts()
_MOST_OTHERS: Final = 4096

Keys = Any
"""An array of uint64; sums wrap around."""


class Hasher:
    """A keyed 64-bit hash of bytes and of columns of integers."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def of(self, value: bytes) -> int:
        return int.from_bytes(blake2b(value, digest_size=8, key=self._secret).digest(), "little")

    @staticmethod
    def of_numbers(numbers: NDArray[Any], salt: int) -> Keys:
        """splitmix64 of each."""
        mixed = numbers.astype(np.uint64) ^ np.uint64(salt)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))


class NumberPart:
    """A small integer as attribute, such as a port."""

    def __init__(self, number: Number, hasher: Hasher) -> None:
        self._number = number
        self._salt = hasher.of(b"number" + number.name.encode())

    def keys(self, batch: Batch) -> Keys:
        column = batch.number(self._number.column)
        keys = Hasher.of_numbers(column, self._salt)
        if self._number.absent is not None:
            keys[column == self._number.absent] = 0
        return keys

    def block(self, batch: Batch, row: int, tag: bytes) -> bytes:
        value = int(batch.number(self._number.column)[row])
        return b"" if value == self._number.absent else wire.attribute(tag, self._number.name, value)


class ChoicePart:
    """One of a few texts."""

    def __init__(self, choice: Choice, hasher: Hasher) -> None:
        self._choice = choice
        self._codes = Codes(choice.values)
        texts = [b"", *(f"choice {choice.name} {value}".encode() for value in choice.values.values())]
        self._keys = np.array([hasher.of(text) if text else 0 for text in texts], np.uint64)

    def keys(self, batch: Batch) -> Keys:
        return self._keys[self._codes.of(batch.number(self._choice.column))]

    def block(self, batch: Batch, row: int, tag: bytes) -> bytes:
        value = self._choice.values.get(int(batch.number(self._choice.column)[row]))
        return b"" if value is None else wire.attribute(tag, self._choice.name, value)


class KnownPart:
    """What is known of a thing. *capped* is the one of its attributes whose number of values is bounded, if any."""

    def __init__(self, known: Known, hasher: Hasher) -> None:
        self.capped = next((name for name in known.names if name in VALUES_PER_RESOURCE), None)
        self._column = known.column
        self._hasher = hasher
        self._salt = "known {} {} ".format(known.column, " ".join(known.names)).encode()
        self._blocks = {tag: Blocks(tag, known, legacy=False) for tag in (NUMBER_ATTRIBUTE, HISTOGRAM_ATTRIBUTE)}
        self._uncapped = tuple(name for name in known.names if name != self.capped)
        self._others: FIFOCache[tuple[object, ...], Facts] = FIFOCache(_MOST_OTHERS)

    def keys(self, batch: Batch) -> Keys:
        column = batch.columns.get(self._column)
        if not isinstance(column, Categorical):
            return np.full(len(batch), self.key(NOTHING), np.uint64)
        codes, things = occurring(column)
        keys: list[Any] = [facts.encoded.get(self) for facts in things]
        if None in keys:
            keys = list(map(self.key, things))
        return np.array(keys, np.uint64)[codes]

    def key(self, facts: Facts) -> int:
        key: int | None = facts.encoded.get(self)
        if key is None:
            key = self._hasher.of(self._salt + self._blocks[NUMBER_ATTRIBUTE].made(facts))
            facts.encoded[self] = key
        return key

    def thing(self, batch: Batch, row: int) -> Facts:
        column = batch.columns.get(self._column)
        return column.values[column.codes[row]] if isinstance(column, Categorical) else NOTHING

    def block(self, batch: Batch, row: int, tag: bytes) -> bytes:
        return self.block_of(self.thing(batch, row), tag)

    def block_of(self, facts: Facts, tag: bytes) -> bytes:
        return self._blocks[tag].made(facts)  # once a series: not worth its memory in every Facts

    def other(self, facts: Facts) -> Facts:
        """What it is to this part with `_other` where the capped attribute was: one for all that differ in it only."""
        rest = tuple(map(facts.get, self._uncapped))
        other = self._others.get(rest)
        if other is None:
            known = {str(name): value for name, value in zip(self._uncapped, rest, strict=True) if value is not None}
            other = self._others[rest] = Facts({**known, str(self.capped): OTHER})
        return other


class ResourcePart:
    """The resource of a row, without what changes from one run of a container to the next."""

    def __init__(self, hasher: Hasher) -> None:
        self._hasher = hasher
        self.own: Collection[str] = ()
        """The attributes that the user gave to every resource."""

    def keys(self, batch: Batch) -> Keys:
        column = batch.columns.get("resource")
        if not isinstance(column, Categorical):
            return np.full(len(batch), self.identity(NOTHING)[0], np.uint64)
        codes, things = occurring(column)
        return np.array([self.identity(facts)[0] for facts in things], np.uint64)[codes]

    def identity_at(self, batch: Batch, row: int) -> tuple[int, bytes]:
        """The key and the Resource message of a row."""
        column = batch.columns.get("resource")
        return self.identity(column.values[column.codes[row]] if isinstance(column, Categorical) else NOTHING)

    def fallback(self, batch: Batch, row: int) -> tuple[int, bytes]:
        """What takes the rows of resources that there is no room for: the host and what the user said of it, as an
        unknown service."""
        column = batch.columns.get("resource")
        facts = column.values[column.codes[row]] if isinstance(column, Categorical) else NOTHING
        host = {
            name: value for name, value in facts.items() if name.startswith(("host.", "telemetry.")) or name in self.own
        }
        instance = host.get(names.HOST_ID, host.get(names.HOST_NAME))
        unknown = {str(names.SERVICE_NAME): "unknown_service", str(names.SERVICE_INSTANCE_ID): instance}
        return self.identity(Facts({**unknown, **host}))

    def identity(self, facts: Facts) -> tuple[int, bytes]:
        known: tuple[int, bytes] | None = facts.encoded.get(self)
        if known is None:
            message = wire.resource({name: value for name, value in facts.items() if name not in names.RUN_ONLY})
            known = facts.encoded[self] = (self._hasher.of(b"resource" + message), message)
        return known


Part = NumberPart | ChoicePart | KnownPart


def part_of(attribute: Any, hasher: Hasher) -> Part:
    """The part of a series' key that *attribute* makes."""
    match attribute:
        case Number(scale=None):
            return NumberPart(attribute, hasher)
        case Choice():
            return ChoicePart(attribute, hasher)
        case Known():
            return KnownPart(attribute, hasher)
    raise ValueError(f"{attribute.name} cannot tell series apart: only integers, choices and what is known can")


def total(keys: Sequence[Keys]) -> Keys:
    """The sum of the parts' keys."""
    result = keys[0].copy()
    for part in keys[1:]:
        result += part
    return result
