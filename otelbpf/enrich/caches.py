"""Bounded caches that count their hits: what every part of enrichment remembers with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from cachetools import LRUCache

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Key = TypeVar("Key")
Value = TypeVar("Value")


class Counters(NamedTuple):
    """Look-ups since the start, and how many entries there are."""

    hits: int
    misses: int
    evictions: int
    size: int


class Memory(LRUCache[Key, Value]):
    """What was learnt, up to *limit* entries; the one not used for the longest time goes first."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._lookups = self._misses = self._evictions = 0

    def recall(self, key: Key) -> Value | None:
        """What is known of *key*; counted."""
        self._lookups += 1
        if key in self:  # an absent key costs a fifth of what the exception would
            return self[key]
        self._misses += 1
        return None

    def popitem(self) -> tuple[Key, Value]:
        self._evictions += 1
        return super().popitem()

    def counters(self) -> Counters:
        return Counters(self._lookups - self._misses, self._misses, self._evictions, len(self))


class Made(Generic[Key, Value]):
    """Makes what it does not hold (never None), and holds up to *limit* of it; what was not used for a while goes.

    Two dicts, not one of cachetools' caches: these take 3 µs for a new entry, which is more than making one costs, and
    0.4 µs for a known one. When the young dict holds half of the limit it becomes the old one, whose entries are lost
    unless they are used before the next turn.
    """

    def __init__(self, limit: int, make: Callable[[Key], Value]) -> None:
        self._make = make
        self._half = limit // 2
        self._young: dict[Key, Value] = {}
        self._old: dict[Key, Value] = {}
        self._lookups = self._misses = self._evictions = 0

    def of(self, key: Key) -> Value:
        """The value of *key*."""
        return self.of_all([key])[0]

    def of_all(self, keys: Sequence[Key]) -> list[Value]:
        """The value of each key, in order."""
        self._lookups += len(keys)
        values = list(map(self._young.get, keys))
        if None in values:
            return [self._remembered(key) for key in keys]
        return values  # type: ignore[return-value]  # there is no None in it

    def clear(self) -> None:
        """Forgets all, when what the values were made from has changed."""
        self._young = {}
        self._old = {}

    def counters(self) -> Counters:
        return Counters(self._lookups - self._misses, self._misses, self._evictions, len(self._young) + len(self._old))

    def _remembered(self, key: Key) -> Value:
        value = self._young.get(key)
        if value is None:
            value = self._old.pop(key, None)
            if value is None:
                self._misses += 1
                value = self._make(key)
            if len(self._young) >= self._half:
                self._evictions += len(self._old)
                self._old, self._young = self._young, {}
            self._young[key] = value
        return value
