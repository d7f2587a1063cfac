"""Declared attributes, made ready: names checked against the table, older names added, texts encoded once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from otelbpf.batch import Categorical
from otelbpf.lines import Part, joined_words
from otelbpf.probes.probe import Address, Choice, Constant, Hex, Known, Number
from otelbpf.signals import names, wire
from otelbpf.signals.rows import distinct_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from otelbpf.batch import Batch, Facts
    from otelbpf.probes.probe import Attribute


def checked(attributes: Iterable[Attribute], where: str) -> tuple[Attribute, ...]:
    """*attributes*, or ValueError when one is not in the table or is not of the type that the table says."""
    result = tuple(attributes)
    for attribute in result:
        for name in attribute.names if isinstance(attribute, Known) else (attribute.name,):
            known = names.find(name)
            if known is None:
                raise ValueError(f"{where}: {name} is not in the table of names (otelbpf/signals/names.py)")
            if isinstance(attribute, Address) and known.type != "str":
                raise ValueError(f"{where}: {name} is a {known.type}, not a text")
            if isinstance(attribute, Number) and known.type not in ("int", "double"):
                raise ValueError(f"{where}: {name} is a {known.type}, not a number")
            if isinstance(attribute, Number) and known.type == "int" and attribute.scale is not None:
                raise ValueError(f"{where}: {name} is an int and cannot be scaled")
    return result


def with_legacy(attributes: Iterable[Attribute]) -> Iterator[Attribute]:
    """*attributes*, and behind each the same under its older name if it has one. Known is left to `Blocks`."""
    for attribute in attributes:
        yield attribute
        if isinstance(attribute, Known | Hex) or attribute.name not in names.LEGACY:
            continue
        older = names.LEGACY[attribute.name]
        words = names.LEGACY_VALUES.get(older, {})
        match attribute:
            case Constant(_, value):
                yield Constant(older, words.get(str(value), value))
            case Choice(_, column, values):
                yield Choice(older, column, {key: words.get(str(value), value) for key, value in values.items()})
            case Number(_, column, scale, absent):
                yield Number(older, column, scale, absent)
            case Address(_, column):
                yield Address(older, column)


class Blocks:
    """The attributes that are known of a thing, encoded once and kept beside its Facts."""

    def __init__(self, tag: bytes, known: Known, *, legacy: bool) -> None:
        self.column = known.column
        self._writers = [
            (str(name), wire.Writer(tag, name)) for name in known.names if legacy or name not in names.LEGACY_ONLY
        ]
        if legacy:
            older = ((name, names.LEGACY[name]) for name in known.names if name in names.LEGACY)
            self._writers += [(str(name), wire.Writer(tag, old, names.LEGACY_VALUES.get(old))) for name, old in older]

    def encoded(self, facts: Facts) -> bytes:
        """The block, kept with *facts* from the first time on."""
        block: bytes | None = facts.encoded.get(self)
        if block is None:
            block = facts.encoded[self] = self.made(facts)
        return block

    def made(self, facts: Facts) -> bytes:
        """The block, not kept."""
        return b"".join([writer(facts[name]) for name, writer in self._writers if name in facts])

    def of(self, batch: Batch) -> Part | None:
        """The block of each row; None when no stage has made the column."""
        column = batch.columns.get(self.column)
        if not isinstance(column, Categorical):
            return None
        codes, things = occurring(column)
        blocks: list[Any] = [facts.encoded.get(self) for facts in things]  # a call for each would cost as much again
        if None in blocks:
            blocks = [self.encoded(facts) for facts in things]
        return Part(joined_words(blocks), codes)


def occurring(column: Categorical) -> tuple[NDArray[np.intp], list[Facts]]:
    """The column with only those things that a row has: the tables of enrichment may be far larger than a batch."""
    distinct, codes = distinct_of(column.codes, len(column.values))
    return codes, [column.values[code] for code in distinct]


class Codes:
    """A column of small integers as codes 0 … *count* - 1 into *values*; 0 is what has no text."""

    def __init__(self, values: Mapping[int, Any]) -> None:
        if any(key < 0 for key in values):
            raise ValueError("a Choice is between integers of at least 0")
        self.values = (None, *values.values())
        self.count = len(self.values)
        self._beyond = max(values, default=0) + 1
        self._code_of = np.zeros(self._beyond + 1, np.uint16)  # may be long: one for each possible errno
        for code, key in enumerate(values, start=1):
            self._code_of[key] = code

    def of(self, column: NDArray[Any]) -> NDArray[np.intp]:
        numbers = column.astype(np.intp)
        numbers[(numbers < 0) | (numbers > self._beyond)] = self._beyond
        return self._code_of[numbers].astype(np.intp)


def scaled(column: NDArray[Any], scale: float | None) -> NDArray[np.float64]:
    """``column * scale`` as doubles; by division where that is exact to the last digit (1500 µs is 0.0015 s)."""
    numbers = column.astype(np.float64)
    if scale is None or scale == 1:
        return numbers
    inverse = round(1 / scale) if scale < 1 else 0
    return numbers / inverse if inverse and 1 / inverse == scale else numbers * scale


def present(column: NDArray[Any], absent: int | None) -> NDArray[np.bool_] | None:
    """The rows whose number is known; None when all are, by declaration. A NaN is always unknown."""
    if column.dtype.kind == "f":
        known: NDArray[np.bool_] = ~np.isnan(column)
        return known if absent is None else known & (column != absent)
    return None if absent is None else column != absent


def raw_bytes(column: NDArray[Any]) -> NDArray[np.uint8]:
    """A column of fixed bytes as uint8 of shape (rows, width)."""
    if column.dtype == np.uint8 and column.ndim == 2:
        return np.ascontiguousarray(column)
    width = column.dtype.itemsize
    return np.ascontiguousarray(column).view(np.uint8).reshape(len(column), width)
