"""Which connections a translation that the kernel told of belongs to."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from otelbpf.enrich.kubernetes import conntrack as module
from otelbpf.enrich.kubernetes.conntrack import EARLY_NS, Conntrack
from otelbpf.enrich.kubernetes.holders import NS_PER_S, packed
from otelbpf.kernel.clock import boottime_ns

CLIENT, SERVICE, BACKEND, OTHER, NODE = map(
    packed, ("10.1.0.2", "10.96.0.80", "10.2.0.2", "10.2.0.3", "10.2.0.1")
)  # fmt: skip
TCP, UDP = 6, 17
TOLD_NS = 1_000 * NS_PER_S
READ_NS = TOLD_NS + NS_PER_S // 4


def ends(protocol=TCP, port=40_000):
    return protocol, CLIENT, port, SERVICE, 80


def tell(tracking, protocol=TCP, port=40_000, backend=BACKEND, since_ns=TOLD_NS, until_ns=READ_NS):
    """To the service, the client behind the node's address."""
    tracking._remember(ends(protocol, port), (protocol, backend, 8080, NODE, 5_000), since_ns, until_ns)


@pytest.fixture
def tracking():
    return Conntrack(Path("/nowhere"))


@pytest.mark.parametrize(
    ("after_s", "known"),
    [
        (-3_600, False),  # older than the agent, or than the translation
        (-1, False),
        (-0.05, True),  # a connect, before its first packet had passed
        (0, True),
        (7.1, True),  # established with the fourth SYN
        (9.2, True),
        (9.3, False),
        (3_600, False),  # another one, with the same ends
    ],
)
def test_a_translation_is_of_the_connection_that_began_when_it_was_told(tracking, after_s, known):
    tell(tracking)
    began_ns = TOLD_NS + int(after_s * NS_PER_S)
    assert tracking.true_end(ends(), began_ns) == ((BACKEND, 8080) if known else None)
    assert tracking.true_end((TCP, BACKEND, 8080, NODE, 5_000), began_ns) == ((CLIENT, 40_000) if known else None)


def test_one_that_lives_long_keeps_it_and_does_not_give_it_to_the_next(tracking):
    tell(tracking)
    for _ in range(1_000):  # each snapshot, and the close
        assert tracking.true_end(ends(), TOLD_NS + NS_PER_S) == (BACKEND, 8080)
    assert tracking.true_end(ends(), TOLD_NS + 20 * NS_PER_S) is None


def test_what_is_told_anew_is_of_the_new_one_only(tracking):
    tell(tracking)
    tell(tracking, backend=OTHER, since_ns=TOLD_NS + 60 * NS_PER_S, until_ns=READ_NS + 60 * NS_PER_S)
    assert tracking.true_end(ends(), TOLD_NS) is None
    assert tracking.true_end(ends(), TOLD_NS + 60 * NS_PER_S) == (OTHER, 8080)


def test_a_socket_that_asks_again_and_again_keeps_its_translation_until_it_rests(tracking):
    tell(tracking, UDP)
    last_ns = TOLD_NS
    for _ in range(100):
        last_ns += 25 * NS_PER_S
        assert tracking.true_end(ends(UDP), last_ns) == (BACKEND, 8080)
    assert tracking.true_end(ends(UDP), last_ns + 30 * NS_PER_S) is None


def test_what_was_asked_for_or_told_last_is_kept_longest(tracking, monkeypatch):
    monkeypatch.setattr(module, "CONNECTIONS", 4)
    for port in (1, 2, 3, 4):
        tracking._remember(ends(port=port), (TCP, BACKEND, 8080, CLIENT, port), TOLD_NS, READ_NS)
    assert tracking.true_end(ends(port=1), TOLD_NS) == (BACKEND, 8080)
    for port in (2, 5, 6):  # 2 is told of again
        tracking._remember(ends(port=port), (TCP, BACKEND, 8080, CLIENT, port), TOLD_NS, READ_NS)
    known = [port for port in range(1, 7) if tracking.true_end(ends(port=port), TOLD_NS)]
    assert known == [1, 2, 5, 6]
    assert tracking.fill == (4, 0)
    assert tracking._remotes == {SERVICE: 4}


def test_what_is_read_late_may_have_been_told_at_any_time_since_the_last_reading(tracking):
    told = []
    tracking._translations = SimpleNamespace(told=lambda: told, overflows=0)
    tracking.learn()
    before_ns = boottime_ns()
    told.append((ends(), (TCP, BACKEND, 8080, CLIENT, 40_000)))
    tracking._read_ns -= 20 * NS_PER_S  # a stall
    tracking.learn()
    told.clear()
    tracking.learn()
    assert tracking.true_end(ends(), before_ns - 15 * NS_PER_S) == (BACKEND, 8080)
    assert tracking.true_end(ends(), before_ns - 20 * NS_PER_S - 2 * EARLY_NS) is None
