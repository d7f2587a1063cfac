"""Caches that are bounded and say how they fare: what every part of enrichment remembers with."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

from cachetools import FIFOCache, LRUCache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

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
        try:
            return self[key]
        except KeyError:
            self._misses += 1
            return None

    def popitem(self) -> tuple[Key, Value]:
        self._evictions += 1
        return super().popitem()

    def counters(self) -> Counters:
        return Counters(self._lookups - self._misses, self._misses, self._evictions, len(self))


class Made(FIFOCache[Key, Value]):
    """Makes what it does not hold, and holds up to *limit* of it; the oldest goes first.

    Not an LRU: a look-up costs a third of what one costs there, and what goes too early is cheap to make again.
    """

    def __init__(self, limit: int, make: Callable[[Key], Value]) -> None:
        super().__init__(limit)
        self._make = make
        self._lookups = self._misses = self._evictions = 0

    def of_all(self, keys: Iterable[Key]) -> list[Value]:
        """The value of each key, in order."""
        values = [self[key] for key in keys]
        self._lookups += len(values)
        return values

    def __missing__(self, key: Key) -> Value:
        self._misses += 1
        value = self._make(key)
        self[key] = value
        return value

    def popitem(self) -> tuple[Key, Value]:
        self._evictions += 1
        return super().popitem()

    def counters(self) -> Counters:
        return Counters(self._lookups - self._misses, self._misses, self._evictions, len(self))
