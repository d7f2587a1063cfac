"""What is caused in a guest. Each scene gives the truth about it: who did it, and with what ends, bytes and outcomes."""

from __future__ import annotations

import os
import signal
import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.kernels.guest.forked import Forked, Truth

if TYPE_CHECKING:
    from collections.abc import Callable

REQUEST, RESPONSE = b"x" * 1000, b"y" * 20000
REFUSING_PORT = 9
FILTERED_PORT = 7999
FILTERED = 10
FLOOD = 600
CGROUPS = Path("/sys/fs/cgroup")
NAME = b"\2db\4shop\4test\0"
ADDRESS = "192.0.2.7"
TTL_S = 60


def receive(connected: socket.socket, count: int) -> int:
    """Reads *count* bytes, or to the end."""
    received = 0
    while received < count and (chunk := connected.recv(65536)):
        received += len(chunk)
    return received


def ask(address: tuple[str, int], family: socket.AddressFamily, *, reset: bool) -> Truth:
    """A client: sends a request, reads the response to its end, which the server makes; or resets the connection."""
    with socket.socket(family) as client:
        client.connect(address)
        local = client.getsockname()[:2]
        client.sendall(REQUEST)
        received = receive(client, len(RESPONSE) + (not reset))
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return {"local": local, "sent": len(REQUEST), "received": received}


def answer(listener: socket.socket, *, reset: bool) -> Truth:
    """A server's part of one connection."""
    accepted, _ = listener.accept()
    with accepted:
        receive(accepted, len(REQUEST))
        accepted.sendall(RESPONSE)
        if reset:
            with suppress(ConnectionResetError):
                receive(accepted, 1)
    return {}


def listening(address: str, family: socket.AddressFamily, port: int = 0) -> socket.socket:
    made = socket.socket(family)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((address, port))
    made.listen()
    return made


def connection(address: str, family: socket.AddressFamily, *, prefork: bool = False, reset: bool = False) -> Truth:
    """One connection between two processes; with *prefork* another process than the one that listens answers."""

    def listen_and_answer() -> Truth:
        with listening(address, family, 0) as listener:
            os.write(tell, struct.pack("H", listener.getsockname()[1]))
            if prefork:
                return {"worker": Forked(lambda: answer(listener, reset=reset)).result()}
            return answer(listener, reset=reset)

    hear, tell = os.pipe()
    serving = Forked(listen_and_answer)
    (port,) = struct.unpack("H", os.read(hear, 2))
    client = Forked(lambda: ask((address, port), family, reset=reset)).result()
    os.close(hear)
    os.close(tell)
    return {"peer": (address, port), "reset": reset, "client": client, "server": serving.result()}


def refused_connection() -> Truth:
    def connect() -> Truth:
        with socket.socket() as client:
            return {"errno": client.connect_ex(("127.0.0.1", REFUSING_PORT))}

    return {"peer": ("127.0.0.1", REFUSING_PORT), "client": Forked(connect).result()}


def reply(query: bytes) -> bytes:
    """An address for whatever was asked."""
    record = struct.pack(">HHHIH", 0xC00C, 1, 1, TTL_S, 4) + socket.inet_aton(ADDRESS)
    return query[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + query[12:] + record


def question(number: int) -> bytes:
    return struct.pack(">HHHHHH", number, 0x0100, 1, 0, 0, 0) + NAME + b"\0\1\0\1"


def lookup_over_udp() -> Truth:
    def resolve() -> Truth:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect(("127.0.0.1", 53))
            client.send(question(1))
            return {"local": client.getsockname(), "received": len(client.recv(512))}

    def serve() -> Truth:
        query, client = server.recvfrom(512)
        server.sendto(reply(query), client)
        return {}

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 53))
        serving = Forked(serve)
    return {"client": Forked(resolve).result(), "server": serving.result()}


def lookup_over_tcp() -> Truth:
    def resolve() -> Truth:
        with socket.socket() as client:
            client.connect(("127.0.0.1", 53))
            local = client.getsockname()
            query = question(2)
            sent = client.send(struct.pack(">H", len(query)) + query)
            return {"local": local, "sent": sent, "received": receive(client, 1 << 16)}

    def serve() -> Truth:
        with listening("127.0.0.1", socket.AF_INET, 53) as listener:
            os.write(tell, b"!")
            accepted, _ = listener.accept()
            with accepted:
                answered = reply(accepted.recv(512)[2:])
                accepted.sendall(struct.pack(">H", len(answered)) + answered)
        return {}

    hear, tell = os.pipe()
    serving = Forked(serve)
    os.read(hear, 1)
    os.close(hear)
    os.close(tell)
    return {"peer": ("127.0.0.1", 53), "reset": False, "client": Forked(resolve).result(), "server": serving.result()}


def started(*words: str, before: Callable[[], object] = lambda: None) -> int:
    """A process that runs a program; its pid."""
    pid = os.fork()
    if pid == 0:
        try:
            before()
            os.execv(words[0], words)
        finally:
            os._exit(1)
    return pid


def program(*words: str, end: int = 0) -> Truth:
    """A program from its start to its end, which is brought about by the signal *end*, if there is one."""
    pid = started(*words)
    if end:
        comm = Path(f"/proc/{pid}/comm")
        while comm.read_text().strip() != Path(words[0]).name:
            os.sched_yield()
        os.kill(pid, end)
    _, status = os.waitpid(pid, 0)
    return {"pid": pid, "executable": words[0], "exit": os.waitstatus_to_exitcode(status)}


def programs() -> Truth:
    return {
        "well": program("/usr/bin/true"),
        "badly": program("/usr/bin/false"),
        "killed": program("/usr/bin/sleep", "1000", end=signal.SIGTERM),
    }


def in_container(container_id: str, work: Callable[[], Truth]) -> Truth:
    """The work done in a cgroup as a container has one, which is gone afterwards."""

    def enter_and_work() -> Truth:
        (cgroup / "cgroup.procs").write_text("0")
        return work()

    cgroup = CGROUPS / f"docker-{container_id}.scope"
    cgroup.mkdir()
    try:
        return {"container": container_id, **Forked(enter_and_work).result()}
    finally:
        cgroup.rmdir()


def container() -> Truth:
    """A container that lives for one program."""
    return in_container("a" * 64, lambda: {"program": program("/usr/bin/true")})


def flood() -> Truth:
    """Connects by one container, many more than are told one by one."""

    def connect_often() -> Truth:
        for _ in range(FLOOD):
            with socket.socket() as client:
                client.connect_ex(("127.0.0.1", REFUSING_PORT))
        return {"connects": FLOOD}

    return in_container("b" * 64, connect_often)


def filtered() -> Truth:
    """Connects to a port that the configuration leaves out."""

    def connect() -> Truth:
        for _ in range(FILTERED):
            with socket.socket() as client:
                client.connect_ex(("127.0.0.1", FILTERED_PORT))
        return {"connects": FILTERED}

    return Forked(connect).result()


def all_scenes() -> Truth:
    """One after another."""
    return {
        "netns": Path("/proc/self/ns/net").stat().st_ino,
        "pid": os.getpid(),
        "plain": connection("127.0.0.1", socket.AF_INET),
        "prefork": connection("127.0.0.1", socket.AF_INET, prefork=True),
        "ipv6": connection("::1", socket.AF_INET6),
        "reset": connection("127.0.0.1", socket.AF_INET, prefork=True, reset=True),
        "refused": refused_connection(),
        "lookup_udp": lookup_over_udp(),
        "lookup_tcp": lookup_over_tcp(),
        "programs": programs(),
        "container": container(),
        "flood": flood(),
        "filtered": filtered(),
    }
