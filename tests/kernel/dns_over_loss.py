"""Asks over several connections at once across a bad wire, in segments of all sizes; prints how many lookups there were.

Client and server have a network namespace each; between them a thread carries packets, loses some, repeats some, and
lets others overtake. Run: `python -m tests.kernel.dns_over_loss PORT SEED LOSS REPEAT OVERTAKE` (chances from 0 to 1).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import random
import socket
import struct
import subprocess
import sys
import threading
from typing import NamedTuple

import dns.message
import dns.rrset

from tests.kernel.dns_server import prefixed, question, read_message

CONNECTIONS, QUESTIONS = 6, 15
CLIENT, SERVER = "198.51.100.1", "198.51.100.2"
NEW_NETWORK = 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
PACKET_BYTES, IPV4_BYTES = 65536, 20


class Chances(NamedTuple):
    """Of a packet to be lost, to come twice, to be overtaken."""

    loss: float
    repeat: float
    overtake: float


def end_of_wire(own: str, other: str) -> int:
    """A network namespace of this process's own with one interface; what is sent there is read from the result."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEW_NETWORK):
        raise OSError(ctypes.get_errno(), "unshare")
    wire = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(wire, TUNSETIFF, struct.pack("16sH22x", b"wire", IFF_TUN | IFF_NO_PI))
    for command in (f"ip addr add {own} peer {other} dev wire", "ip link set wire up"):
        subprocess.run(command.split(), check=True)
    return wire


def carry(source: int, target: int, chances: Chances, dice: random.Random) -> None:
    waiting: list[bytes] = []
    while True:
        packet = os.read(source, PACKET_BYTES)
        bare = len(packet) <= IPV4_BYTES + (packet[IPV4_BYTES + 12] >> 4) * 4  # no payload: connections do come about
        if not bare and dice.random() < chances.loss:
            continue
        if not bare and dice.random() < chances.overtake and not waiting:
            waiting.append(packet)
            continue
        for one in [packet] * (2 if dice.random() < chances.repeat else 1) + waiting:
            os.write(target, one)
        waiting.clear()


def reply(query: bytes, dice: random.Random) -> bytes:
    response = dns.message.make_response(dns.message.from_wire(query))
    name = response.question[0].name
    texts = [f'"{"x" * 99}{i:03d}"' for i in range(dice.choice([0, 1, 2, 3, 8]))]
    response.answer.append(dns.rrset.from_text(name, 60, "IN", "TXT", *texts))
    return response.to_wire(max_size=65535)


def send_in_pieces(stream: socket.socket, message: bytes, dice: random.Random) -> None:
    while message:
        size = dice.choice([1, 2, 5, 30, 200, 1400])
        stream.send(message[:size])
        message = message[size:]


def serve(wire_to_parent: socket.socket, port: int) -> None:
    wire = end_of_wire(SERVER, CLIENT)
    listening = socket.create_server((SERVER, port), backlog=64)
    socket.send_fds(wire_to_parent, [b"w"], [wire])
    while True:
        accepted, _ = listening.accept()
        threading.Thread(target=answer, args=(accepted,), daemon=True).start()


def answer(accepted: socket.socket) -> None:
    dice = random.Random(1)
    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with accepted:
        while query := read_message(accepted):
            send_in_pieces(accepted, prefixed(reply(query, dice)), dice)


def ask(port: int, connection: int, missing: list[int]) -> None:
    dice = random.Random(connection)
    ids = range(connection * QUESTIONS, (connection + 1) * QUESTIONS)
    with socket.create_connection((SERVER, port)) as asker:
        asker.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for id_ in ids:
            send_in_pieces(asker, prefixed(question(f"n{id_}.lossy.example", "TXT", id_=id_)), dice)
        missing += [id_ for id_ in ids if not read_message(asker)]


def main() -> None:
    port, seed = int(sys.argv[1]), int(sys.argv[2])
    chances = Chances(*map(float, sys.argv[3:6]))
    here, there = socket.socketpair()
    server = os.fork()
    if not server:
        serve(there, port)
    near = end_of_wire(CLIENT, SERVER)
    _, (far,), _, _ = socket.recv_fds(here, 1, 1)
    for ends in ((near, far), (far, near)):
        threading.Thread(target=carry, args=(*ends, chances, random.Random(seed)), daemon=True).start()
    missing: list[int] = []
    askers = [threading.Thread(target=ask, args=(port, number, missing)) for number in range(CONNECTIONS)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    os.kill(server, 9)
    os.waitpid(server, 0)
    if missing:
        sys.exit(f"no answer to {missing}")
    print(CONNECTIONS * QUESTIONS)


if __name__ == "__main__":
    main()
