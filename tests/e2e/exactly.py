"""Whether what arrived at a peer is what an exporter says of it, record by record."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.peers.sending import Status


def check(status: Status, arrived: Mapping[str, Sequence[int]], *, in_order: bool = True) -> dict[str, int]:
    """Compares the account in *status* with the numbers that *arrived*, by signal, in order of arrival.

    Every record that was made arrived, or is in a term of the ledger that says why not; none came twice but what was in
    an attempt that failed; and the first copies came in order. Gives signal → records that came twice.
    """
    return {signal: _check(status, signal, arrived[signal], in_order=in_order) for signal in arrived}


def complete(status: Status, arrived: Mapping[str, Sequence[int]], *, in_order: bool = True) -> dict[str, int]:
    """The same, where everything was accepted."""
    for signal in arrived:
        ledger = status.ledger[signal]
        assert (ledger.accepted, ledger.rejected, dict(ledger.dropped)) == (ledger.made + ledger.recovered, 0, {})
    return check(status, arrived, in_order=in_order)


def _check(status: Status, signal: str, arrived: Sequence[int], *, in_order: bool) -> int:
    ledger = status.ledger[signal]
    assert ledger.balanced, ledger
    copies, failed = Counter(arrived), Counter(status.failed[signal])
    twice = {number: count - 1 for number, count in copies.items() if count > 1}
    unexplained = {number: count for number, count in twice.items() if count > failed[number]}
    assert not unexplained, f"{signal} came twice without a failure: {unexplained}"
    made = ledger.made + ledger.recovered
    missing = made - len(copies)
    assert missing <= made - ledger.accepted, f"{missing} {signal} are missing, the ledger is {ledger}"
    assert len(copies) >= ledger.accepted
    first = list(dict.fromkeys(arrived))
    if in_order or signal == "metrics":
        assert first == sorted(first), f"{signal} came out of order"
    return sum(twice.values())
