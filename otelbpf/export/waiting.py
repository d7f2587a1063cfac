"""A request on its way to a peer: what was tried, and where it is kept meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otelbpf.export.request import Request


@dataclass(slots=True)
class Family:
    """The parts of one request that a peer has refused as a whole."""

    patience: int
    """Refusals, one after the other, after which it is believed."""
    refused: int = 0


@dataclass(eq=False, slots=True)
class Waiting:
    """A request in the queue; equal to no other."""

    request: Request
    """Without its body while that is only on disk."""
    size: int
    """Bytes of the body."""
    row: int = 0
    """Its number on disk; 0 while it is not there."""
    since: float = 0.0
    """When it was put, by the queue's clock."""
    first_try: float | None = None
    failures: int = 0
    unread: int = 0
    """How often its body could not be read from disk."""
    accepted_before: int = 0
    """Items that its signal had accepted when it was first taken."""
    settled: bool = False
    family: Family | None = None

    def __lt__(self, other: Waiting) -> bool:
        return self.row < other.row

    def split(self, parts: Iterable[Request], family: Family | None) -> list[Waiting]:
        """*parts* as they go on in its place. They are due on disk at once, together with forgetting the whole: a
        crash leaves one or the other."""
        return [
            Waiting(part, len(part.body), first_try=self.first_try, accepted_before=self.accepted_before, family=family)
            for part in parts
        ]
