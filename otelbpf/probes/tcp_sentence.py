"""One readable line a connection: `client curl[4711] → example.org (93.184.216.34:443) ↑64 B ↓1.2 kB 3.2 ms fin_local`.

Tens of thousands may be asked for in a second: each part is put into words once for all rows that share it, and what
few rows share (addresses, ports) is written a column at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from otelbpf import address_text
from otelbpf.lines import Lines, Part, words
from otelbpf.native.distinct import distinct_together
from otelbpf.probes.owner_word import owner_word
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
    sent, received = BYTES.part(batch.number("tx_bytes")), BYTES.part(batch.number("rx_bytes"))
    duration, reason = _duration(batch.number("duration_ns")), _word(batch, "close_reason", reasons)
    return Lines(len(batch), *_ends(batch), " ↑", sent, " ↓", received, " ", duration, " ", reason)


def failed_sentences(batch: Batch, errors: Mapping[int, str]) -> Lines:
    """Who, to whom, after how long, why not."""
    duration, error = _duration(batch.number("handshake_ns")), _word(batch, "error_class", errors)
    return Lines(len(batch), *_ends(batch), " ", duration, " ", error)


def _ends(batch: Batch) -> list[str | Part]:
    """`client curl[4711] → example.org (`, `93.184.216.34`, `:`, `443`, `)`; without a name no bracket."""
    pieces: list[str | Part] = [
        _who(batch),
        _addresses(batch),
        ":",
        Part(address_text.port_words(batch.number("remote_port"))),
    ]
    remote = batch.things("remote")
    after = [")" if names.SERVER_ADDRESS in facts else "" for facts in remote.values]
    return [*pieces, Part(words(after), remote.codes)] if any(after) else pieces


def _who(batch: Batch) -> Part:
    """`client curl[4711] → example.org (`: the executable's name, or the kernel's short one where it is not known."""
    process, remote = batch.things("process"), batch.things("remote")
    role, pids, comms = batch.number("role"), batch.number("pid"), batch.number("comm")
    things = (process.codes * len(remote.values) + remote.codes) * len(_ROLES) + role
    found = distinct_together((things.astype(np.uint64) << _PID_BITS | pids, *_words_of(comms)))
    texts = []
    for row in found.rows.tolist():
        owner = owner_word(process.values[process.codes[row]], comms[row], int(pids[row]))
        word, arrow = _ROLES[role[row]]
        name = remote.values[remote.codes[row]].get(names.SERVER_ADDRESS)
        opened = f"{name} (" if name else ""
        texts.append(f"{word} {owner} {arrow} {opened}")
    return Part(words(texts), found.codes)


def _words_of(comms: NDArray[np.bytes_]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    pair = np.ascontiguousarray(comms).view(np.uint64).reshape(-1, 2)
    return pair[:, 0], pair[:, 1]


def _addresses(batch: Batch) -> Part:
    """As they stand before a port; a question mark where it is not known."""
    known = address_text.words(batch.number("remote_address"), bracketed=True)
    if (unknown := known.lengths == 0).any():
        known.cells.view(np.uint8).reshape(len(batch), -1)[unknown, 0] = ord("?")
        known.lengths[unknown] = 1
    return Part(known)


def _duration(nanoseconds: NDArray[Any]) -> Part:
    """A question mark where it is not known."""
    return NANOSECONDS.part(nanoseconds, nanoseconds <= 0)


def _word(batch: Batch, column: str, meanings: Mapping[int, str]) -> Part:
    """One of a few."""
    found, codes = np.unique(batch.number(column), return_inverse=True)
    return Part(words([meanings.get(number, "_OTHER") for number in found.tolist()]), codes)
