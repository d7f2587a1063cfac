"""The addresses of this node, asked of the kernel by one rtnetlink dump (`ip address`, without the tool)."""

from __future__ import annotations

import socket
import struct

from otelbpf.kernel.netlink import ALIGNED, HEAD, attributes

RTM_GETADDR, RTM_NEWADDR = 22, 20
NLM_F_REQUEST_DUMP = 0x301
NLMSG_ERROR, NLMSG_DONE = 2, 3
IFA_ADDRESS, IFA_LOCAL = 1, 2
ADDRESS_HEAD = struct.Struct("=BBBBI")
REPLY_BYTES = 1 << 16
MAPPED = bytes(10) + b"\xff\xff"


def interface_addresses() -> frozenset[bytes]:
    """The addresses of all interfaces of this network namespace, IPv4 ones mapped; none when the kernel will not say."""
    found: set[bytes] = set()
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as netlink:
            size = HEAD.size + ADDRESS_HEAD.size
            netlink.send(
                HEAD.pack(size, RTM_GETADDR, NLM_F_REQUEST_DUMP, 1, 0) + ADDRESS_HEAD.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
            )
            while take_addresses(netlink.recv(REPLY_BYTES), found):
                pass
    except OSError:
        return frozenset(found)
    return frozenset(found)


def take_addresses(reply: bytes, found: set[bytes]) -> bool:
    """Adds the addresses in one reply of the dump to *found*; False when it was the last one."""
    at = 0
    while at + HEAD.size <= len(reply):
        size, kind, *_ = HEAD.unpack_from(reply, at)
        if kind in (NLMSG_DONE, NLMSG_ERROR) or size < HEAD.size:
            return False
        if kind == RTM_NEWADDR:
            address = _address(reply[at + HEAD.size + ADDRESS_HEAD.size : at + size])
            if address:
                found.add(address if len(address) == 16 else MAPPED + address)
        at += -(-size // ALIGNED) * ALIGNED
    return bool(reply)


def _address(content: bytes) -> bytes:
    """IFA_LOCAL where there is one: on a point-to-point link IFA_ADDRESS is the other end."""
    values = attributes(content)
    return values.get(IFA_LOCAL) or values.get(IFA_ADDRESS, b"")
