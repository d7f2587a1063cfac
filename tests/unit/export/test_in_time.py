"""The time to connect is that of all addresses of a name together."""

from __future__ import annotations

import socket

import pytest
import urllib3.util.connection

from otelbpf.export.in_time import Connections

WHOLE_S = 8.0
DEAD = ("127.0.0.11", "127.0.0.12", "127.0.0.13")


@pytest.fixture
def several_addresses(monkeypatch):
    """A name of which nothing listens at all addresses but the last; gives what each connect was allowed, in seconds."""
    resolve, connect = socket.getaddrinfo, urllib3.util.connection.create_connection
    allowed_s = []

    def resolved(host, port, *more, **named):
        hosts = (*DEAD, "127.0.0.1") if host == "collector.example" else (host,)
        return [found for one in hosts for found in resolve(one, port, *more, **named)]

    def connected(address, timeout, **named):
        allowed_s.append(timeout)
        return connect(address, timeout, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    monkeypatch.setattr(urllib3.connection.connection, "create_connection", connected)
    return allowed_s


def test_each_address_has_its_share_and_what_follows_has_the_whole(several_addresses):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        made = Connections("collector.example", port, timeout=WHOLE_S)._new_conn()
        made.timeout = WHOLE_S
        made.connect()
        assert made.sock.getpeername() == ("127.0.0.1", port)
        assert made.sock.gettimeout() == made.timeout == WHOLE_S
        made.close()
    assert several_addresses == [WHOLE_S / 4]


def test_a_name_that_is_none_is_said_to_be_none():
    pool = Connections("nowhere.invalid", 80, timeout=WHOLE_S, retries=False)
    with pytest.raises(urllib3.exceptions.NameResolutionError):
        pool.request("GET", "/")
