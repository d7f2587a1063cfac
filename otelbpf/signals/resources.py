"""The resources of all living series: each once, with a small number, for as long as a series has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelbpf.signals.envelope import resource_level

if TYPE_CHECKING:
    from otelbpf.signals.envelope import Level


class Resources:
    """Resource key → number. Meant to be at most *most*: who starts containers must not fill the agent's memory."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._number_of: dict[int, int] = {}
        self._keys: list[int] = []
        self._users: list[int] = []
        self._free: list[int] = []
        self.levels: list[Level] = []

    def __len__(self) -> int:
        return len(self._number_of)

    def __contains__(self, key: int) -> bool:
        return key in self._number_of

    @property
    def full(self) -> bool:
        return len(self._number_of) >= self._most

    def taken(self, key: int, message: bytes) -> int:
        """The number of the resource, with one user more."""
        number = self._number_of.get(key)
        if number is None:
            number = self._number_of[key] = self._placed(key, resource_level(message))
        self._users[number] += 1
        return number

    def shared(self, number: int) -> int:
        """One user more of a resource that is in use."""
        self._users[number] += 1
        return number

    def released(self, number: int) -> None:
        """One user less; the last one gives the number back."""
        self._users[number] -= 1
        if not self._users[number]:
            del self._number_of[self._keys[number]]
            self._free.append(number)

    def key(self, number: int) -> int:
        return self._keys[number]

    def _placed(self, key: int, level: Level) -> int:
        if self._free:
            number = self._free.pop()
            self._keys[number], self.levels[number] = key, level
            return number
        self._keys.append(key)
        self.levels.append(level)
        self._users.append(0)
        return len(self._keys) - 1
