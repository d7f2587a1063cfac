"""The generator against itself and the kernel's own counters."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.load import dns, tcp

TCP_MIX = {"normal": 4, "server_closes": 1, "refused": 1, "client_resets": 1, "server_resets": 1, "half_close": 1}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("family", "address"), [("4", "127.3.0.1"), ("6", "::1"), ("mapped", "127.3.0.1")])
def test_both_ends_of_every_connection_are_known(family: str, address: str, workers: int) -> None:
    plan = tcp.Plan(count=300, mix=TCP_MIX, family=family, address=address, workers=workers, spread=5000, seed=7)  # type: ignore[arg-type]
    truth = tcp.tcp_load(plan)
    assert [connection.number for connection in truth.connections] == list(range(300))
    assert {connection.kind for connection in truth.connections} == set(TCP_MIX)
    assert Counter(c.kind for c in truth.connections) == Counter(
        {k: n for k, n in truth.client["by_kind"].items() if n}
    )
    for connection in truth.connections:
        assert (connection.server_pid in truth.server.pids) == (connection.kind != "refused")
        assert connection.local_port > 0


def test_connections_that_nobody_answers() -> None:
    truth = tcp.tcp_load(tcp.Plan(count=4, mix={"abandoned": 1}, wait_ms=20))
    assert truth.failed == 4
    assert truth.established == 0


@pytest.mark.parametrize("way", ["socket", "window", "mmsg", "tcp"])
def test_every_question_is_answered_by_its_name(way: str) -> None:
    mix = {"a": 6, "c": 1, "n": 1, "s": 1, "r": 1, "t": 1, "d": 1}
    truth = dns.dns_load(dns.Plan(count=120, mix=mix, way=way, wait_ms=10, both_types=True))  # type: ignore[arg-type]
    assert len(truth.lookups) == 120
    for lookup in truth.lookups:
        assert lookup.rcode == dns.RCODES.get(lookup.name[0])
    assert truth.unanswered == sum(lookup.rcode is None for lookup in truth.lookups)
