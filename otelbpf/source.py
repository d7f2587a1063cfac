"""One probe as the line sees it: its rows as they come, and the account of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from otelbpf.ledger import EventLedger

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from otelbpf.probes.probe import Prepare, Probe


@dataclass(slots=True)
class Source:
    """One probe as the line sees it: its declaration, its own preparation, and what it has carried so far."""

    probe: Probe
    prepare: Prepare
    processed: int = 0
    filtered: int = 0
    carrying: int = 0
    """Rows that were taken and are not yet in another term of the ledger."""
    held: int = 0
    """Rows that wait for their pod to be known."""


@dataclass(slots=True)
class Rows:
    """Raw rows of one source, as they came."""

    source: Source
    rows: NDArray[np.void]
    snapshot: bool = False
    totals: bool = False

    @property
    def events(self) -> bool:
        """Whether they are events, which are in the ledger."""
        return not (self.snapshot or self.totals)


def event_ledger(source: Source, kernel: EventLedger, waiting: int) -> EventLedger:
    """The ledger of one probe: the kernel's terms, and what the line did with the rest.

    *kernel* holds what the kernel side counted (with *pending* = asked but not answered), *waiting* the records that
    are in the ring or before the line.
    """
    return EventLedger(
        seen=kernel.seen,
        processed=source.processed,
        filtered=kernel.filtered + source.filtered,
        throttled=kernel.throttled,
        undecodable=source.prepare.undecodable,
        pending=kernel.pending + waiting + source.carrying + source.held,
        lost=dict(kernel.lost),
    )
