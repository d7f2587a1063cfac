"""Rows of the probe `tcp_connection` → columns, differences, ids and lines."""

from __future__ import annotations

import errno
import hashlib
import struct
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelbpf.batch import Batch, Categorical, Facts
from otelbpf.config import Config
from otelbpf.probes import tcp_accounting
from otelbpf.probes.connection_id import add_connection_ids, connection_ids, identities
from otelbpf.probes.probe import Choice, Known, Level, Number
from otelbpf.probes.tcp_connection import PROBE
from otelbpf.signals import names
from tests.unit.enrich.rows import HEAD, SECOND, rows

CLOSED, FAILED, SNAPSHOT = 1, 2, 3
CLIENT, SERVER = 1, 2
LAYOUT = np.dtype(
    [
        ("head", HEAD),
        *((name, "u8") for name in ("cookie", "start_ns", "handshake_ns", "tx_bytes", "rx_bytes")),
        *((name, "u8") for name in ("tx_bytes_before", "rx_bytes_before")),
        *((name, "u4") for name in ("tx_segments", "rx_segments", "retransmits", "srtt_us", "min_rtt_us")),
        ("retransmits_before", "u4"),
        *((name, "u4") for name in ("client_isn", "server_isn")),
        *((name, "V16") for name in ("local_address", "remote_address")),
        *((name, "u2") for name in ("local_port", "remote_port", "error")),
        *((name, "u1") for name in ("family", "role", "kind", "close_reason", "adopted", "tx_resets", "rx_resets")),
    ]
)


def config(**settings):
    return msgspec.convert(settings, Config)


def row(**values):
    usual = {"cookie": 1, "kind": CLOSED, "role": CLIENT, "start_ns": SECOND, "time_ns": 2 * SECOND, "remote_port": 443}
    return usual | values


class Line:
    """The probe's `prepare`, fed batch by batch."""

    def __init__(self, **settings):
        self.prepare = PROBE.prepare(config(**settings))

    def events(self, *values):
        return self.prepare(Batch(PROBE.name, rows(LAYOUT, *values), 0))

    def snapshot(self, *values):
        alive = rows(LAYOUT, *({"kind": SNAPSHOT} | value for value in values))
        return self.prepare(Batch(PROBE.name, alive, 0, snapshot=True))


def new(batch, name="tx_bytes"):
    return batch.number(f"{name}_new").tolist()


class TestAccounting:
    def test_a_connection_that_no_snapshot_has_seen_counts_at_its_end(self):
        batch = Line().events(row(tx_bytes=10, rx_bytes=20, retransmits=3, tx_resets=1))
        assert [new(batch, name) for name in tcp_accounting.COUNTERS] == [[10], [20], [3], [1], [0]]
        assert batch.number("opened").tolist() == [True]

    def test_one_that_snapshots_have_seen_counts_the_difference(self):
        line = Line()
        first = line.snapshot(row(kind=SNAPSHOT, tx_bytes=10))
        second = line.snapshot(row(kind=SNAPSHOT, tx_bytes=15))
        end = line.events(row(tx_bytes=16))
        assert [new(first), new(second), new(end)] == [[10], [5], [1]]
        assert [batch.number("opened").tolist() for batch in (first, second, end)] == [[True], [False], [False]]

    def test_an_adopted_one_counts_from_its_adoption_on_and_was_never_opened(self):
        line = Line()
        old = {"start_ns": 0, "adopted": 1, "tx_bytes_before": 1000, "retransmits_before": 3, "retransmits": 3}
        first = line.snapshot(row(kind=SNAPSHOT, tx_bytes=1002, **old))
        end = line.events(row(tx_bytes=1007, **old))
        unseen = line.events(row(cookie=2, tx_bytes=1004, rx_resets=1, **old))
        assert [new(first), new(end), new(unseen)] == [[2], [5], [4]]
        assert [new(unseen, name) for name in ("retransmits", "rx_resets")] == [[0], [1]]
        assert not any(batch.number("opened").any() for batch in (first, end, unseen))

    def test_a_snapshot_that_arrives_after_the_close_counts_nothing(self):
        line = Line()
        line.events(row(tx_bytes=10))
        assert len(line.snapshot(row(kind=SNAPSHOT, tx_bytes=9))) == 0

    def test_a_socket_that_is_connected_again_starts_anew(self):
        line = Line()
        line.events(row(tx_bytes=10))
        again = line.snapshot(row(kind=SNAPSHOT, start_ns=3 * SECOND, time_ns=4 * SECOND, tx_bytes=4))
        assert (new(again), again.number("opened").tolist()) == ([4], [True])

    def test_a_row_that_the_walk_met_twice_counts_once(self):
        batch = Line().snapshot(row(kind=SNAPSHOT, tx_bytes=10), row(kind=SNAPSHOT, tx_bytes=10))
        assert new(batch) == [10]

    def test_counters_that_were_caught_in_between_never_count_backwards(self):
        line = Line()
        counted = [new(line.snapshot(row(kind=SNAPSHOT, tx_bytes=at)))[0] for at in (10, 8, 12)]
        assert counted == [10, 0, 2]

    def test_what_is_beyond_the_bound_counts_at_its_end(self):
        line = Line(probes={"tcp_connection": {"max_tracked": 1024}})
        alive = [row(kind=SNAPSHOT, cookie=cookie, tx_bytes=1) for cookie in range(1, 1101)]
        first, second = line.snapshot(*alive), line.snapshot(*alive)
        assert (sum(new(first)), sum(new(second)), len(first)) == (1024, 0, 1100)
        assert line.prepare.accounting.fill == PROBE.tables(line.prepare)["tracked"] == (1024, 1024)
        end = line.events(*({**one, "kind": CLOSED} for one in alive))
        assert (sum(new(end)), int(end.number("opened").sum())) == (76, 76)

    def test_adopted_ones_beyond_the_bound_lose_nothing(self):
        line = Line(probes={"tcp_connection": {"max_tracked": 1024}})
        old = {"start_ns": 0, "adopted": 1, "rx_bytes_before": 100}
        alive = [row(kind=SNAPSHOT, cookie=cookie, rx_bytes=101, **old) for cookie in range(1, 1101)]
        assert sum(new(line.snapshot(*alive), "rx_bytes")) == 1024
        assert sum(new(line.events(*({**one, "kind": CLOSED} for one in alive)), "rx_bytes")) == 76

    @staticmethod
    def forgotten():
        """A line that has forgotten a connection of which it had counted ten bytes."""
        line = Line()
        line.snapshot(row(kind=SNAPSHOT, tx_bytes=10))
        for _ in range(tcp_accounting.PASSES_KEPT):
            assert line.prepare.accounting.fill[0] == 1
            line.snapshot()
        return line

    def test_one_whose_close_was_lost_is_forgotten(self):
        assert self.forgotten().prepare.accounting.fill[0] == 0

    def test_one_that_was_forgotten_is_not_counted_again(self):
        ended = self.forgotten().events(row(tx_bytes=12))
        assert (new(ended), ended.number("opened").tolist()) == ([0], [False])
        line = self.forgotten()
        seen = [line.snapshot(row(kind=SNAPSHOT, tx_bytes=at)) for at in (12, 15)]
        ended = line.events(row(tx_bytes=16))
        assert [new(batch) for batch in (*seen, ended)] == [[0], [3], [1]]
        assert not any(batch.number("opened").any() for batch in (*seen, ended))

    def test_one_that_a_walk_left_out_is_not_counted_again(self):
        line = Line()
        line.snapshot(row(kind=SNAPSHOT, tx_bytes=10))
        line.snapshot()
        assert new(line.snapshot(row(kind=SNAPSHOT, tx_bytes=11))) == [1]

    def test_round_trips_are_told_at_the_end_and_each_minute(self):
        line = Line()
        alive = row(kind=SNAPSHOT, srtt_us=5)
        due = [
            line.snapshot({**alive, "time_ns": at * SECOND}).number("rtt_due").tolist() for at in (2, 60, 61, 90, 121)
        ]
        assert due == [[False], [False], [True], [False], [True]]
        assert line.events(row(srtt_us=5)).number("rtt_due").tolist() == [True]
        assert line.events(row(cookie=2)).number("rtt_due").tolist() == [False]

    def test_the_memory_of_ends_is_a_ring(self, monkeypatch):
        monkeypatch.setattr(tcp_accounting, "RECENT", 4)
        line = Line()
        for first in (1, 4, 7):
            line.events(*(row(cookie=cookie) for cookie in range(first, first + 3)))
        late = line.snapshot(*(row(kind=SNAPSHOT, cookie=cookie) for cookie in range(1, 10)))
        assert late.number("cookie").tolist() == [1, 2, 3, 4, 5]

    def test_more_ends_than_the_ring_holds_in_one_batch(self, monkeypatch):
        monkeypatch.setattr(tcp_accounting, "RECENT", 4)
        line = Line()
        line.events(*(row(cookie=cookie) for cookie in range(1, 12)))
        late = line.snapshot(*(row(kind=SNAPSHOT, cookie=cookie) for cookie in range(1, 12)))
        assert late.number("cookie").tolist() == list(range(1, 8))


class Life(NamedTuple):
    """A connection that is in snapshots *born* to *died* - 1, and in *died* too if that was taken before it ended."""

    born: int
    died: int
    in_last: bool
    adopted: bool
    sent: list[int]
    """Bytes sent until each pass from *born* on, and until the end."""

    def as_row(self, cookie, number, kind):
        begin = {"start_ns": 0, "adopted": 1, "tx_bytes_before": self.sent[0]} if self.adopted else {}
        sent = self.sent[-1] if kind == CLOSED else self.sent[number - self.born]
        return row(kind=kind, cookie=cookie, tx_bytes=sent, **begin)

    def is_in(self, number):
        return self.born <= number < self.died + self.in_last


@st.composite
def lives(draw):
    born = draw(st.integers(0, PASSES - 1))
    died = draw(st.integers(born, PASSES - 1))
    steps = draw(st.lists(st.integers(0, 1000), min_size=died - born + 2, max_size=died - born + 2))
    return Life(born, died, draw(st.booleans()), born == 0 and draw(st.booleans()), np.cumsum(steps).tolist())


PASSES = 5


@given(st.lists(lives(), max_size=6), st.lists(st.booleans(), min_size=PASSES, max_size=PASSES))
def test_whatever_comes_in_whatever_order_is_counted_once(all_lives, overtaken):
    line, counted, opened = Line(), [0] * len(all_lives), [0] * len(all_lives)
    for number in range(PASSES):
        alive = [life.as_row(cookie, number, SNAPSHOT) for cookie, life in enumerate(all_lives) if life.is_in(number)]
        ended = [life.as_row(cookie, number, CLOSED) for cookie, life in enumerate(all_lives) if life.died == number]
        carried = [lambda: line.snapshot(*alive), lambda: line.events(*ended)]  # noqa: B023 - called at once
        for carry in reversed(carried) if overtaken[number] else carried:
            batch = carry()
            for cookie, sent, is_new in zip(batch.number("cookie"), new(batch), batch.number("opened"), strict=True):
                counted[cookie] += sent
                opened[cookie] += is_new
    for life, total, times in zip(all_lives, counted, opened, strict=True):
        assert total == life.sent[-1] - (life.sent[0] if life.adopted else 0)
        assert times == (0 if life.adopted else 1)


class TestColumns:
    def test_failures_count_once_and_carry_nothing(self):
        batch = Line().events(row(kind=FAILED, error=errno.ECONNREFUSED, retransmits=2, tx_bytes=5, rx_resets=1))
        flags = ("opened", "failed", "closed", "went_wrong", "rtt_due", "handshake_due", "duration_due")
        assert [bool(batch.number(name)[0]) for name in flags] == [True, True, False, True, False, False, False]
        assert [new(batch, name) for name in tcp_accounting.COUNTERS] == [[0], [0], [2], [0], [0]]

    @pytest.mark.parametrize(
        ("kind", "error", "error_type", "failure"),
        [
            (FAILED, errno.ECONNREFUSED, "connection_refused", "connection_refused"),
            (FAILED, errno.ETIMEDOUT, "timed_out", "timed_out"),
            (FAILED, errno.EHOSTUNREACH, "host_unreachable", "host_unreachable"),
            (FAILED, errno.ENETUNREACH, "network_unreachable", "network_unreachable"),
            (FAILED, errno.ECONNRESET, "connection_reset", "connection_reset"),
            (FAILED, errno.EADDRNOTAVAIL, "address_not_available", "address_not_available"),
            (FAILED, errno.EACCES, "access_denied", "access_denied"),
            (FAILED, errno.EPERM, "access_denied", "access_denied"),
            (FAILED, errno.ECANCELED, "operation_aborted", "operation_aborted"),
            (FAILED, errno.ENOBUFS, "_OTHER", "_OTHER"),
            (CLOSED, errno.ECONNRESET, "connection_reset", None),
            (CLOSED, 0, None, None),
        ],
    )
    def test_errors(self, kind, error, error_type, failure):
        batch = Line().events(row(kind=kind, error=error))
        words = next(a.values for a in PROBE.events[0].attributes if isinstance(a, Choice) and a.name == "error.type")
        assert words.get(int(batch.number("error_class")[0])) == error_type
        assert words.get(int(batch.number("failure")[0])) == failure

    @pytest.mark.parametrize(
        ("role", "local", "remote", "server", "client", "service"),
        [
            (CLIENT, 40000, 443, 443, 0, 443),
            (CLIENT, 40000, 50051, 50051, 0, 50051),
            (CLIENT, 40000, 41000, 41000, 0, 0),
            (SERVER, 443, 40000, 443, 40000, 443),
            (SERVER, 41000, 40000, 41000, 40000, 41000),
            (0, 443, 40000, 0, 0, 0),
        ],
    )
    def test_ports(self, role, local, remote, server, client, service):
        batch = Line().events(row(role=role, local_port=local, remote_port=remote))
        found = [int(batch.number(name)[0]) for name in ("server_port", "client_port", "service_port")]
        assert found == [server, client, service]

    def test_durations_are_absent_where_the_start_was_not_seen(self):
        batch = Line().events(row(), row(cookie=2, start_ns=0, adopted=1))
        assert batch.number("duration_ns").tolist() == [SECOND, 0]
        assert batch.number("duration_due").tolist() == [True, False]

    def test_a_handshake_counts_when_the_connection_does(self):
        line = Line()
        due = [
            line.snapshot(row(kind=SNAPSHOT, handshake_ns=5)).number("handshake_due").tolist(),
            line.events(row(handshake_ns=5)).number("handshake_due").tolist(),
            line.events(row(cookie=2, handshake_ns=5)).number("handshake_due").tolist(),
            line.events(row(cookie=3)).number("handshake_due").tolist(),
        ]
        assert due == [[True], [False], [True], [False]]

    def test_an_empty_batch_has_its_columns_too(self):
        line = Line()
        assert {*line.events().columns} >= {*line.snapshot().columns}


class TestConnectionId:
    @staticmethod
    def ids(*values, key=""):
        batch = Line().events(*values)
        add_connection_ids(config(connection_id={"key": key}), batch)
        return batch.number("connection_id")

    def test_it_is_a_keyed_hash_of_both_numbers_big_endian(self):
        wanted = hashlib.blake2b(struct.pack(">II", 1, 0xFEDCBA98), digest_size=16, key=b"secret").digest()
        assert self.ids(row(client_isn=1, server_isn=0xFEDCBA98), key="secret").tobytes() == wanted

    def test_numbers_that_are_unknown_have_none(self):
        assert not self.ids(row()).any()

    def test_failures_have_none(self):
        assert not self.ids(row(kind=FAILED, client_isn=1)).any()

    def test_both_ends_are_the_same_thing_when_records_are_sampled(self):
        ends = Line().events(
            row(client_isn=1, server_isn=2), row(cookie=2, client_isn=1, server_isn=2, role=SERVER), row(cookie=3)
        )
        assert identities(ends).tolist() == [1 << 32 | 2, 1 << 32 | 2, 3]

    def test_a_key_of_any_length(self):
        one = np.ones(1, np.uint32)
        ids = {connection_ids(one, one, one > 0, "k" * length).tobytes() for length in (0, 1, 64, 65, 1000)}
        assert len(ids) == 5


class TestLines:
    PROCESS = Facts({names.PROCESS_EXECUTABLE_NAME: "curl"})

    def line(self, event, values, peer, name="", process=PROCESS):
        batch = Line().events(row(**{"pid": 4711, "comm": b"short", "remote_address": peer, **values}))
        batch.columns["process"] = Categorical(np.zeros(1, np.intp), [process])
        batch.columns["remote"] = Categorical(
            np.zeros(1, np.intp), [Facts({names.SERVER_ADDRESS: name} if name else {})]
        )
        (line,) = PROBE.events[event].body(batch)
        return line

    def test_nobody_known_is_a_question_mark_and_no_number(self):
        values = {"pid": 0, "comm": b"", "role": SERVER, "remote_port": 40000, "close_reason": 1}
        line = self.line(0, values, "::1", process=Facts({}))
        assert line.startswith("server ? ← [::1]:40000 ")

    @pytest.mark.parametrize(
        ("values", "peer", "name", "line"),
        [
            (
                {"tx_bytes": 64, "rx_bytes": 1234, "time_ns": SECOND + 3_200_000, "close_reason": 1},
                "93.184.216.34",
                "example.org",
                "client curl[4711] → example.org (93.184.216.34:443) ↑64 B ↓1.2 kB 3.2 ms fin_local",
            ),
            (
                {"role": SERVER, "remote_port": 40000, "close_reason": 4, "rx_bytes": 100_000_000},
                "::1",
                "",
                "server curl[4711] ← [::1]:40000 ↑0 B ↓100 MB 1.0 s reset_remote",
            ),
            (
                {"role": 0, "start_ns": 0, "adopted": 1, "time_ns": 5},
                "10.0.0.1",
                "",
                "unknown curl[4711] — 10.0.0.1:443 ↑0 B ↓0 B ? unknown",
            ),
        ],
    )
    def test_closed(self, values, peer, name, line):
        assert self.line(0, values, peer, name) == line

    def test_a_peer_that_is_not_known(self):
        assert self.line(1, {"kind": FAILED}, "0.0.0.0").startswith("client curl[4711] → ?:443 ")

    def test_failed(self):
        values = {"kind": FAILED, "error": errno.ETIMEDOUT, "handshake_ns": 127 * SECOND}
        assert self.line(1, values, "10.0.0.1") == "client curl[4711] → 10.0.0.1:443 127 s timed_out"

    def test_a_process_of_which_nothing_else_is_known(self):
        assert self.line(0, {}, "10.0.0.1", process=Facts()).startswith("client short[4711] → ")


def attribute_names(attributes):
    for attribute in attributes:
        yield from map(str, attribute.names if isinstance(attribute, Known) else [attribute.name])


WAY = {"network.tcp.handshake.role", "server.port", "otelbpf.peer.type"}
EDGE = WAY | {
    *("server.address", "service.peer.name", "service.peer.namespace", "otelbpf.peer.k8s.namespace.name"),
    *("otelbpf.peer.k8s.workload.name", "otelbpf.peer.k8s.workload.kind"),
}


@pytest.mark.parametrize(
    ("metric", "attributes"),
    [
        ("otelbpf.tcp.connections", EDGE | {"error.type"}),
        ("otelbpf.tcp.closes", WAY | {"otelbpf.tcp.close.reason"}),
        ("otelbpf.tcp.connection.active", WAY),
        ("otelbpf.tcp.io", EDGE | {"network.io.direction"}),
        ("otelbpf.tcp.retransmits", EDGE),
        ("otelbpf.tcp.resets", WAY | {"network.io.direction"}),
        ("otelbpf.tcp.handshake.duration", WAY),
        ("otelbpf.tcp.rtt", WAY),
        ("otelbpf.tcp.connection.duration", WAY),
    ],
)
def test_metrics_have_the_attributes_of_the_contract(metric, attributes):
    declared = [each for each in PROBE.metrics if each.name == metric]
    assert declared
    assert all(set(attribute_names(each.by)) == attributes for each in declared)
    assert all(isinstance(each, Level) == (metric == "otelbpf.tcp.connection.active") for each in declared)


def test_no_attribute_of_a_record_stands_twice():
    for event in PROBE.events:
        declared = [name for name in attribute_names(event.attributes) if name != "server.address"]
        assert len(declared) == len(set(declared))


def test_an_owner_that_is_not_known_has_no_pid():
    for event in PROBE.events:
        assert [
            each.absent for each in event.attributes if isinstance(each, Number) and each.name == names.PROCESS_PID
        ] == [0]
