"""What TCP can do but seldom does, and a load in which every record is compared with what the applications know."""

from __future__ import annotations

import errno
import os
import random
import select
import signal
import socket
import struct
import threading
import time

import pytest

from tests.kernel import tcp
from tests.kernel.netns import join, namespace
from tests.kernel.tcp import FIN_LOCAL, FIN_REMOTE, RESET_LOCAL, RESET_REMOTE, connection, watching

ONE, OTHER = "10.9.0.1", "10.9.0.2"
DROP = "table inet t { chain c { type filter hook prerouting priority 0; meta l4proto tcp drop; }; }"
ONLY_SYNS = "table inet t { chain c { type filter hook prerouting priority 0; tcp flags & (syn | ack) != syn drop; }; }"
NO_LINGER = struct.pack("ii", 1, 0)
LOSE = "table inet t { chain c { type filter hook prerouting priority 0; meta l4proto tcp numgen random mod 100 < 3 drop; }; }"
FASTOPEN_CONNECT_FLAG = 0x20000000
REPLY_PATIENCE_S = 10.0
SYN_RECEIVED = 3


@pytest.fixture
def pair(place):
    """Two joined namespaces, ONE and OTHER."""
    with namespace() as one, namespace() as other:
        join(one, f"{ONE}/24", other, f"{OTHER}/24")
        yield one, other


@pytest.fixture
def watch_pair(pair):
    """Of these two only: a test that takes its time must not lose what it waits for to the load of a busy machine."""
    with watching(addresses={"include": [ONE, OTHER]}) as attached:
        attached.namespaces = tuple(place.inode for place in pair)
        yield attached


def between(pair):
    """A connection from ONE to OTHER."""
    one, other = pair
    with other.inside(), socket.create_server((OTHER, 0)) as listener, one.inside():
        return tcp.connected(listener, OTHER)


def bytes_and_ends(records):
    return [(end["role"], end["tx_bytes"], end["rx_bytes"], end["close_reason"], end["error"]) for end in records]


def test_both_close_at_once(watch_pair, pair):
    made = between(pair)
    for place in pair:
        place.run("nft", "-f", "-", feed=DROP)
    made.client.close()
    made.server.close()
    for place in pair:
        place.run("nft", "delete", "table", "inet", "t")
    assert bytes_and_ends(watch_pair.nothing_but(made.server_port, 2)) == [
        (tcp.CLIENT, 0, 0, FIN_LOCAL, 0),
        (tcp.SERVER, 0, 0, FIN_LOCAL, 0),
    ]


def bound_behind(pair, ports, rules):
    """A socket in each namespace, bound to its port and not blocking, behind the firewall's rules of that side."""
    ends = []
    for place, address, port, rule in zip(pair, (ONE, OTHER), ports, rules, strict=True):
        place.run("nft", "-f", "-", feed=rule)
        with place.inside():
            ends.append(socket.socket())
        ends[-1].bind((address, port))
        ends[-1].setblocking(False)
    return ends


def test_both_connect_at_once_and_both_are_clients(watch_pair, pair):
    ends = one, other = bound_behind(pair, (7001, 7002), (DROP, DROP))
    assert one.connect_ex((OTHER, 7002)) == other.connect_ex((ONE, 7001)) == errno.EINPROGRESS
    for place in pair:
        place.run("nft", "delete", "table", "inet", "t")
    for end in ends:
        assert select.select([], [end], [], REPLY_PATIENCE_S)[1]
        end.setblocking(True)
    one.sendall(b"x" * 10)
    tcp.receive(other, 10)
    one.close()
    assert other.recv(1) == b""
    other.close()
    assert sorted(bytes_and_ends(watch_pair.nothing_but(7001, 2)), key=lambda end: end[1]) == [
        (tcp.CLIENT, 0, 10, FIN_REMOTE, 0),
        (tcp.CLIENT, 10, 0, FIN_LOCAL, 0),
    ]


def test_both_connect_at_once_and_neither_is_answered(watch_pair, pair):
    ends = one, other = bound_behind(pair, (7004, 7005), (ONLY_SYNS, DROP))
    with one, other:
        assert one.connect_ex((OTHER, 7005)) == other.connect_ex((ONE, 7004)) == errno.EINPROGRESS
        assert wait_for_state(one, SYN_RECEIVED)
        for end in ends:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    records = watch_pair.nothing_but(7004, 2)
    assert sorted((end["kind"], end["role"], end["local_port"], end["error"]) for end in records) == [
        (tcp.FAILED, tcp.CLIENT, 7004, errno.ECANCELED),
        (tcp.FAILED, tcp.CLIENT, 7005, errno.ECANCELED),
    ]


def wait_for_state(end, state):
    """Whether *end* comes to be in *state*, in a while."""
    deadline = time.monotonic() + REPLY_PATIENCE_S
    while time.monotonic() < deadline:
        if end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == state:
            return True
        time.sleep(0.01)
    return False


def test_a_socket_that_connects_to_itself(watch):
    with socket.socket() as client:
        client.bind(("127.0.0.1", 7003))
        client.connect(("127.0.0.1", 7003))
        client.sendall(b"x" * 10)
        tcp.receive(client, 10)
    assert bytes_and_ends(watch.nothing_but(7003, 1)) == [(tcp.CLIENT, 10, 10, FIN_LOCAL, 0)]


@pytest.mark.parametrize("taken", [True, False], ids=["data taken", "data sent again"])
def test_data_with_the_syn(watch, place, taken):
    place.set(ipv4__tcp_fastopen=1027)
    with tcp.listening() as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 5)
        port = listener.getsockname()[1]
        for known in (False, True):
            if known and not taken:
                place.set(ipv4__tcp_fastopen=1)
            with socket.socket() as client:
                assert client.sendto(b"x" * 100, FASTOPEN_CONNECT_FLAG, ("127.0.0.1", port)) == 100
                with listener.accept()[0] as served:
                    tcp.receive(served, 100)
                    served.sendall(b"y" * 7)
                    tcp.receive(client, 7)
                    client.close()
                    assert served.recv(1) == b""
    ends = [(tcp.CLIENT, 100, 7, FIN_LOCAL, 0)] * 2 + [(tcp.SERVER, 7, 100, FIN_REMOTE, 0)] * 2
    assert bytes_and_ends(watch.nothing_but(port, 4)) == ends


def test_data_with_a_syn_that_is_refused(watch, place):
    place.set(ipv4__tcp_fastopen=1027)
    port = tcp.free_port()
    with socket.socket() as client, pytest.raises(ConnectionRefusedError):
        client.sendto(b"x", FASTOPEN_CONNECT_FLAG, ("127.0.0.1", port))
    (record,) = watch.nothing_but(port, 1)
    assert (record["kind"], record["error"]) == (tcp.FAILED, errno.ECONNREFUSED)


def test_the_same_ports_again_while_the_last_connection_waits(place):
    with watching(ports={"include": [7004]}) as watch, tcp.listening() as listener:
        for _ in range(2):
            with socket.socket() as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                client.bind(("127.0.0.1", 7004))
                client.connect(listener.getsockname())
                with listener.accept()[0] as served:
                    client.sendall(b"x" * 5)
                    tcp.receive(served, 5)
                    client.close()
                    assert served.recv(1) == b""
            time.sleep(1.1)  # the kernel reuses what has waited for a second
        ends = [(tcp.CLIENT, 5, 0, FIN_LOCAL, 0)] * 2 + [(tcp.SERVER, 0, 5, FIN_REMOTE, 0)] * 2
        assert bytes_and_ends(watch.nothing_but(7004, 4)) == ends


def test_bytes_are_exact_where_packets_are_lost(watch_pair, pair):
    size = 20_000_000
    made = between(pair)
    for place in pair:
        place.run("nft", "-f", "-", feed=LOSE)
    receiver = threading.Thread(target=tcp.receive, args=(made.server, size))
    receiver.start()
    made.client.sendall(bytes(size))
    receiver.join()
    for place in pair:
        place.run("nft", "delete", "table", "inet", "t")
    made.client.close()
    assert made.server.recv(1) == b""
    made.server.close()
    client, server = watch_pair.nothing_but(made.server_port, 2)
    assert bytes_and_ends([client, server]) == [
        (tcp.CLIENT, size, 0, FIN_LOCAL, 0),
        (tcp.SERVER, 0, size, FIN_REMOTE, 0),
    ]
    assert client["retransmits"] > 0


def test_a_window_that_stays_shut(watch):
    with connection() as made:
        made.client.setblocking(False)
        sent = 0
        try:
            while True:
                sent += made.client.send(bytes(10_000))
        except BlockingIOError:
            pass
        for _ in range(50):
            time.sleep(0.01)  # the kernel asks in vain meanwhile
            watch.rows()
        made.client.shutdown(socket.SHUT_WR)
        tcp.receive(made.server, sent)
        made.server.close()
    assert bytes_and_ends(watch.nothing_but(made.server_port, 2)) == [
        (tcp.CLIENT, sent, 0, FIN_LOCAL, 0),
        (tcp.SERVER, 0, sent, FIN_REMOTE, 0),
    ]


def test_an_administrator_ends_it(watch, place):
    with connection() as made:
        made.client.sendall(b"x" * 3)
        tcp.receive(made.server, 3)
        place.run("ss", "-K", "sport", "=", str(made.client_port))
        if select.select([made.server], [], [], 1)[0] == []:
            pytest.skip("this kernel ends no sockets for others (CONFIG_INET_DIAG_DESTROY)")
        assert bytes_and_ends(watch.nothing_but(made.server_port, 2)) == [
            (tcp.CLIENT, 3, 0, RESET_LOCAL, errno.ECONNRESET),
            (tcp.SERVER, 0, 3, RESET_REMOTE, errno.ECONNRESET),
        ]


def test_a_client_that_is_killed(watch):
    with tcp.listening() as listener:
        pid = os.fork()
        if not pid:
            _client = socket.create_connection(listener.getsockname())
            signal.pause()
        with listener.accept()[0] as served:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            assert served.recv(1) == b""
        client, server = watch.nothing_but(listener.getsockname()[1], 2)
    assert (client["pid"], client["close_reason"]) == (pid, FIN_LOCAL)
    assert (server["pid"], server["close_reason"]) == (os.getpid(), FIN_REMOTE)


def test_a_namespace_whose_name_is_gone(watch):
    with namespace() as gone:
        watch.namespaces = (gone.inode,)
        with gone.inside(), tcp.listening() as listener:
            made = tcp.connected(listener)
    made.client.sendall(b"x" * 5)
    tcp.receive(made.server, 5)
    made.client.close()
    assert made.server.recv(1) == b""
    made.server.close()
    assert bytes_and_ends(watch.nothing_but(made.server_port, 2)) == [
        (tcp.CLIENT, 5, 0, FIN_LOCAL, 0),
        (tcp.SERVER, 0, 5, FIN_REMOTE, 0),
    ]


def test_every_record_of_a_load_is_what_the_applications_know(watch):
    """Client processes and forked workers, sizes and closing order by chance; each side says what it did."""
    said, say = os.pipe()
    with tcp.listening() as listener:
        listener.listen(100)
        here = listener.getsockname()
        workers = [forked(lambda: serve(listener, say)) for _ in range(WORKERS)]
        clients = [forked(lambda seed=seed: talk(here, say, random.Random(seed))) for seed in range(CLIENTS)]
        truth = []
        while len(truth) < 2 * CLIENTS * EACH:
            truth.append(TRUTH.unpack(os.read(said, TRUTH.size)))
            watch.rows()  # a busy machine would fill the ring meanwhile
        for pid in workers:
            os.kill(pid, signal.SIGTERM)
        for pid in (*workers, *clients):
            os.waitpid(pid, 0)
        rows = watch.ended_rows(here[1], len(truth))
    port = {tcp.CLIENT: "local_port", tcp.SERVER: "remote_port"}
    told = [
        (
            row["role"],
            row["head"]["pid"],
            row[port[int(row["role"])]],
            row["tx_bytes"],
            row["rx_bytes"],
            row["close_reason"],
        )
        for row in rows
    ]
    assert sorted(tuple(map(int, row)) for row in told) == sorted(truth)


WORKERS, CLIENTS, EACH = 3, 4, 100
TRUTH = struct.Struct("<6I")
"""Role, pid, the client's port, bytes sent and received, how it ended: written whole, as it is shorter than PIPE_BUF."""
ORDER = struct.Struct("<II?")
"""What a client asks for: bytes that it sends, bytes that it wants, whether the server closes first."""


def forked(action):
    if pid := os.fork():
        return pid
    try:
        action()
    finally:
        os._exit(0)


def talk(here, say, chance):
    for _ in range(EACH):
        sends, wants, server_first = chance.randrange(70_000), chance.randrange(70_000), chance.random() < 0.5
        with socket.create_connection(here) as client:
            port = client.getsockname()[1]
            client.sendall(ORDER.pack(sends, wants, server_first) + bytes(sends))
            tcp.receive(client, wants)
            if server_first:
                assert client.recv(1) == b""
        ended = FIN_REMOTE if server_first else FIN_LOCAL
        os.write(say, TRUTH.pack(tcp.CLIENT, os.getpid(), port, ORDER.size + sends, wants, ended))


def serve(listener, say):
    while True:
        served, (_, port) = listener.accept()
        with served:
            sends, wants, server_first = ORDER.unpack(served.recv(ORDER.size, socket.MSG_WAITALL))
            tcp.receive(served, sends)
            served.sendall(bytes(wants))
            if not server_first:
                assert served.recv(1) == b""
        ended = FIN_LOCAL if server_first else FIN_REMOTE
        os.write(say, TRUTH.pack(tcp.SERVER, os.getpid(), port, wants, ORDER.size + sends, ended))
