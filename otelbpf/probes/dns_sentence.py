"""One readable line a lookup: `client python3[123] A example.org → 93.184.216.34 (+1) NOERROR 1.2 ms @10.0.0.2:53`.

Tens of thousands may be asked for in a second: what repeats is put into words once a batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelbpf.probes.three_digits import NANOSECONDS
from otelbpf.signals import names

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from otelbpf.batch import Batch, Facts


def sentences(batch: Batch, roles: Mapping[int, str], response_codes: Mapping[int, str]) -> Iterable[str]:
    """Who asked (or answered), for what, the answer, how it ended, how long it took, which resolver."""
    kind, question, answer = (batch.things(name) for name in ("question_kind", "question", "answer"))
    parts = zip(
        (roles.get(role, "?") for role in batch.number("role").tolist()),
        _programs(batch),
        batch.number("pid").tolist(),
        _chosen(kind.codes, [str(facts[names.OTELBPF_DNS_QUESTION_TYPE]) for facts in kind.values]),
        _chosen(question.codes, [str(facts.get(names.DNS_QUESTION_NAME, "?")) for facts in question.values]),
        _chosen(answer.codes, [_answer(facts) for facts in answer.values]),
        (_outcome(code, response_codes) for code in batch.number("response_code").tolist()),
        NANOSECONDS.words(batch.number("latency_ns")),
        _resolvers(batch),
        batch.number("server_port").tolist(),
        strict=True,
    )
    return map("%s %s[%d] %s %s → %s%s %s @%s:%d".__mod__, parts)


def _answer(facts: Facts) -> str:
    """`93.184.216.34 (+1) `: the first of what was found, and how much more; empty when nothing was."""
    found = facts.get(names.DNS_ANSWERS) or facts.get(names.OTELBPF_DNS_RECORDS) or facts.get(names.OTELBPF_DNS_CNAMES)
    if not found:
        return ""
    return f"{found[0]} " if len(found) == 1 else f"{found[0]} (+{len(found) - 1}) "


def _outcome(code: int, response_codes: Mapping[int, str]) -> str:
    return "timeout" if code < 0 else response_codes.get(code) or f"RCODE{code}"


def _programs(batch: Batch) -> Iterable[str]:
    """The executable's name, or the kernel's short one where that is not known."""
    process = batch.things("process")
    programs = [str(facts.get(names.PROCESS_EXECUTABLE_NAME, "")) for facts in process.values]
    chosen = [programs[code] for code in process.codes.tolist()]
    if all(chosen):
        return chosen
    comms = (comm.decode(errors="replace") for comm in batch.number("comm").tolist())
    return [program or comm or "?" for program, comm in zip(chosen, comms, strict=True)]


def _resolvers(batch: Batch) -> Iterable[str]:
    """The address of the end that answers."""
    remote, local = batch.things("remote"), batch.things("local")
    far = [_bracketed(str(facts.get(names.NETWORK_PEER_ADDRESS, "?"))) for facts in remote.values]
    near = [_bracketed(str(facts.get(names.NETWORK_LOCAL_ADDRESS, "?"))) for facts in local.values]
    ends = zip(batch.number("client").tolist(), remote.codes.tolist(), local.codes.tolist(), strict=True)
    return (far[there] if client else near[here] for client, there, here in ends)


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _chosen(codes: NDArray[np.intp], words: Sequence[str]) -> Iterable[str]:
    return map(words.__getitem__, codes.tolist())
