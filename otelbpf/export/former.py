"""Exporters that a reload removed: they send what they still have, and what became of it stays in the account."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

from otelbpf.export.account import SignalLedger

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otelbpf.export import Exporter


class Former:
    """Those that end, each in a thread of its own until its time is up, and the sums of those that have ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ending: dict[str, tuple[Exporter, threading.Thread]] = {}
        self._ended: dict[tuple[str, str], SignalLedger] = {}
        self._components: dict[str, str] = {}

    def take(self, member: Exporter, deadline: float) -> None:
        """Ends *member*, which gets nothing more, until *deadline* (time.monotonic): `flush` in a thread."""
        ends = threading.Thread(target=self._end, args=(member, deadline), name=f"end {member.name}", daemon=True)
        with self._lock:
            self._ending[member.name] = (member, ends)
            self._components[member.name] = member.component
        ends.start()

    @property
    def members(self) -> list[Exporter]:
        """Those that still have something to send."""
        with self._lock:
            return [member for member, _ends in self._ending.values()]

    def wait(self, deadline: float, names: Iterable[str] | None = None) -> bool:
        """Waits for those with *names* (None: all) until *deadline*; says whether they have ended."""
        with self._lock:
            chosen = [ends for name, (_member, ends) in self._ending.items() if names is None or name in names]
        for ends in chosen:
            ends.join(max(0.0, deadline - time.monotonic()))
        return not any(ends.is_alive() for ends in chosen)

    def ledger(self) -> dict[tuple[str, str], SignalLedger]:
        """(exporter, signal) → its account."""
        with self._lock:
            accounts = dict(self._ended)
            for name, (member, _ends) in self._ending.items():
                for signal, account in member.ledger().items():
                    accounts[name, signal] = together(accounts.get((name, signal)), account)
            return accounts

    def components(self) -> dict[str, str]:
        """Exporter → otel.component.type."""
        return dict(self._components)

    def _end(self, member: Exporter, deadline: float) -> None:
        try:
            member.flush(deadline)
        finally:  # whatever it was, its account stays
            with self._lock:
                del self._ending[member.name]
                for signal, account in member.ledger().items():
                    self._ended[member.name, signal] = together(self._ended.get((member.name, signal)), account)


def together(former: SignalLedger | None, present: SignalLedger) -> SignalLedger:
    """The account of two exporters of one name, one after the other. What the one left on disk and the other found
    there was made by this run, and is not recovered."""
    if former is None:
        return present
    found = min(former.spooled, present.recovered)
    return SignalLedger(
        made=former.made + present.made,
        accepted=former.accepted + present.accepted,
        rejected=former.rejected + present.rejected,
        dropped=dict(Counter(former.dropped) + Counter(present.dropped)),
        queued=former.queued + present.queued,
        spooled=former.spooled - found + present.spooled,
        recovered=former.recovered + present.recovered - found,
    )
