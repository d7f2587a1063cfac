"""A full table or ring loses, and says so; one cgroup cannot take the room of others."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from otelbpf.kernel.attach import attach
from otelbpf.kernel.features import cgroup2_mount
from otelbpf.probes.dns_lookup import PROBE
from tests.kernel.dns_asking import TIMEOUT_S, balance, config, told_of, udp
from tests.kernel.dns_server import Server, question
from tests.kernel.feed import Feed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


class TestFlood:
    ROOM = 64
    SHARE = ROOM // 4

    @pytest.fixture
    def cgroups(self) -> Iterator[list[Path]]:
        made = [cgroup2_mount() / f"otelbpf-test-{os.getpid()}-{name}" for name in ("flood", "neighbour")]
        for path in made:
            path.mkdir()
        yield made
        for path in made:
            path.rmdir()

    @staticmethod
    def ask_from(cgroup: Path, port: int, label: str, count: int) -> None:
        """Asks *count* questions of a port where nobody listens."""
        script = f"""
import os, socket
open("{cgroup}/cgroup.procs", "w").write(str(os.getpid()))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
    for number in range({count}):
        name = b"{label}%03d" % number
        asker.sendto(number.to_bytes(2, "big") + b"\\1\\0\\0\\1" + bytes(6) + bytes([len(name)]) + name + b"\\0\\0\\1\\0\\1",
                     ("127.0.0.1", {port}))
"""
        subprocess.run([sys.executable, "-c", script], check=True)

    def test_the_neighbour_keeps_its_share(self, cgroups):
        flood, neighbour = cgroups
        with udp("127.0.0.1") as closed:
            port = closed.getsockname()[1]
        with attach(PROBE, config(port, ports=(port,), max_pending=self.ROOM)) as attached:
            feed = Feed(attached)
            self.ask_from(flood, port, "flood", 3 * self.ROOM)
            assert feed.count("seen") == 3 * self.ROOM
            assert feed.count("pending_full") == 3 * self.ROOM - self.SHARE
            self.ask_from(neighbour, port, "calm", self.SHARE)
            assert feed.count("pending_full") == 3 * self.ROOM - self.SHARE
            assert feed.count("pending") == 2 * self.SHARE
            balance(feed)
            time.sleep(TIMEOUT_S)
            attached.sweep()
            assert feed.count("pending") == 0
            owners = [row["head"]["cgroup_id"] for row in feed.rows()]
            assert [owners.count(path.stat().st_ino) for path in cgroups] == [self.SHARE, self.SHARE]
            balance(feed)
            self.ask_from(flood, port, "later", self.SHARE)  # there is room again
            assert feed.count("pending") == self.SHARE

    def test_a_retry_needs_no_room(self):
        with udp("127.0.0.1") as closed:
            port = closed.getsockname()[1]
        with udp("127.0.0.1") as asker, attach(PROBE, config(port, ports=(port,), max_pending=self.ROOM)) as attached:
            feed = Feed(attached)
            for id_ in [*range(self.SHARE), 0]:
                asker.sendto(question("room.example", id_=id_), ("127.0.0.1", port))
            assert [feed.count(term) for term in ("seen", "pending", "pending_full")] == [self.SHARE, self.SHARE, 0]
            asker.sendto(question("room.example", id_=self.SHARE), ("127.0.0.1", port))
            assert feed.count("pending_full") == 1
            records = told_of(feed, "room", self.SHARE, sweep=True)
            assert sorted(record["retries"] for record in records) == [0] * (self.SHARE - 1) + [1]
            balance(feed)

    def test_what_is_filtered_takes_no_room_and_is_not_lost(self):
        with udp("127.0.0.1") as closed:
            port = closed.getsockname()[1]
        settings = config(port, ports=(port,), max_pending=self.ROOM, exclude_self=True)
        with udp("127.0.0.1") as asker, attach(PROBE, settings, knobs={"self_pid": os.getpid()}) as attached:
            feed = Feed(attached)
            for id_ in range(2 * self.ROOM):
                asker.sendto(question("own.example", id_=id_), ("127.0.0.1", port))
            counted = [feed.count(term) for term in ("seen", "filtered", "pending", "pending_full")]
            assert counted == [2 * self.ROOM, 2 * self.ROOM, 0, 0]

    def test_a_full_ring_is_counted(self, server):
        with attach(PROBE, config(server.port, ports=(server.port,), ring_size=4096)) as attached:
            feed = Feed(attached)
            with udp("127.0.0.1", server.port) as asker:
                for id_ in range(20):
                    asker.send(question("ring.example", id_=id_))
                    asker.recv(4096)
            lost = feed.count("ring_full")
            assert lost > 0
            assert len(feed.rows()) == feed.count("seen") - lost
            balance(feed)

    def test_a_timeout_that_finds_a_full_ring_is_counted(self, server):
        with attach(PROBE, config(server.port, ports=(server.port,), ring_size=4096)) as attached:
            feed = Feed(attached)
            with udp("127.0.0.1", server.port) as asker:
                for id_ in range(20):
                    asker.send(question("silent.ring.example", id_=id_))
            time.sleep(TIMEOUT_S + 0.1)
            attached.sweep()
            assert feed.count("ring_full") > 0
            balance(feed)
