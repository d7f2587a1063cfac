"""One readable line a connection: `client curl[4711] → example.org (93.184.216.34:443) ↑64 B ↓1.2 kB 3.2 ms fin_local`.

Tens of thousands may be asked for in a second: each part is put into words once for all rows that share it, and what
few rows share (addresses, ports) is written a column at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from otelbpf.address_text import encoded as encoded_addresses
from otelbpf.enrich.distinct import distinct_together
from otelbpf.lines import Lines, Part, encoded
from otelbpf.probes.three_digits import BYTES, NANOSECONDS
from otelbpf.signals import names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from otelbpf.batch import Batch

_ROLES = (("unknown", "—"), ("client", "→"), ("server", "←"))
_PID_BITS = np.uint64(32)


def closed_sentences(batch: Batch, reasons: Mapping[int, str]) -> Lines:
    """Who, with whom, how much each way, how long, which end ended it."""
    sent, received = BYTES.part(batch.number("tx_bytes"), " ↑"), BYTES.part(batch.number("rx_bytes"), " ↓")
    rest = Lines.joined(sent, received, _duration(batch.number("duration_ns")), _word(batch, "close_reason", reasons))
    return Lines(_ends(batch) + rest.pieces)


def failed_sentences(batch: Batch, errors: Mapping[int, str]) -> Lines:
    """Who, to whom, after how long, why not."""
    rest = Lines.joined(_duration(batch.number("handshake_ns")), _word(batch, "error_class", errors))
    return Lines(_ends(batch) + rest.pieces)


def _ends(batch: Batch) -> list[list[bytes]]:
    """`client curl[4711] → example.org (`, `93.184.216.34`, `:443`, `)`; without a name no bracket."""
    ports = batch.number("remote_port").tolist()
    pieces = [_who(batch), _addresses(batch), (":%d\n" * len(ports) % tuple(ports)).encode().split(b"\n")[:-1]]
    remote = batch.things("remote")
    after = [")" if names.SERVER_ADDRESS in facts else "" for facts in remote.values]
    if any(after):
        pieces += Lines.joined(Part(encoded(after), remote.codes)).pieces
    return pieces


def _who(batch: Batch) -> list[bytes]:
    """`client curl[4711] → example.org (`: the executable's name, or the kernel's short one where it is not known."""
    process, remote = batch.things("process"), batch.things("remote")
    role, pids, comms = batch.number("role"), batch.number("pid"), batch.number("comm")
    things = (process.codes * len(remote.values) + remote.codes) * len(_ROLES) + role
    found = distinct_together((things.astype(np.uint64) << _PID_BITS | pids, *_words_of(comms)))
    words = []
    for row in found.rows.tolist():
        program = process.values[process.codes[row]].get(names.PROCESS_EXECUTABLE_NAME)
        word, arrow = _ROLES[role[row]]
        name = remote.values[remote.codes[row]].get(names.SERVER_ADDRESS)
        opened = f"{name} (" if name else ""
        words.append(f"{word} {program or comms[row].decode(errors='replace')}[{pids[row]}] {arrow} {opened}")
    return Lines.joined(Part(encoded(words), found.codes)).pieces[0]


def _words_of(comms: NDArray[np.bytes_]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    pair = np.ascontiguousarray(comms).view(np.uint64).reshape(-1, 2)
    return pair[:, 0], pair[:, 1]


def _addresses(batch: Batch) -> list[bytes]:
    """As they stand before a port; a question mark where it is not known."""
    return [
        b"[%b]" % text if b":" in text else text or b"?" for text in encoded_addresses(batch.number("remote_address"))
    ]


def _duration(nanoseconds: NDArray[Any]) -> Part:
    """A question mark where it is not known."""
    part, unknown = NANOSECONDS.part(nanoseconds, " "), nanoseconds <= 0
    if not unknown.any():
        return part
    return Part(np.append(part.words, encoded([" ?"])), np.where(unknown, len(part.words), part.codes))


def _word(batch: Batch, column: str, words: Mapping[int, str]) -> Part:
    """One of a few."""
    found, codes = np.unique(batch.number(column), return_inverse=True)
    return Part(encoded([f" {words.get(number, '_OTHER')}" for number in found.tolist()]), codes)
