"""A program that talks TCP as it is told, one JSON command a line on stdin, one JSON answer a line on stdout.

    {"do": "connect", "address": "10.0.0.2", "port": 80, "family": 4}   → {"number": 0, "local": ["10.0.0.1", 40000]}

Run as a process of its own (see `processes.Talker`), so that both ends of a connection have owners of their own.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
from typing import Any

CHUNK = b"x" * 65536
sockets: dict[int, socket.socket] = {}
Answer = dict[str, Any]


def keep(new: socket.socket) -> Answer:
    sockets[len(sockets)] = new
    return {"number": len(sockets) - 1, "local": new.getsockname()[:2]}


def listen(address: str, port: int = 0, family: int = 4) -> Answer:
    new = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6)
    new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    new.bind((address, port))
    new.listen()
    return keep(new)


def connect(address: str, port: int, family: int = 4) -> Answer:
    new = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6)
    new.connect((address, port))
    return keep(new)


def accept(number: int) -> Answer:
    new, peer = sockets[number].accept()
    return {**keep(new), "peer": peer[:2]}


def send(number: int, count: int) -> Answer:
    while count:
        count -= sockets[number].send(CHUNK[: min(count, len(CHUNK))])
    return {}


def receive(number: int, count: int) -> Answer:
    while count:
        got = len(sockets[number].recv(min(count, len(CHUNK))))
        if not got:
            raise EOFError(f"{count} bytes short")
        count -= got
    return {}


def receive_end(number: int) -> Answer:
    return {"end": sockets[number].recv(1) == b""}


def shut(number: int) -> Answer:
    sockets[number].shutdown(socket.SHUT_WR)
    return {}


def close(number: int) -> Answer:
    sockets[number].close()
    return {}


def reset(number: int) -> Answer:
    sockets[number].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sockets[number].close()
    return {}


def resolve(name: str) -> Answer:
    return {"addresses": sorted({found[4][0] for found in socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)})}


COMMANDS = {
    function.__name__: function
    for function in (listen, connect, accept, send, receive, receive_end, shut, close, reset, resolve)
}


def main() -> None:
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer: Answer = COMMANDS[command.pop("do")](**command)
        except OSError as error:
            answer = {"error": error.errno, "text": str(error)}
        print(json.dumps(answer), flush=True)


main()
