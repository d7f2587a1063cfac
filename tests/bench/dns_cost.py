"""DNS: 50,000 lookups a second, live; every answer on the right name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bench import running
from tests.bench.figure import Figure
from tests.bench.resources import cpu_s
from tests.bench.tcp_cost import tail
from tests.load import dns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.agent import Row

ADDRESS = "127.53.7.1"
MIX = {"a": 20, "c": 3, "n": 3, "s": 1, "r": 1}
LOADS = (("mmsg", 997), ("mmsg", 41), ("socket", 41))
"""Way to ask, and names of each class (prime, so that an id never meets the same name soon)."""
COUNT = 300_000
RATE = 50_000


def figures() -> Iterator[Figure]:
    """A window of queries on one socket (a resolver, Go), then a socket for each (glibc)."""
    for way, names in LOADS:
        plan = dns.Plan(COUNT, MIX, way, RATE, names, address=ADDRESS, port=53, records=False)  # type: ignore[arg-type]  # a literal
        with running.agent(keep=True) as (agent, taker):
            before = cpu_s(agent.pid)
            truth = dns.dns_load(plan)
            used = tail(agent, before)
        yield figure(
            f"{way}, {names * len(MIX):,} names",
            truth,
            agent.summary.events["dns_lookup"],
            used,
            taker.counted["kinds"],
        )


def figure(title: str, truth: dns.DnsTruth, events: Row, used_s: float, kinds: dict[str, int]) -> Figure:
    """Cost, loss, and how many records do not say what was answered."""
    caused = {f"otelbpf.dns.lookup {letter} {dns.RCODE_NAMES[code]}": n for (letter, code), n in truth.answered.items()}
    arrived = {name: count for name, count in kinds.items() if name.startswith("otelbpf.dns.lookup") and name in caused}
    right = sum(min(count, caused[name]) for name, count in arrived.items())
    processed = events.terms["processed"] / 2  # both ends of each
    measured = (
        f"{used_s / processed * 1e6:.1f} s per million lookups, {events.terms['lost']} lost, {events.terms['throttled']} throttled; right code on the right name: "
        f"{right} of {COUNT}"
    )
    reasons = ", ".join(f"{reason} {count}" for reason, count in events.reasons.items())
    note = f"{truth.rate:.0f}/s offered and answered; both ends seen: {events.terms['seen']} events; {reasons}"
    return Figure(f"DNS, {title}, logs + metrics", measured, "none lost, ≤ 15 s", note)
