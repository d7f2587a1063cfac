"""What the tests of dns_lookup have in common: settings, sockets that ask, and what the probe told of a question."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING, Any

import msgspec

from otelbpf.config import Config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel.feed import Feed

TIMEOUT_S, PATIENCE_S = 0.5, 10.0


def config(port: int, *, exclude_self: bool = False, **settings: Any) -> Config:
    default = Config()
    replace = msgspec.structs.replace
    lookup = replace(default.probes.dns_lookup, **{"ports": (port,), "timeout": TIMEOUT_S, **settings})
    return replace(
        default,
        filters=replace(default.filters, exclude_self=exclude_self),
        probes=replace(default.probes, dns_lookup=lookup),
    )


def balance(feed: Feed) -> None:
    """The ledger of the probe: nothing is lost in silence."""
    told = len(feed.rows())
    others = ("filtered", "throttled", "ring_full", "pending_full", "unread", "pending")
    assert feed.count("seen") == told + sum(feed.count(term) for term in others)
    assert feed.count("pending") == len(feed.attached.object.map("pending"))


def told_of(feed: Feed, label: str, count: int, sweep: bool = False) -> list[dict[str, Any]]:
    """The records whose question has *label*, clients first, each in order; checked for what is never the same."""
    if sweep:
        sweep_until_told(feed)
    wire = bytes([len(label)]) + label.lower().encode()
    rows = feed.where(lambda rows: [wire in message_of(row).lower() for row in rows], count)
    assert len(rows) >= count, f"{len(rows)} of {count} told; all of them {len(feed.rows())}, {feed.attached.counts}"
    records = []
    for row in sorted(rows, key=lambda row: (row["role"], row["head"]["time_ns"])):
        record = {name: row[name].item() for name in row.dtype.names if name != "head"}
        record |= {name: row["head"][name].item() for name in row["head"].dtype.names}
        assert 0 < record.pop("latency_ns") < record.pop("time_ns") <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        records.append(record)
    return records


def sweep_until_told(feed: Feed) -> None:
    """Lets the time run out of all that waits: on a busy machine the server's end may have begun to wait later."""
    deadline = time.monotonic() + PATIENCE_S
    time.sleep(TIMEOUT_S)
    feed.attached.sweep()
    while feed.count("pending") and time.monotonic() < deadline:
        time.sleep(0.01)
        feed.attached.sweep()


def message_of(row: Any) -> bytes:
    """What was captured; what is behind it in the row is of earlier rows."""
    captured: bytes = row["message"].tobytes()[: row["captured_bytes"]]
    return captured


@contextlib.contextmanager
def udp(address: str = "127.0.0.1", port: int | None = None) -> Iterator[socket.socket]:
    """An unconnected socket, bound to an address; with *port* connected to there."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as asker:
        asker.settimeout(3)
        asker.bind((address, 0))
        if port is not None:
            asker.connect((address, port))
        yield asker


@contextlib.contextmanager
def tcp(address: str, port: int) -> Iterator[socket.socket]:
    with socket.create_connection((address, port), timeout=10) as asker:
        asker.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield asker
