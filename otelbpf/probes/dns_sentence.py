"""One readable line a lookup: `client python3[123] A example.org → 93.184.216.34 (+1) NOERROR 1.2 ms @10.0.0.2:53`.

Tens of thousands may be asked for in a second: what repeats (who asks, what is asked and answered, whom) is put into
words once a batch or, of an answer, once for as long as it is remembered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from otelbpf.lines import Lines, Part, encoded_words, words
from otelbpf.native.distinct import distinct, distinct_together
from otelbpf.probes.owner_word import owner_word
from otelbpf.probes.three_digits import NANOSECONDS
from otelbpf.protocols.dns_registry import response_code_name
from otelbpf.signals import names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from otelbpf.batch import Batch, Facts


def sentences(batch: Batch, roles: Mapping[int, str]) -> Lines:
    """Who asked (or answered), for what, the answer, how it ended, how long it took, which resolver."""
    latency = NANOSECONDS.part(batch.number("latency_ns"))
    return Lines(len(batch), _who(batch, roles), _what(batch), latency, _where(batch))


def _who(batch: Batch, roles: Mapping[int, str]) -> Part:
    """`client python3[123] `: the executable's name, or the kernel's short one where that is not known."""
    process, pids, role = batch.things("process"), batch.number("pid"), batch.number("role")
    comms = batch.number("comm")
    halves = np.ascontiguousarray(comms).view(np.uint64).reshape(-1, 2)
    found = distinct_together((_packed(process.codes, pids), role.astype(np.uint64), halves[:, 0], halves[:, 1]))
    each = zip(
        role[found.rows].tolist(),
        process.codes[found.rows].tolist(),
        comms[found.rows].tolist(),
        pids[found.rows].tolist(),
        strict=True,
    )
    return Part(
        words(
            [f"{roles.get(role, '?')} {owner_word(process.values[code], comm, pid)} " for role, code, comm, pid in each]
        ),
        found.codes,
    )


def _what(batch: Batch) -> Part:
    """`A example.org → 93.184.216.34 (+1) NOERROR `."""
    kind, question, answer = (batch.things(name) for name in ("question_kind", "question", "answer"))
    outcome = batch.number("response_code")
    found = distinct_together((_packed(question.codes, answer.codes), _packed(kind.codes, outcome.astype(np.uint32))))
    each = zip(
        kind.codes[found.rows].tolist(),
        question.codes[found.rows].tolist(),
        answer.codes[found.rows].tolist(),
        outcome[found.rows].tolist(),
        strict=True,
    )
    told = [
        _told(kind.values[of_kind], question.values[asked], answer.values[answered], code)
        for of_kind, asked, answered, code in each
    ]
    return Part(encoded_words(told), found.codes)


def _where(batch: Batch) -> Part:
    """` @10.0.0.2:53`: the end that answers."""
    remote, local, ports = batch.things("remote"), batch.things("local"), batch.number("server_port")
    ends = np.where(batch.number("client"), remote.codes, len(remote.values) + local.codes)
    found = distinct(_packed(ends, ports))
    addresses = [facts.get(names.NETWORK_PEER_ADDRESS, "?") for facts in remote.values]
    addresses += [facts.get(names.NETWORK_LOCAL_ADDRESS, "?") for facts in local.values]
    each = zip(ends[found.rows].tolist(), ports[found.rows].tolist(), strict=True)
    return Part(words([f" @{_bracketed(addresses[end])}:{port}" for end, port in each]), found.codes)


def _told(kind: Facts, question: Facts, answer: Facts, code: int) -> bytes:
    """Kept with the answer, which is that to one question only."""
    key = (sentences, kind, code)
    line: bytes | None = answer.encoded.get(key)
    if line is None:
        type_, name = kind[names.OTELBPF_DNS_QUESTION_TYPE], question.get(names.DNS_QUESTION_NAME, "?")
        text = f"{type_} {name} → {_answer(answer)}{_outcome(code)} "
        line = answer.encoded[key] = text.encode("utf-8", "replace")
    return line


def _answer(facts: Facts) -> str:
    """`93.184.216.34 (+1) `: the first of what was found, and how much more; empty when nothing was."""
    found = facts.get(names.DNS_ANSWERS) or facts.get(names.OTELBPF_DNS_RECORDS) or facts.get(names.OTELBPF_DNS_CNAMES)
    if not found:
        return ""
    return f"{found[0]} " if len(found) == 1 else f"{found[0]} (+{len(found) - 1}) "


def _outcome(code: int) -> str:
    return "timeout" if code < 0 else response_code_name(code)


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _packed(upper: NDArray[Any], lower: NDArray[Any]) -> NDArray[np.uint64]:
    """Two columns of at most 32 bits as one."""
    return upper.astype(np.uint64) << np.uint64(32) | lower.astype(np.uint64)
