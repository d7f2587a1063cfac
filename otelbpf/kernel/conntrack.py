"""New connections that this node translates, as the kernel's connection tracking tells of them over netlink.

A filter in the kernel lets only translated ones through, so what is not costs nothing here. The socket lives in the
host's network namespace, where services are translated for all pods.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

from otelbpf.kernel.netlink import ALIGNED, ATTRIBUTE, HEAD, attributes

if TYPE_CHECKING:
    from collections.abc import Iterator

OWN_NAMESPACE = Path("/proc/thread-self/ns/net")
EVENTS = Path("/proc/sys/net/netfilter/nf_conntrack_events")
"""Of the network namespace of whoever reads it."""
NETLINK_NETFILTER = 12
SOL_NETLINK, NETLINK_ADD_MEMBERSHIP = 270, 1
SO_ATTACH_FILTER, SO_RCVBUFFORCE = 26, 33
NEW_CONNECTIONS = 1
"""NFNLGRP_CONNTRACK_NEW"""
SUBSYSTEM_CONNTRACK, MESSAGE_NEW = 1, 0
FAMILY_BYTES = 4
TUPLE_ORIGINAL, TUPLE_REPLY = 1, 2
TUPLE_ADDRESSES, TUPLE_PROTOCOL = 1, 2
SOURCE4, DESTINATION4, SOURCE6, DESTINATION6 = 1, 2, 3, 4
PROTOCOL, SOURCE_PORT, DESTINATION_PORT = 1, 2, 3
STATUS, TRANSLATED = 3, 0x30
"""CTA_STATUS; IPS_SRC_NAT | IPS_DST_NAT"""
MAPPED = bytes(10) + b"\xff\xff"
BUFFER_BYTES = 4 << 20
READ_BYTES = 1 << 16
READ_AT_ONCE = 4096
"""Messages read in one tick at most: the line has other work."""
CLONE_NEWNET = 0x40000000
FILTER = (  # find the attribute STATUS; take the message if a bit of TRANSLATED is set in it
    (0x00, 0, 0, HEAD.size + FAMILY_BYTES),  # ld #offset of the first attribute
    (0x01, 0, 0, STATUS),  # ldx #STATUS
    (0x20, 0, 0, 0xFFFFF000 + 12),  # ld the offset of that attribute: SKF_AD_OFF + SKF_AD_NLATTR
    (0x15, 3, 0, 0),  # jeq #0, drop
    (0x07, 0, 0, 0),  # tax
    (0x40, 0, 0, ATTRIBUTE.size),  # ld [x + 4]
    (0x45, 1, 0, TRANSLATED),  # jset #TRANSLATED, take
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # take
)

Ends = tuple[int, bytes, int, bytes, int]
"""Protocol, local address and port, remote address and port: as a socket sees its connection."""


class Translations:
    """What the kernel tells of new translated connections. A context manager; `unavailable` says why there is nothing."""

    def __init__(self, host: Path) -> None:
        self._host = host
        self._socket: socket.socket | None = None
        self.unavailable = ""
        self.overflows = 0
        """How often the kernel told of more than was read."""

    def __enter__(self) -> Self:
        opened: list[socket.socket | OSError] = []
        opener = threading.Thread(target=lambda: opened.append(_opened(self._host)), name="conntrack")
        opener.start()  # a thread of its own: it goes into the host's namespace and never comes back
        opener.join()
        if isinstance(opened[0], socket.socket):
            self._socket = opened[0]
        else:
            self.unavailable = opened[0].strerror or str(opened[0])
        return self

    def __exit__(self, *_: object) -> None:
        if self._socket is not None:
            self._socket.close()

    def told(self) -> Iterator[tuple[Ends, Ends]]:
        """The original and the reply tuple of each connection that it has told of since the last time."""
        for _ in range(READ_AT_ONCE if self._socket is not None else 0):
            data = self._received()
            if not data:
                return
            yield from connections(data)

    def _received(self) -> bytes:
        assert self._socket is not None  # noqa: S101 - says what told has looked at
        try:
            return self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return b""
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            self.overflows += 1  # the socket goes on with what comes next
            return self._received()


def connections(data: bytes) -> Iterator[tuple[Ends, Ends]]:
    """The original and the reply tuple of each new connection in *data*; what is not whole is skipped."""
    at = 0
    while at + HEAD.size + FAMILY_BYTES <= len(data):
        size, kind, *_ = HEAD.unpack_from(data, at)
        if size < HEAD.size:
            return
        if kind >> 8 == SUBSYSTEM_CONNTRACK and kind & 0xFF == MESSAGE_NEW:
            found = attributes(data[at + HEAD.size + FAMILY_BYTES : at + size])
            original, reply = _ends(found.get(TUPLE_ORIGINAL, b"")), _ends(found.get(TUPLE_REPLY, b""))
            if original is not None and reply is not None:
                yield original, reply
        at += -(-size // ALIGNED) * ALIGNED


def _ends(content: bytes) -> Ends | None:
    parts = attributes(content)
    addresses = attributes(parts.get(TUPLE_ADDRESSES, b""))
    ports = attributes(parts.get(TUPLE_PROTOCOL, b""))
    source, destination = addresses.get(SOURCE4), addresses.get(DESTINATION4)
    if source is not None and destination is not None:
        source, destination = MAPPED + source, MAPPED + destination
    else:
        source, destination = addresses.get(SOURCE6), addresses.get(DESTINATION6)
    protocol, near, far = ports.get(PROTOCOL), ports.get(SOURCE_PORT), ports.get(DESTINATION_PORT)
    if not (source and destination and protocol and near and far) or len(source) != 16 or len(destination) != 16:
        return None
    return protocol[0], source, int.from_bytes(near, "big"), destination, int.from_bytes(far, "big")


def _opened(host: Path) -> socket.socket | OSError:
    """A socket that hears of new connections in the host's namespace, or why there is none."""
    try:
        _enter(host)
        if EVENTS.exists() and EVENTS.read_text().strip() == "0":
            return OSError(errno.EOPNOTSUPP, "net.netfilter.nf_conntrack_events is 0")
        made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    except OSError as error:
        return error
    try:
        program = b"".join(struct.pack("=HBBI", *instruction) for instruction in FILTER)
        kept = ctypes.create_string_buffer(program, len(program))
        made.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(FILTER), ctypes.addressof(kept)))
        _enlarge(made)
        made.bind((0, 0))
        made.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NEW_CONNECTIONS)
        made.setblocking(False)
    except OSError as error:
        made.close()
        return error
    return made


def _enlarge(made: socket.socket) -> None:
    try:
        made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
    except OSError:  # not allowed to force it: as much as the system's limit gives
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)


def _enter(host: Path) -> None:
    """Moves this thread into the host's network namespace, if it is not there.

    Without CAP_SYS_PTRACE nobody sees which that is: then it is taken for ours, as it is with hostNetwork.
    """
    try:
        there = host.stat().st_ino
    except PermissionError:
        return
    if there == OWN_NAMESPACE.stat().st_ino:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(host, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(descriptor, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(descriptor)
