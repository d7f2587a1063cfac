"""Connects that fail, each told once: refused, timed out, unreachable, not allowed, no address, given up."""

from __future__ import annotations

import ctypes
import errno
import os
import select
import socket
import struct
import time

import pytest

from tests.kernel import tcp
from tests.kernel.netns import join, namespace
from tests.kernel.tcp import FAILED, watching

FAR = "198.51.100.1"
NO_ADDRESS = struct.pack("=H14x", socket.AF_UNSPEC)
NO_LINGER = struct.pack("ii", 1, 0)
DROP = "table inet t { chain c { type filter hook prerouting priority 0; meta l4proto tcp drop; }; }"
pytestmark = pytest.mark.usefixtures("place")


def failure(error, port, **differences):
    usual = {"kind": FAILED, "role": tcp.CLIENT, "error": error, "remote_port": port}
    return tcp.expected(**usual | differences)


def told(watch, port, count=1):
    """What was told of connects to *port*, without the local port, which the kernel chose or never did."""
    records = watch.nothing_but(port, count)
    for record in records:
        del record["local_port"]
    return records


def syns_repeated(watch, record):
    """Takes out how often the SYN was repeated, which is up to the kernel, but is what it sent beyond the first."""
    row = watch.ended_rows(record["remote_port"], 1)[0]
    assert record["retransmits"] == row["tx_segments"] - 1
    return record.pop("retransmits")


@pytest.fixture
def silent(place):
    """A peer that answers nothing to TCP, at FAR."""
    with namespace() as peer:
        join(place, "198.51.100.2/24", peer, f"{FAR}/24")
        peer.run("nft", "-f", "-", feed=DROP)
        yield FAR


def test_refused(watch):
    port = tcp.free_port()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    assert told(watch, port) == [failure(errno.ECONNREFUSED, port)]


@pytest.mark.parametrize(
    ("address", "seen", "family"), [("::1", "::1", 6), ("::ffff:127.0.0.1", "127.0.0.1", 4)], ids=["ipv6", "mapped"]
)
def test_refused_over_ipv6(watch, address, seen, family):
    port = tcp.free_port()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address, port))
    ends = {"local_address": seen, "remote_address": seen, "family": family}
    assert told(watch, port) == [failure(errno.ECONNREFUSED, port, **ends)]


def test_refused_without_blocking_and_asked_by_so_error(watch):
    port = tcp.free_port()
    with socket.socket() as client:
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", port))
        select.select([], [client], [], 5)
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
    assert told(watch, port) == [failure(errno.ECONNREFUSED, port)]


def test_refused_without_blocking_and_asked_by_another_connect(watch):
    port = tcp.free_port()
    with socket.socket() as client:
        client.setblocking(False)
        assert client.connect_ex(("127.0.0.1", port)) == errno.EINPROGRESS
        select.select([], [client], [], 5)
        assert client.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED
    assert told(watch, port) == [failure(errno.ECONNREFUSED, port)]


def test_one_socket_that_fails_in_two_ways_is_told_twice(watch):
    port = tcp.free_port()
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED
        assert client.connect_ex((FAR, port)) == errno.ENETUNREACH
    assert [record["error"] for record in told(watch, port, 2)] == [errno.ECONNREFUSED, errno.ENETUNREACH]


def end_by_address(client):
    assert connect_bytes(client, NO_ADDRESS) == 0


def end_by_shutdown(client):
    client.shutdown(socket.SHUT_RDWR)


def connect_bytes(client, address):
    """connect() with an address as it is; gives the error."""
    libc = ctypes.CDLL(None, use_errno=True)
    return ctypes.get_errno() if libc.connect(client.fileno(), address, len(address)) else 0


@pytest.mark.parametrize("end", [end_by_address, end_by_shutdown])
def test_one_that_was_given_up_and_fails_when_tried_again_is_told_twice(watch, silent, end):
    with socket.socket() as client:
        client.setblocking(False)
        assert client.connect_ex((silent, 80)) == errno.EINPROGRESS
        end(client)
        assert client.connect_ex(("192.0.2.1", 80)) == errno.ENETUNREACH
    assert [record["error"] for record in told(watch, 80, 2)] == [errno.ECANCELED, errno.ENETUNREACH]


def test_one_that_was_established_and_then_reset_did_not_fail(watch):
    """connect() says so when it is asked again, but the connection has been told, as one that was reset."""
    with tcp.listening() as listener, socket.socket() as client:
        client.setblocking(False)
        assert client.connect_ex(listener.getsockname()) == errno.EINPROGRESS
        server, _ = listener.accept()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        server.close()
        assert client.connect_ex(listener.getsockname()) == errno.ECONNRESET
        records = told(watch, listener.getsockname()[1], 2)
    assert [(record["kind"], record["role"], record["close_reason"]) for record in records] == [
        (tcp.CLOSED, tcp.CLIENT, tcp.RESET_REMOTE),
        (tcp.CLOSED, tcp.SERVER, tcp.RESET_LOCAL),
    ]


def test_timed_out(silent):
    """Nobody reads the ring for seconds meanwhile: the connections of a busy machine must not fill it."""
    with watching(addresses={"include": [FAR]}) as watch:
        with socket.socket() as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, 1)
            assert client.connect_ex((silent, 80)) == errno.ETIMEDOUT
        ends = {"local_address": "198.51.100.2", "remote_address": FAR}
        (record,) = told(watch, 80)
        assert record | {"retransmits": 0} == failure(errno.ETIMEDOUT, 80, **ends)
        assert syns_repeated(watch, record) >= 1


def test_given_up_by_the_application(watch, silent):
    with socket.socket() as client:
        client.setblocking(False)
        assert client.connect_ex((silent, 80)) == errno.EINPROGRESS
    ends = {"local_address": "198.51.100.2", "remote_address": FAR}
    assert told(watch, 80) == [failure(errno.ECANCELED, 80, **ends)]


def test_given_up_after_a_timeout_of_the_application(watch, silent):
    with socket.socket() as client:
        client.settimeout(0.05)
        with pytest.raises(TimeoutError):
            client.connect((silent, 80))
    assert [record["error"] for record in told(watch, 80)] == [errno.ECANCELED]
    assert watch.ended_rows(80, 1)["handshake_ns"][0] >= 50_000_000


@pytest.mark.parametrize(
    ("route", "error"),
    [
        (None, errno.ENETUNREACH),
        ("unreachable", errno.EHOSTUNREACH),
        ("prohibit", errno.EACCES),
        ("blackhole", errno.EINVAL),
    ],
)
@pytest.mark.parametrize("blocking", [True, False])
def test_no_way_there(watch, place, route, error, blocking):
    if route:
        place.run("ip", "route", "add", route, f"{FAR}/32")
    with socket.socket() as client:
        client.setblocking(blocking)
        assert client.connect_ex((FAR, 80)) == error
    assert told(watch, 80) == [failure(error, 80, local_address="0.0.0.0", remote_address=FAR)]


def test_no_way_there_over_ipv6(watch):
    with socket.socket(socket.AF_INET6) as client:
        assert client.connect_ex(("2001:db8::1", 80)) == errno.ENETUNREACH
    ends = {"local_address": "::", "remote_address": "2001:db8::1", "family": 6}
    assert told(watch, 80) == [failure(errno.ENETUNREACH, 80, **ends)]


def test_a_router_says_that_the_host_is_unreachable(watch, place):
    with namespace() as router:
        join(place, "10.1.0.2/24", router, "10.1.0.1/24")
        router.set(ipv4__ip_forward=1)
        router.run("ip", "route", "add", "unreachable", f"{FAR}/32")
        place.run("ip", "route", "add", "default", "via", "10.1.0.1")
        with socket.socket() as client:
            assert client.connect_ex((FAR, 80)) == errno.EHOSTUNREACH
    ends = {"local_address": "10.1.0.2", "remote_address": FAR}
    (record,) = told(watch, 80)
    assert record | {"retransmits": 0} == failure(errno.EHOSTUNREACH, 80, **ends)
    assert syns_repeated(watch, record) <= 2


def test_no_port_left(watch, place):
    with tcp.listening() as listener:
        place.set(ipv4__ip_local_port_range="61000 61000")
        port = listener.getsockname()[1]
        with tcp.connected(listener).client, socket.socket() as client:
            assert client.connect_ex(("127.0.0.1", port)) == errno.EADDRNOTAVAIL
        found = [record for record in told(watch, port, 1) if record["kind"] == FAILED]
    assert [record["error"] for record in found] == [errno.EADDRNOTAVAIL]
    assert found[0]["pid"] == os.getpid()


def test_what_is_no_failure_of_a_connection_is_not_told(watch, silent):
    with tcp.listening() as listener, socket.socket() as client:
        address = listener.getsockname()
        client.connect(address)
        assert client.connect_ex(address) == errno.EISCONN
        with socket.socket() as waiting:
            waiting.setblocking(False)
            waiting.connect_ex((silent, 80))
            assert waiting.connect_ex((silent, 80)) == errno.EALREADY
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        assert datagrams.connect_ex(("192.0.2.1", 80)) == errno.ENETUNREACH
    with socket.socket(socket.AF_UNIX) as local:
        assert local.connect_ex("/nowhere") == errno.ENOENT
    ipv4 = struct.pack("!HH4s", socket.htons(socket.AF_INET), 80, socket.inet_aton("192.0.2.1"))
    with socket.socket() as client, socket.socket(socket.AF_INET6) as other:
        assert connect_bytes(client, ipv4) == errno.EINVAL
        assert connect_bytes(other, ipv4.ljust(16, b"\0")) == errno.EINVAL
    time.sleep(0.1)
    failures = [row["error"] for row in watch.rows() if row["kind"] == FAILED]
    assert failures == [errno.ECANCELED]  # the one that was given up while it waited


def test_failures_are_filtered_too(place):
    port = tcp.free_port()
    with watching(exclude_self=True) as watch:
        socket.socket().connect_ex(("127.0.0.1", port))
        socket.socket().connect_ex((FAR, port))
        assert told(watch, port, 0) == []
        assert watch.count("filtered") >= 2
