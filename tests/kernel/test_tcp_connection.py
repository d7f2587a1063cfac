"""Real connections, whole records: who, how much, and which end ended it how."""

from __future__ import annotations

import errno
import select
import socket
import struct
import threading

import numpy as np
import pytest

from otelbpf.probes import filters
from otelbpf.probes.connection_id import connection_ids
from tests.kernel import tcp
from tests.kernel.netns import join, namespace
from tests.kernel.tcp import FIN_LOCAL, FIN_REMOTE, RESET_LOCAL, RESET_REMOTE, TIMEOUT, connection, watching

NO_LINGER = struct.pack("ii", 1, 0)
pytestmark = pytest.mark.usefixtures("place")


def test_the_client_closes_first(watch):
    with connection() as made:
        made.client.sendall(b"x" * 100)
        tcp.receive(made.server, 100)
        made.server.sendall(b"y" * 1000)
        tcp.receive(made.client, 1000)
        made.client.close()
        assert made.server.recv(1) == b""
        made.server.close()
    assert watch.nothing_but(made.server_port, 2) == made.ends(
        {"tx_bytes": 100, "rx_bytes": 1000, "close_reason": FIN_LOCAL},
        {"tx_bytes": 1000, "rx_bytes": 100, "close_reason": FIN_REMOTE},
    )


def test_the_server_closes_first(watch):
    with connection() as made:
        made.server.sendall(b"y" * 10)
        made.server.close()
        assert made.client.recv(100) == b"y" * 10
        assert made.client.recv(1) == b""
        made.client.close()
    assert watch.nothing_but(made.server_port, 2) == made.ends(
        {"rx_bytes": 10, "close_reason": FIN_REMOTE}, {"tx_bytes": 10, "close_reason": FIN_LOCAL}
    )


def test_times_segments_and_round_trips_are_measured(watch):
    with connection() as made:
        made.client.sendall(b"x")
        tcp.receive(made.server, 1)
        made.client.close()
    for row in watch.ended_rows(made.client_port, 2):
        assert 0 < row["start_ns"] < row["head"]["time_ns"]
        assert 0 < row["handshake_ns"] < 10**9
        assert row["tx_segments"] >= 2
        assert row["rx_segments"] >= 2
        assert 0 < row["min_rtt_us"] <= row["srtt_us"] < 10**6


def test_both_ends_know_the_same_two_sequence_numbers(watch):
    with connection() as made:
        made.client.sendall(b"x" * 5)
        made.server.sendall(b"y" * 7)
    rows = watch.ended_rows(made.client_port, 2)
    assert rows["client_isn"][0] == rows["client_isn"][1] != 0
    assert rows["server_isn"][0] == rows["server_isn"][1] != 0


def test_half_close(watch):
    with connection() as made:
        made.client.sendall(b"x" * 3)
        made.client.shutdown(socket.SHUT_WR)
        tcp.receive(made.server, 3)
        assert made.server.recv(1) == b""
        made.server.sendall(b"y" * 5000)
        tcp.receive(made.client, 5000)
        made.server.close()
        assert made.client.recv(1) == b""
    assert watch.nothing_but(made.server_port, 2) == made.ends(
        {"tx_bytes": 3, "rx_bytes": 5000, "close_reason": FIN_LOCAL},
        {"tx_bytes": 5000, "rx_bytes": 3, "close_reason": FIN_REMOTE},
    )


def test_a_hundred_megabytes_to_the_byte(watch):
    size, block = 100_000_000, bytes(1_000_000)
    with connection() as made:
        sender = threading.Thread(target=lambda: [made.client.sendall(block) for _ in range(100)])
        sender.start()
        tcp.receive(made.server, size)
        sender.join()
        made.client.close()
        assert made.server.recv(1) == b""
    client, server = watch.nothing_but(made.server_port, 2)
    client["retransmits"] = 0  # loopback may repeat a segment under load
    assert [client, server] == made.ends(
        {"tx_bytes": size, "close_reason": FIN_LOCAL}, {"rx_bytes": size, "close_reason": FIN_REMOTE}
    )


@pytest.mark.parametrize(
    ("address", "told", "family"), [("::1", "::1", 6), ("::ffff:127.0.0.1", "127.0.0.1", 4)], ids=["ipv6", "mapped"]
)
def test_ipv6(watch, address, told, family):
    with connection(address) as made:
        made.client.sendall(b"x")
        tcp.receive(made.server, 1)
        made.client.close()
        assert made.server.recv(1) == b""
    ends = {"local_address": told, "remote_address": told, "family": family}
    assert watch.nothing_but(made.server_port, 2) == made.ends(
        {"tx_bytes": 1, "close_reason": FIN_LOCAL, **ends}, {"rx_bytes": 1, "close_reason": FIN_REMOTE, **ends}
    )


def test_connected_without_blocking(watch):
    with tcp.listening() as listener, socket.socket() as client:
        client.setblocking(False)
        assert client.connect_ex(listener.getsockname()) == errno.EINPROGRESS
        select.select([], [client], [], 5)
        made = tcp.Connection(client, listener.accept()[0])
        client.close()
        made.server.close()
    assert watch.nothing_but(made.server_port, 2) == made.ends(
        {"close_reason": FIN_LOCAL}, {"close_reason": FIN_REMOTE}
    )


class TestResets:
    def test_by_a_client_that_does_not_linger(self, watch):
        with connection() as made:
            made.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
            made.client.close()
            with pytest.raises(ConnectionResetError):
                made.server.recv(1)
        assert watch.nothing_but(made.server_port, 2) == made.ends(
            {"close_reason": RESET_LOCAL, "tx_resets": 1, "error": errno.ECONNRESET},
            {"close_reason": RESET_REMOTE, "rx_resets": 1, "error": errno.ECONNRESET},
        )

    def test_by_a_server_that_has_not_read_everything(self, watch):
        with connection() as made:
            made.client.sendall(b"x" * 20)
            tcp.receive(made.server, 10)
            made.server.close()
            with pytest.raises(ConnectionResetError):
                made.client.recv(1)
        assert watch.nothing_but(made.server_port, 2) == made.ends(
            {"tx_bytes": 20, "close_reason": RESET_REMOTE, "rx_resets": 1, "error": errno.ECONNRESET},
            {"rx_bytes": 20, "close_reason": RESET_LOCAL, "tx_resets": 1, "error": errno.ECONNRESET},
        )

    def test_after_the_peer_said_that_it_has_finished(self, watch):
        with connection() as made:
            made.client.sendall(b"x" * 20)
            made.client.shutdown(socket.SHUT_WR)
            tcp.receive(made.server, 10)
            made.server.close()
            with pytest.raises(ConnectionResetError):
                made.client.recv(1)
        assert watch.nothing_but(made.server_port, 2) == made.ends(
            {"tx_bytes": 20, "close_reason": FIN_LOCAL, "rx_resets": 1, "error": errno.ECONNRESET},
            {"rx_bytes": 20, "close_reason": FIN_REMOTE, "tx_resets": 1},
        )

    def test_of_what_came_after_our_fin_and_was_not_read(self, watch):
        with connection() as made:
            made.client.shutdown(socket.SHUT_WR)
            made.server.sendall(b"y" * 5)
            assert select.select([made.client], [], [], 5)[0]
            made.client.close()
            assert made.server.recv(1) == b""
            watch.ended(made.server_port, 2)
        assert watch.nothing_but(made.server_port, 2) == made.ends(
            {"rx_bytes": 5, "close_reason": FIN_LOCAL, "tx_resets": 1},
            {"tx_bytes": 5, "close_reason": FIN_REMOTE, "rx_resets": 1, "error": errno.ECONNRESET},
        )

    def test_by_a_client_that_does_not_linger_after_its_fin(self, watch):
        with connection() as made:
            made.client.shutdown(socket.SHUT_WR)
            assert made.server.recv(1) == b""
            made.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
            made.client.close()
            watch.ended(made.server_port, 2)
        assert watch.nothing_but(made.server_port, 2) == made.ends(
            {"close_reason": FIN_LOCAL, "tx_resets": 1},
            {"close_reason": FIN_REMOTE, "rx_resets": 1, "error": errno.ECONNRESET},
        )

    def test_for_data_that_nobody_will_read(self, watch):
        with connection() as made:
            made.client.close()
            assert made.server.recv(1) == b""
            made.server.sendall(b"y")
            watch.ended(made.server_port, 1)
            select.select([made.server], [], [], 5)
            with pytest.raises(BrokenPipeError):
                made.server.sendall(b"y")
        assert watch.nothing_but(made.server_port, 2) == made.ends(
            {"close_reason": FIN_LOCAL},
            {"tx_bytes": 1, "close_reason": FIN_REMOTE, "rx_resets": 1, "error": errno.ECONNRESET},
        )

    def test_of_an_orphan_nobody_is_told(self, watch):
        with connection() as made:
            made.client.close()
            assert made.server.recv(1) == b""
            made.server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
            made.server.close()
        client, server = watch.nothing_but(made.server_port, 2)
        assert (client["close_reason"], client["error"]) == (FIN_LOCAL, 0)
        assert (server["close_reason"], server["error"], server["tx_resets"]) == (FIN_REMOTE, 0, 1)


DROP = "table inet t { chain c { type filter hook prerouting priority 0; meta l4proto tcp drop; }; }"


class TestThePeerFallsSilent:
    @pytest.fixture
    def made(self, watch):
        """A connection between two namespaces, the far end of which hears nothing any more."""
        with namespace() as one, namespace() as other:
            watch.namespaces = (one.inode,)
            join(one, "10.9.0.1/24", other, "10.9.0.2/24")
            with other.inside():
                listener = socket.create_server(("10.9.0.2", 0))
            with one.inside():
                made = tcp.connected(listener, "10.9.0.2")
            other.run("nft", "-f", "-", feed=DROP)
            made.netns = one.inode
            with listener, made.client, made.server:
                yield made

    @staticmethod
    def timed_out(made, **differences):
        return tcp.expected(
            role=tcp.CLIENT,
            netns=made.netns,
            local_address="10.9.0.1",
            remote_address="10.9.0.2",
            local_port=made.client_port,
            remote_port=made.server_port,
            close_reason=TIMEOUT,
            error=errno.ETIMEDOUT,
            **differences,
        )

    def test_while_it_is_told_something(self, watch, made):
        made.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 300)
        made.client.sendall(b"x" * 10)
        with pytest.raises(TimeoutError):
            made.client.recv(1)
        (record,) = watch.ended(made.client_port)
        assert record["retransmits"] >= 1
        assert record | {"retransmits": 0} == self.timed_out(made, tx_bytes=10)

    def test_and_is_found_dead_by_keepalive_which_sends_a_reset(self, watch, made):
        made.client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT):
            made.client.setsockopt(socket.IPPROTO_TCP, option, 1)
        with pytest.raises(TimeoutError):
            made.client.recv(1)
        assert watch.ended(made.client_port) == [self.timed_out(made, tx_resets=1)]


class TestIdentity:
    @pytest.mark.parametrize("version", ["4", "6"])
    def test_both_ends_of_a_translated_connection_have_one_id(self, watch, version):
        with namespace() as client, namespace() as router, namespace() as server:
            watch.namespaces = (client.inode, server.inode)
            client_net, server_net = ("10.1.0", "10.2.0") if version == "4" else ("fd01:", "fd02:")
            dot, length, service = (".", 24, "10.96.0.1") if version == "4" else (":", 64, "fd96::1")
            join(client, f"{client_net}{dot}2/{length}", router, f"{client_net}{dot}1/{length}")
            join(server, f"{server_net}{dot}2/{length}", router, f"{server_net}{dot}1/{length}")
            client.run("ip", f"-{version}", "route", "add", "default", "via", f"{client_net}{dot}1")
            router.set(ipv4__ip_forward=1, ipv6__conf__all__forwarding=1)
            backend = f"{server_net}{dot}2"
            with server.inside():
                listener = socket.create_server(
                    (backend, 0), family=socket.AF_INET if version == "4" else socket.AF_INET6
                )
            port = listener.getsockname()[1]
            target = f"{backend}:{port}" if version == "4" else f"[{backend}]:{port}"
            router.run("nft", "-f", "-", feed=translate("ip" if version == "4" else "ip6", service, target))
            with client.inside():
                near = socket.create_connection((service, 80))
            far = listener.accept()[0]
            near.sendall(b"x" * 11)
            tcp.receive(far, 11)
            seen = {"near": near.getsockname()[:2], "far": far.getpeername()[:2]}
            near.close()
            far.close()
            listener.close()
            rows = watch.where(lambda rows: rows["kind"] == tcp.CLOSED, 2)
        assert seen["near"] != seen["far"]
        assert sorted(rows["role"].tolist()) == [tcp.CLIENT, tcp.SERVER]
        ids = connection_ids(rows["client_isn"], rows["server_isn"], np.ones(2, bool), "secret")
        assert ids[0].tobytes() == ids[1].tobytes() != bytes(16)

    def test_syn_cookies_change_nothing_but_the_handshake(self, watch):
        with namespace() as place, place.inside():
            place.set(ipv4__tcp_syncookies=2)
            with connection() as made:
                made.client.sendall(b"x")
                tcp.receive(made.server, 1)
            rows = watch.ended_rows(made.server_port, 2)
        rows = rows[np.argsort(rows["role"])]
        assert rows["role"].tolist() == [tcp.CLIENT, tcp.SERVER]
        assert (rows["client_isn"][0], rows["server_isn"][0]) == (rows["client_isn"][1], rows["server_isn"][1])
        assert rows["handshake_ns"][0] > 0
        assert rows["handshake_ns"][1] == 0


def translate(family: str, service: str, backend: str) -> str:
    return f"""table {family} nat {{
        chain pre {{ type nat hook prerouting priority -100; {family} daddr {service} tcp dport 80 dnat to {backend}; }}
        chain post {{ type nat hook postrouting priority 100; {family} daddr != {service} tcp dport != 0 masquerade random; }}
    }}"""


class TestFilters:
    @staticmethod
    def traffic(port=None):
        with connection() as made:
            made.client.close()
        return made

    def test_the_agent_itself_is_left_out_and_counted(self):
        with watching(exclude_self=True) as watch:
            made = self.traffic()
            with tcp.child(lambda: None):
                pass
            assert watch.nothing_but(made.server_port, 0) == []
            assert watch.count("filtered") >= 2

    def test_an_excluded_port(self):
        with tcp.listening() as listener:
            port = listener.getsockname()[1]
            with watching(adopt=True, ports={"exclude": [port]}) as watch:
                made = tcp.connected(listener)
                made.client.close()
                made.server.close()
                other = self.traffic()
                assert len(watch.nothing_but(other.server_port, 2)) == 2
                assert watch.ended(port, 0) == []
                assert not (watch.snapshot()["local_port"] == port).any()

    def test_an_included_port(self):
        with tcp.listening() as listener:
            port = listener.getsockname()[1]
            with watching(adopt=True, ports={"include": [port]}) as watch:
                other = self.traffic()
                made = tcp.connected(listener)
                made.client.close()
                made.server.close()
                assert len(watch.nothing_but(port, 2)) == 2
                assert watch.ended(other.server_port, 0) == []

    def test_lists_that_change_while_it_runs(self):
        everything = {"exclude": ["127.0.0.0/8"]}
        with watching() as watch:
            for chosen, seen in (
                ({"addresses": everything}, 0),
                ({}, 2),
                ({"addresses": {"include": ["127.0.0.1/32"]}}, 2),
                ({"addresses": {"include": ["192.0.2.0/24"]}}, 0),
                ({"addresses": {"include": ["127.0.0.1"]}, "ports": {"include": [1]}}, 0),
                ({"ports": {"exclude": [1]}}, 2),
            ):
                filters.fill(watch.attached.object, tcp.configuration(**chosen))
                made = self.traffic()
                assert len(watch.nothing_but(made.server_port, seen)) == seen

    def test_as_many_entries_as_settings_may_have_change_while_it_runs(self):
        with watching() as watch:
            for first in (1, 2000):
                ports = {"include": [*range(first, first + 512)], "exclude": [*range(first + 512, first + 1024)]}
                filters.fill(watch.attached.object, tcp.configuration(ports=ports))
                assert len(watch.attached.object.map("filter_ports")) == 1024

    @pytest.mark.parametrize(
        ("chosen", "seen"),
        [
            ({"exclude": ["127.0.0.0/8"]}, 0),
            ({"exclude": ["10.0.0.0/8", "::1/128"]}, 2),
            ({"include": ["127.0.0.1/32"]}, 2),
            ({"include": ["192.0.2.0/24"]}, 0),
            ({"include": ["0.0.0.0/0"], "exclude": ["127.0.0.0/8"]}, 0),
        ],
    )
    def test_addresses(self, chosen, seen):
        with watching(addresses=chosen) as watch:
            made = self.traffic()
            assert len(watch.nothing_but(made.server_port, seen)) == seen
            assert watch.count("filtered") >= 2 - seen
