"""The ledger says so when the books do not balance."""

from otelbpf.export.account import SignalLedger
from otelbpf.ledger import EventLedger, summary


def test_every_term_counts_towards_the_balance() -> None:
    ledger = EventLedger(
        seen=28, processed=10, filtered=5, throttled=1, undecodable=2, pending=3, lost={"ring_full": 4, "queue_full": 3}
    )
    assert ledger.accounted == 28
    assert ledger.balanced


def test_one_event_that_went_missing_is_told() -> None:
    lines = list(summary(1.0, {"tcp_connection": EventLedger(seen=2, processed=1)}, {}))
    assert lines[2].split() == ["tcp_connection", "2", "1", "0", "0", "0", "0", "0", "DOES", "NOT", "BALANCE"]


def test_the_summary_gives_reasons_for_losses_and_drops() -> None:
    events = {"dns_lookup": EventLedger(seen=5, processed=2, lost={"ring_full": 2, "pending_full": 1, "queue_full": 0})}
    records = {("console", "logs"): SignalLedger(made=9, accepted=3, rejected=0, queued=1, dropped={"queue_full": 5})}
    lines = list(summary(12.34, events, records))
    assert lines[0] == "summary: 12.3 s"
    assert lines[1].split() == [
        "events",
        "seen",
        "processed",
        "filtered",
        "throttled",
        "lost",
        "undecodable",
        "pending",
    ]
    assert lines[2].endswith("balanced (ring_full 2, pending_full 1)")
    assert lines[3].split() == ["records", "made", "recovered", "accepted", "rejected", "dropped", "queued", "spooled"]
    assert lines[4].split()[:9] == ["console", "logs", "9", "0", "3", "0", "5", "1", "0"]
    assert lines[4].endswith("balanced (queue_full 5)")
