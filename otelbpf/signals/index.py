"""Which slot a key has: shared by all metrics that are told apart by the same attributes.

What the metrics of one index have in common is kept once: the key, the resource, the encoded attributes. A slot lives
as long as a metric uses it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from otelbpf.signals import names, wire
from otelbpf.signals.keys import VALUES_PER_RESOURCE, KnownPart

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otelbpf.batch import Batch, Facts
    from otelbpf.signals.keys import Hasher, Keys, Part, ResourcePart
    from otelbpf.signals.resources import Resources

_FIRST_CAPACITY: Final = 64
_MOST_REDIRECTED: Final = 16384
_MASK: Final = 0xFFFF_FFFF_FFFF_FFFF

Place = tuple[int, str]
"""Number of the resource, name of the attribute."""
Replaced = dict[Any, "Facts"]
"""Part → the thing that stands for it."""


class ValueCaps:
    """How many values an attribute has in each resource; what is beyond the cap becomes `_other`."""

    def __init__(self, parts: tuple[Part, ...]) -> None:
        self._parts = [(part, part.capped) for part in parts if isinstance(part, KnownPart) and part.capped is not None]
        self._users: dict[Place, Counter[Any]] = {}
        self._held: dict[int, list[tuple[Place, Any]]] = {}

    def applied(self, key: int, resource: int, batch: Batch, row: int) -> tuple[int, Replaced, list[tuple[Place, Any]]]:
        """The key, what replaces the things of the row, and the values that a series with this key holds."""
        replaced: Replaced = {}
        held: list[tuple[Place, Any]] = []
        for part, name in self._parts:
            facts = part.thing(batch, row)
            value = facts.get(name)
            if not wire.known(value):
                continue
            place = (resource, str(name))
            users = self._users.get(place, ())
            if value in users or len(users) < VALUES_PER_RESOURCE[name]:
                held.append((place, value))
            else:
                replaced[part] = part.other(facts)
                key = key - part.key(facts) + part.key(replaced[part]) & _MASK
        return key, replaced, held

    def hold(self, slot: int, held: list[tuple[Place, Any]]) -> None:
        for place, value in held:
            self._users.setdefault(place, Counter())[value] += 1
        if held:
            self._held[slot] = held

    def release(self, slot: int) -> None:
        for place, value in self._held.pop(slot, ()):
            users = self._users[place]
            users[value] -= 1
            if not users[value]:
                del users[value]
            if not users:
                del self._users[place]


class Index:
    """Key → slot, for one set of attributes.

    `users` counts the metrics that have a point in a slot; slots without any are given back by `sweep`.
    """

    def __init__(self, parts: tuple[Part, ...], resource: ResourcePart, resources: Resources, hasher: Hasher) -> None:
        self.parts = parts
        self.tags: set[bytes] = set()
        """The attribute tags of its metrics: points of numbers and of histograms have different ones."""
        self.version = 0
        """Changes whenever a slot is made or given back."""
        self._resource = resource
        self._resources = resources
        self._caps = ValueCaps(parts)
        self._overflow_salt = hasher.of(b"overflow")
        self._keys: Keys = np.empty(0, np.uint64)
        self._slots: NDArray[np.int32] = np.empty(0, np.int32)
        self._made: dict[int, int] = {}
        self._redirected: dict[int, int] = {}
        """Keys beyond a cap → the slot that takes them, until a sweep: there may be room then. To find it anew costs
        20 µs, and whoever asks for many names asks for them again and again."""
        self._free = list(range(_FIRST_CAPACITY - 1, -1, -1))
        self._key_of: Keys = np.zeros(_FIRST_CAPACITY, np.uint64)
        self._look_back(_FIRST_CAPACITY)
        self.capacity = _FIRST_CAPACITY
        self.users = np.zeros(_FIRST_CAPACITY, np.int32)
        self.resource_of = np.zeros(_FIRST_CAPACITY, np.int32)
        self.overflows = np.zeros(_FIRST_CAPACITY, np.bool_)
        self.lengths = np.zeros(_FIRST_CAPACITY, np.int32)
        self._described = np.zeros(_FIRST_CAPACITY, np.bool_)
        self._replaced: dict[int, Replaced] = {}
        self.blocks: dict[bytes, NDArray[Any]] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def slots(self, keys: Keys, batch: Batch, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """The slot of each key, made where there is none; *rows* are rows of *batch* that have these keys."""
        # Most keys were seen not long ago: one look at the place where their upper bits point finds them.
        places = (keys >> self._shift).astype(np.intp)
        slots: NDArray[np.intp] = self._recent[places].astype(np.intp)
        missing = np.flatnonzero(self._key_of[slots] != keys)
        if len(missing):
            slots[missing] = self._searched(keys[missing])
            unplaced = missing[slots[missing] < 0]
            redirected = map(self._redirected.get, keys[unplaced].tolist())  # where names have no end these are most
            for position, slot in zip(unplaced.tolist(), list(redirected), strict=True):
                found = self._slot_for(int(keys[position]), batch, int(rows[position])) if slot is None else slot
                slots[position] = found
            self._remember()
            self._recent[(keys >> self._shift).astype(np.intp)] = slots
        return slots

    def overflow(self, slot: int) -> int:
        """The slot of the point that takes what is beyond a cap, of the same resource as *slot*."""
        found = self._overflow_of(int(self.resource_of[slot]))
        self._remember()
        return found

    def sweep(self) -> None:
        """Gives back the slots that no metric uses."""
        self._redirected.clear()
        used = self.users[self._slots] != 0
        if used.all():
            return
        for slot in self._slots[~used].tolist():
            self._caps.release(slot)
            self._resources.released(int(self.resource_of[slot]))
            for blocks in self.blocks.values():
                blocks[slot] = None
            self._key_of[slot] = 0
            self._replaced.pop(slot, None)
            self._free.append(slot)
        self._keys, self._slots = self._keys[used], self._slots[used]
        self.version += 1

    def _searched(self, keys: Keys) -> NDArray[np.intp]:
        if not len(self._keys):
            return np.full(len(keys), -1, np.intp)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        slots: NDArray[np.intp] = np.where(self._keys[at] == keys, self._slots[at], -1).astype(np.intp)
        return slots

    def _slot_for(self, key: int, batch: Batch, row: int) -> int:
        found = self._made.get(key, self._redirected.get(key))
        if found is None:
            found = self._new_slot_for(key, batch, row)
            if int(self._key_of[found]) != key:
                if len(self._redirected) >= _MOST_REDIRECTED:
                    self._redirected.clear()
                self._redirected[key] = found
        return found

    def _new_slot_for(self, key: int, batch: Batch, row: int) -> int:
        """One of its own, that of `_other`, or the overflow of the host where there is no room for the resource."""
        resource_key, message = self._resource.identity_at(batch, row)
        if self._resources.full and resource_key not in self._resources:
            resource = self._resources.taken(*self._resource.fallback(batch, row))
            slot = self._overflow_of(resource)
        else:
            resource = self._resources.taken(resource_key, message)
            key, replaced, held = self._caps.applied(key, resource, batch, row)
            found = self._redirected.get(key)
            if found is None and (found := self._found(key)) is not None:
                self._redirected[key] = found  # the same `_other` is meant by many that come next
            if found is None:
                slot = self._place(key, resource)
                self._caps.hold(slot, held)
                if replaced:
                    self._replaced[slot] = replaced
                return slot
            slot = found
        self._resources.released(resource)
        return slot

    def describe(self, slots: NDArray[np.intp], batch: Batch, rows: NDArray[np.intp]) -> None:
        """Encodes the attributes of those *slots* that have got a user; *rows* are examples, one a slot.

        Not before: what is beyond a cap never needs them, and that may be very much.
        """
        for position in np.flatnonzero((self.users[slots] > 0) & ~self._described[slots]).tolist():
            slot, row = int(slots[position]), int(rows[position])
            if self._described[slot]:  # an earlier position had the same slot
                continue
            replaced = self._replaced.get(slot, {})
            for tag in self.tags:
                self._describe(slot, tag, b"".join([_block(part, batch, row, tag, replaced) for part in self.parts]))

    def _describe(self, slot: int, tag: bytes, block: bytes) -> None:
        if tag not in self.blocks:
            self.blocks[tag] = np.full(self.capacity, None, object)
        self.blocks[tag][slot] = block
        self.lengths[slot] = len(block)
        self._described[slot] = True

    def _overflow_of(self, resource: int) -> int:
        key = self._resources.key(resource) + self._overflow_salt & _MASK
        found = self._found(key)
        if found is None:
            found = self._place(key, self._resources.shared(resource))
            for tag in self.tags:
                self._describe(found, tag, wire.attribute(tag, names.OTEL_METRIC_OVERFLOW, value=True))
            self.overflows[found] = True
        return found

    def _found(self, key: int) -> int | None:
        if key in self._made:
            return self._made[key]
        at = int(np.searchsorted(self._keys, np.uint64(key)))
        return int(self._slots[at]) if at < len(self._keys) and int(self._keys[at]) == key else None

    def _place(self, key: int, resource: int) -> int:
        if not self._free:
            self._grow()
        slot = self._made[key] = self._free.pop()
        self._key_of[slot] = key
        self.resource_of[slot] = resource
        self.overflows[slot] = False
        self._described[slot] = False
        return slot

    def _remember(self) -> None:
        """Sorts the keys that were made into those that are known."""
        if not self._made:
            return
        keys = np.fromiter(self._made.keys(), np.uint64, len(self._made))
        slots = np.fromiter(self._made.values(), np.int32, len(self._made))
        order = np.argsort(keys)
        at = np.searchsorted(self._keys, keys[order])
        self._keys = np.insert(self._keys, at, keys[order])
        self._slots = np.insert(self._slots, at, slots[order])
        self._made.clear()
        self.version += 1

    def _grow(self) -> None:
        self._free = list(range(self.capacity * 2 - 1, self.capacity - 1, -1))
        self.capacity *= 2
        self._look_back(self.capacity)
        self._key_of = grown(self._key_of, self.capacity)
        self.users = grown(self.users, self.capacity)
        self.resource_of = grown(self.resource_of, self.capacity)
        self.overflows = grown(self.overflows, self.capacity)
        self._described = grown(self._described, self.capacity)
        self.lengths = grown(self.lengths, self.capacity)
        self.blocks = {tag: grown(blocks, self.capacity) for tag, blocks in self.blocks.items()}

    def _look_back(self, capacity: int) -> None:
        """Makes room for the slots of recent keys, by their upper bits; four places a slot, so that few collide."""
        bits = (4 * capacity - 1).bit_length()
        self._shift = np.uint64(64 - bits)
        self._recent = np.zeros(1 << bits, np.int32)


def grown(array: NDArray[Any], capacity: int) -> NDArray[Any]:
    """A copy of *array* with room for *capacity* along its first axis; what is new is zero, or None for objects."""
    larger: NDArray[Any] = np.zeros((capacity, *array.shape[1:]), array.dtype)
    if array.dtype == object:
        larger[:] = None
    larger[: len(array)] = array
    return larger


def _block(part: Part, batch: Batch, row: int, tag: bytes, replaced: Replaced) -> bytes:
    if isinstance(part, KnownPart) and part in replaced:
        return part.block_of(replaced[part], tag)
    return part.block(batch, row, tag)
