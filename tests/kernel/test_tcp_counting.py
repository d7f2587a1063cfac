"""Connections that live while they are counted, that are older than the agent, or that come again."""

from __future__ import annotations

import contextlib
import os
import socket

import pytest

from otelbpf.batch import Batch
from otelbpf.kernel.clock import boottime_offset_ns
from otelbpf.probes.tcp_connection import PROBE
from tests.kernel import tcp
from tests.kernel.netns import namespace
from tests.kernel.tcp import FIN_LOCAL, FIN_REMOTE, connection, watching
from tests.kernel.walks import skip_without_walks_of_maps

pytestmark = pytest.mark.usefixtures("place")


@pytest.fixture(params=PROBE.snapshots, ids=lambda walk: walk.program)
def watch(place, request):
    if request.param.over is not None:
        skip_without_walks_of_maps()
    with watching(walk=request.param) as attached:
        yield attached


class TestOlderThanTheAgent:
    def test_an_established_connection_is_adopted_with_role_owner_and_numbers(self):
        with connection() as made:
            made.client.sendall(b"x" * 10)
            tcp.receive(made.server, 10)
            with watching(adopt=True) as watch:
                made.server.sendall(b"y" * 20)
                tcp.receive(made.client, 20)
                made.client.close()
                assert made.server.recv(1) == b""
                made.server.close()
                found = watch.nothing_but(made.server_port, 2)
                rows = watch.ended_rows(made.client_port, 2)
        assert found == made.ends(
            {"tx_bytes": 10, "tx_bytes_before": 10, "rx_bytes": 20, "close_reason": FIN_LOCAL, "adopted": 1},
            {"tx_bytes": 20, "rx_bytes": 10, "rx_bytes_before": 10, "close_reason": FIN_REMOTE, "adopted": 1},
        )
        assert rows["client_isn"][0] == rows["client_isn"][1] != 0
        assert rows["start_ns"].tolist() == [0, 0]

    def test_what_an_older_listener_accepts_has_an_owner_and_is_not_adopted(self):
        with tcp.listening() as listener, watching(adopt=True) as watch:
            made = tcp.connected(listener)
            made.client.close()
            made.server.close()
            assert watch.nothing_but(made.server_port, 2) == made.ends(
                {"close_reason": FIN_LOCAL}, {"close_reason": FIN_REMOTE}
            )

    def test_one_that_nobody_had_accepted_yet_is_adopted_by_who_reads_it(self):
        with (
            tcp.listening() as listener,
            socket.create_connection(listener.getsockname()) as client,
            watching(adopt=True) as watch,
        ):
            made = tcp.Connection(client, listener.accept()[0])
            client.sendall(b"x")
            tcp.receive(made.server, 1)
            client.close()
            made.server.close()
            assert watch.nothing_but(made.server_port, 2) == made.ends(
                {"tx_bytes": 1, "close_reason": FIN_LOCAL, "adopted": 1},
                {"rx_bytes": 1, "rx_bytes_before": 1, "close_reason": FIN_REMOTE, "adopted": 1},
            )

    @pytest.mark.parametrize("seen_alive", [True, False])
    def test_bytes_count_from_adoption_on(self, seen_alive):
        with connection() as made:
            made.client.sendall(b"x" * 1000)
            tcp.receive(made.server, 1000)
            with watching(adopt=True) as watch:
                count = Count(watch, made.client_port)
                made.client.sendall(b"x" * 7)
                if seen_alive:
                    count.snapshot()
                tcp.receive(made.server, 7)
                made.client.close()
                watch.ended(made.client_port, 1)
                count.ended()
        assert count.totals == {"opened": 0, "closed": 1, "tx_bytes_new": 7, "rx_bytes_new": 0}


class Count:
    """Adds up, as metrics do, what concerns the client's end with one port."""

    def __init__(self, watch, port):
        self.watch, self.port = watch, port
        self.prepare = PROBE.prepare(tcp.configuration())
        self.totals = dict.fromkeys(("opened", "closed", "tx_bytes_new", "rx_bytes_new"), 0)
        self.carried = 0

    def snapshot(self):
        return self.carry(self.watch.snapshot(), snapshot=True)

    def ended(self):
        rows = self.watch.rows()
        self.carry(rows[self.carried :], snapshot=False)
        self.carried = len(rows)

    def carry(self, rows, *, snapshot):
        batch = self.prepare(Batch(PROBE.name, rows, boottime_offset_ns(), snapshot=snapshot))
        batch = batch.select((batch.number("local_port") == self.port) & (batch.number("netns") == tcp.own_netns()))
        for name in self.totals:
            self.totals[name] += int(batch.number(name).sum())
        return len(batch)


class TestWhileItLives:
    def test_a_total_is_right_at_every_moment(self, watch):
        with connection() as made:
            count = Count(watch, made.client_port)
            for step in range(1, 4):
                made.client.sendall(b"x" * 100)
                tcp.receive(made.server, 100)
                made.server.sendall(b"y" * 10)
                tcp.receive(made.client, 10)
                assert count.snapshot() == 1
                assert count.totals == {"opened": 1, "closed": 0, "tx_bytes_new": 100 * step, "rx_bytes_new": 10 * step}
            made.client.sendall(b"x")
            tcp.receive(made.server, 1)
            made.client.close()
            watch.ended(made.client_port, 1)
            count.ended()
        assert count.totals == {"opened": 1, "closed": 1, "tx_bytes_new": 301, "rx_bytes_new": 30}
        assert count.snapshot() == 0

    def test_a_close_that_overtakes_its_snapshot_is_not_counted_twice(self, watch):
        with connection() as made:
            made.client.sendall(b"x" * 100)
            count = Count(watch, made.client_port)
            alive = watch.snapshot()
            made.client.close()
            watch.ended(made.client_port, 1)
            count.ended()
            count.carry(alive, snapshot=True)
        assert count.totals == {"opened": 1, "closed": 1, "tx_bytes_new": 100, "rx_bytes_new": 0}

    def test_one_that_several_files_and_processes_have_open_is_counted_once(self, watch):
        with connection() as made, made.client.dup(), forked():
            made.client.sendall(b"x" * 100)
            count = Count(watch, made.client_port)
            assert count.snapshot() == 1
            made.client.sendall(b"x")
            assert count.snapshot() == 1
            assert count.totals == {"opened": 1, "closed": 0, "tx_bytes_new": 101, "rx_bytes_new": 0}

    def test_one_that_is_closed_with_bytes_to_send_is_right_at_its_end(self, watch):
        """The other end reads only then; nobody has the socket open meanwhile."""
        with connection() as made:
            made.client.setblocking(False)
            sent = 0
            with contextlib.suppress(BlockingIOError):
                while True:
                    sent += made.client.send(bytes(100_000))
            count = Count(watch, made.client_port)
            count.snapshot()
            made.client.close()
            count.snapshot()
            tcp.receive(made.server, sent)
            made.server.close()
            watch.ended(made.client_port, 1)
            count.ended()
        assert count.totals == {"opened": 1, "closed": 1, "tx_bytes_new": sent, "rx_bytes_new": 0}

    def test_one_that_waits_to_be_accepted_is_right_later(self, watch):
        with tcp.listening() as listener, socket.create_connection(listener.getsockname()) as client:
            client.sendall(b"x" * 100)
            count = Count(watch, listener.getsockname()[1])
            count.snapshot()
            served = listener.accept()[0]
            tcp.receive(served, 100)
            assert count.snapshot() == 1
            assert count.totals == {"opened": 1, "closed": 0, "tx_bytes_new": 0, "rx_bytes_new": 100}
            client.close()
            served.close()
            watch.ended(listener.getsockname()[1], 2)
            count.ended()
        assert count.totals == {"opened": 1, "closed": 1, "tx_bytes_new": 0, "rx_bytes_new": 100}

    def test_listeners_and_unfinished_handshakes_are_not_in_a_snapshot(self, watch):
        with tcp.listening() as listener:
            port = listener.getsockname()[1]
            assert not (watch.snapshot()["local_port"] == port).any()

    def test_every_namespace_is_in_a_snapshot(self, watch):
        with namespace() as place, place.inside(), connection() as made:
            alive = watch.snapshot()
            mine = alive[alive["head"]["netns"] == place.inode]
        assert sorted(mine["local_port"].tolist()) == sorted([made.client_port, made.server_port])


def test_a_socket_that_is_connected_again_is_another_connection(watch):
    with tcp.listening() as listener, socket.socket() as client:
        for _ in range(2):
            client.connect(listener.getsockname())
            served = listener.accept()[0]
            client.sendall(b"x")
            count = Count(watch, client.getsockname()[1])
            count.snapshot()
            client.shutdown(socket.SHUT_RDWR)
            served.close()
            disconnect(client)
        port = listener.getsockname()[1]
        found = [end for end in watch.nothing_but(port, 4) if end["role"] == tcp.CLIENT]
    assert [end["tx_bytes"] for end in found] == [1, 1]


@contextlib.contextmanager
def forked():
    """Another process with the same files."""
    asked, asks = os.pipe()
    child = os.fork()
    if not child:
        os.close(asks)
        os.read(asked, 1)
        os._exit(0)
    os.close(asked)
    yield
    os.close(asks)
    os.waitpid(child, 0)


def disconnect(client):
    """connect() to AF_UNSPEC, which Python cannot say."""
    import ctypes  # noqa: PLC0415

    assert ctypes.CDLL(None).connect(client.fileno(), bytes(16), 16) == 0
