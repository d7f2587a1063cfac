"""Who a connection is told of: the client that called connect, the worker that serves, never the one next to it."""

from __future__ import annotations

import os
import select
import socket
import struct
from pathlib import Path

import pytest

from tests.kernel import tcp, uring
from tests.kernel.tcp import connection

NO_LINGER = struct.pack("ii", 1, 0)
MPTCP = 262
pytestmark = pytest.mark.usefixtures("place")


def served_by(watch, serve, talk=lambda client: client.recv(1)):
    """The pid of a child that does *serve* with the listener, and the record of the server's end, after *talk*."""
    with tcp.listening() as listener:
        with tcp.child(lambda: serve(listener)) as worker, socket.create_connection(listener.getsockname()) as client:
            port = client.getsockname()[1]
            talk(client)
        client_end, server_end = watch.nothing_but(port, 2)
    assert (client_end["pid"], client_end["role"]) == (os.getpid(), tcp.CLIENT)
    assert server_end["role"] == tcp.SERVER
    return worker, server_end


def test_the_worker_that_serves_not_the_parent_that_listens(watch):
    with tcp.listening() as listener:

        def serve():
            served = listener.accept()[0]
            served.sendall(served.recv(10))
            served.close()

        with tcp.child(serve) as worker:
            client = socket.create_connection(listener.getsockname())
            client.sendall(b"x")
            assert client.recv(10) == b"x"
            port = client.getsockname()[1]
            assert client.recv(10) == b""
            client.close()
    ours, theirs = watch.nothing_but(port, 2)
    assert (ours["pid"], ours["role"]) == (os.getpid(), tcp.CLIENT)
    assert (theirs["pid"], theirs["role"]) == (worker, tcp.SERVER)


def test_the_listener_when_nobody_reads_or_writes(watch):
    with connection() as made:
        pass
    assert [end["pid"] for end in watch.nothing_but(made.server_port, 2)] == [os.getpid()] * 2


def test_a_process_that_only_looks_hands_on(watch):
    with connection() as made:
        made.client.sendall(b"x")
        made.server.recv(1, socket.MSG_PEEK)
        with tcp.child(lambda: made.server.recv(1)) as worker:
            pass
    assert watch.ended(made.server_port, 2)[1]["pid"] == worker


def test_a_process_that_lives_for_an_instant(watch):
    with tcp.listening() as listener:
        with tcp.child(lambda: socket.create_connection(listener.getsockname()).sendall(b"x")) as client:
            pass
        with listener.accept()[0] as served:
            assert served.recv(10) == b"x"
            assert served.recv(10) == b""
        port = listener.getsockname()[1]
    assert [end["pid"] for end in watch.ended(port, 2)] == [client, os.getpid()]


class TestWorkersThatNeitherReadNorWrite:
    """As far as the kernel tells of it."""

    def test_who_accepts_and_closes(self, watch):
        worker, end = served_by(watch, lambda listener: listener.accept()[0].close())
        assert (end["pid"], end["close_reason"]) == (worker, tcp.FIN_LOCAL)

    def test_who_exits_with_it(self, watch):
        def serve(listener):
            _served = listener.accept()[0]
            os._exit(0)

        worker, end = served_by(watch, serve)
        assert (end["pid"], end["close_reason"]) == (worker, tcp.FIN_LOCAL)

    def test_who_resets_it(self, watch):
        def serve(listener):
            served = listener.accept()[0]
            served.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
            served.close()

        def talk(client):
            with pytest.raises(ConnectionResetError):
                client.recv(1)

        worker, end = served_by(watch, serve, talk)
        assert (end["pid"], end["close_reason"]) == (worker, tcp.RESET_LOCAL)

    def test_who_splices_what_comes(self, watch):
        def serve(listener):
            served = listener.accept()[0]
            out, into = os.pipe()
            while count := os.splice(served.fileno(), into, 1 << 16):
                os.read(out, count)
            served.close()

        def talk(client):
            client.sendall(b"x" * 5000)
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""

        worker, end = served_by(watch, serve, talk)
        assert (end["pid"], end["rx_bytes"], end["close_reason"]) == (worker, 5000, tcp.FIN_REMOTE)

    def test_the_listener_for_those_that_nobody_accepted(self, watch):
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        with socket.create_connection(listener.getsockname()) as client:
            listener.close()
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        server = watch.nothing_but(port, 2)[1]
        assert (server["pid"], server["close_reason"], server["tx_resets"]) == (os.getpid(), tcp.RESET_LOCAL, 1)


def test_who_sends_a_file(watch):
    def serve(listener):
        served = listener.accept()[0]
        with Path(__file__).open("rb") as file:
            os.sendfile(served.fileno(), file.fileno(), 0, 100)
        os._exit(0)

    worker, end = served_by(watch, serve, lambda client: tcp.receive(client, 100))
    assert (end["pid"], end["tx_bytes"]) == (worker, 100)


@pytest.mark.parametrize("kernel_polls", [False, True], ids=["submitted", "polled"])
@pytest.mark.parametrize("first", [uring.RECV, uring.SEND], ids=["receives", "sends"])
def test_who_uses_io_uring_only(watch, first, kernel_polls):
    """The peer resets, so that nothing is learnt from a close."""

    def serve(listener):
        served = listener.accept()[0]
        assert uring.Ring(kernel_polls=kernel_polls).done(first, served.fileno(), bytearray(b"y" * 10)) == 10
        os.write(done, b"x")
        assert os.read(was_reset, 1) == b"x"
        os._exit(0)

    def talk(client):
        if first == uring.RECV:
            client.sendall(b"x" * 10)
        else:
            tcp.receive(client, 10)
        assert os.read(is_done, 1) == b"x"
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        client.close()
        os.write(has_reset, b"x")

    (is_done, done), (was_reset, has_reset) = os.pipe(), os.pipe()
    worker, end = served_by(watch, serve, talk)
    assert (end["pid"], end["close_reason"]) == (worker, tcp.RESET_REMOTE)


def test_workers_with_listeners_of_their_own_on_one_port(watch):
    (is_ready, ready), (ends, end) = os.pipe(), os.pipe()
    with sharing(0) as first:
        port = first.getsockname()[1]

        def serve():
            with sharing(port) as listener:
                listener.listen()
                os.write(ready, b"x")
                while ends not in select.select([listener, ends], [], [])[0]:
                    with listener.accept()[0] as served:
                        served.sendall(b"%20d" % os.getpid())
                        assert served.recv(1) == b""
                os.read(ends, 1)

        with tcp.child(serve), tcp.child(serve):
            assert os.read(is_ready, 1) + os.read(is_ready, 1) == b"xx"
            truth = dict(asked(port) for _ in range(20))
            os.write(end, b"xx")
        rows = watch.ended_rows(port, 2 * len(truth))
    servers = rows[rows["role"] == tcp.SERVER]
    assert len(set(truth.values())) == 2
    assert dict(zip(servers["remote_port"].tolist(), servers["head"]["pid"].tolist(), strict=True)) == truth


def sharing(port):
    """A socket on *port* that others may have, too; port 0: any."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1", port))
    return made


def asked(port):
    """Its port, and the worker that answered."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        return client.getsockname()[1], int(client.recv(20))


def test_a_child_that_was_forked_between_accept_and_read(watch):
    with tcp.listening() as listener, socket.create_connection(listener.getsockname()) as client:
        served = listener.accept()[0]
        with tcp.child(lambda: served.recv(1)) as worker:
            served.close()
            client.send(b"x")
        port = client.getsockname()[1]
    assert watch.ended(port, 2)[1]["pid"] == worker


def test_a_process_that_was_handed_the_socket(watch):
    near, far = socket.socketpair()

    def serve():
        (descriptor,) = socket.recv_fds(far, 1, 1)[1]
        socket.socket(fileno=descriptor).recv(1)

    with tcp.listening() as listener, socket.create_connection(listener.getsockname()) as client:
        with tcp.child(serve) as worker, listener.accept()[0] as served:
            socket.send_fds(near, [b"x"], [served.fileno()])
            client.send(b"x")
        port = client.getsockname()[1]
    assert watch.ended(port, 2)[1]["pid"] == worker


class TestMultipath:
    def test_the_worker_for_a_plain_client_of_a_server_that_offers_it(self, watch):
        worker, client_end, server_end = multipath(watch, 0)
        assert (client_end["pid"], server_end["pid"]) == (os.getpid(), worker)

    def test_the_listener_for_a_connection_that_is_one_of_several_paths(self, watch):
        _worker, client_end, server_end = multipath(watch, MPTCP)
        assert (client_end["pid"], server_end["pid"]) == (os.getpid(), os.getpid())


def multipath(watch, protocol):
    """The pid of a worker that serves Multipath TCP to a client of *protocol*, and both ends of the connection."""
    try:
        listener = socket.socket(proto=MPTCP)
    except OSError as error:
        pytest.skip(f"no Multipath TCP: {error.strerror}")
    with listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def serve():
            served = listener.accept()[0]
            tcp.receive(served, 100)
            served.sendall(b"y" * 7)
            assert served.recv(1) == b""

        with tcp.child(serve) as worker, socket.socket(proto=protocol) as client:
            client.connect(listener.getsockname())
            client.sendall(b"x" * 100)
            tcp.receive(client, 7)
        client_end, server_end = watch.nothing_but(listener.getsockname()[1], 2)
    assert [(end["tx_bytes"], end["rx_bytes"]) for end in (client_end, server_end)] == [(100, 7), (7, 100)]
    return worker, client_end, server_end
