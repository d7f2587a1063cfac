"""One readable line a connection: `client curl[4711] → example.org (93.184.216.34:443) ↑64 B ↓1.2 kB 3.2 ms fin_local`.

Tens of thousands may be asked for in a second: what repeats (processes, peers) is put into words once a batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from otelbpf.address_text import texts
from otelbpf.batch import Categorical, Facts
from otelbpf.probes.three_digits import BYTES, NANOSECONDS
from otelbpf.signals import names

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from otelbpf.batch import Batch

_ROLES = (("unknown", "—"), ("client", "→"), ("server", "←"))


def closed_sentences(batch: Batch, reasons: Mapping[int, str]) -> Iterable[str]:
    """Who, with whom, how much each way, how long, which end ended it."""
    parts = zip(
        *_ends(batch),
        BYTES.words(batch.number("tx_bytes")),
        BYTES.words(batch.number("rx_bytes")),
        _durations(batch.number("duration_ns")),
        _words(batch.number("close_reason"), [reasons[reason] for reason in sorted(reasons)]),
        strict=True,
    )
    return map("%s%d%s%s:%d%s ↑%s ↓%s %s %s".__mod__, parts)


def failed_sentences(batch: Batch, errors: Mapping[int, str]) -> Iterable[str]:
    """Who, to whom, after how long, why not."""
    parts = zip(
        *_ends(batch),
        _durations(batch.number("handshake_ns")),
        (errors.get(error, "_OTHER") for error in batch.number("error_class").tolist()),
        strict=True,
    )
    return map("%s%d%s%s:%d%s %s %s".__mod__, parts)


def _ends(batch: Batch) -> tuple[list[str], list[int], list[str], list[str], list[int], list[str]]:
    """`client curl[`, `4711`, `] → example.org (`, `93.184.216.34`, `443`, `)`."""
    process, remote = _named_processes(batch), batch.things("remote")
    role = batch.number("role").astype(np.intp)
    programs = [facts[names.PROCESS_EXECUTABLE_NAME] for facts in process.values]
    peers = [_peer(facts) for facts in remote.values]
    return (
        _words(process.codes * 3 + role, [f"{word} {program}[" for program in programs for word, _ in _ROLES]),
        batch.number("pid").tolist(),
        _words(remote.codes * 3 + role, [f"] {arrow} {before}" for before, _ in peers for _, arrow in _ROLES]),
        [f"[{text}]" if ":" in text else text or "?" for text in texts(batch.number("remote_address"))],
        batch.number("remote_port").tolist(),
        _words(remote.codes, [after for _, after in peers]),
    )


def _named_processes(batch: Batch) -> Categorical:
    """The processes; by the kernel's short name where one has no other."""
    process = batch.things("process")
    if all(names.PROCESS_EXECUTABLE_NAME in facts for facts in process.values):
        return process
    comms, codes = np.unique(batch.number("comm"), return_inverse=True)
    named = [Facts({names.PROCESS_EXECUTABLE_NAME: comm.decode(errors="replace")}) for comm in comms.tolist()]
    return Categorical(codes, named)


def _peer(facts: Facts) -> tuple[str, str]:
    """What stands before the address and after the port."""
    name = facts.get(names.SERVER_ADDRESS)
    return (f"{name} (", ")") if name else ("", "")


def _durations(nanoseconds: NDArray[Any]) -> list[str]:
    """A question mark where it is not known."""
    words = NANOSECONDS.words(nanoseconds)
    for row in np.flatnonzero(nanoseconds <= 0).tolist():
        words[row] = "?"
    return words


def _words(codes: NDArray[Any], words: Sequence[str]) -> list[str]:
    chosen: list[str] = np.array(words, object)[codes].tolist()
    return chosen
