"""DNS lookups: who asked whom for what, the answer, how long it took. Kernel half: the `.bpf.c`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from otelbpf.batch import Categorical, Facts
from otelbpf.probes.dns_reading import Reading, code_of, kind_of, may_have_more_code, without_messages
from otelbpf.probes.dns_sentence import sentences
from otelbpf.probes.probe import Address, Choice, Counter, Event, Histogram, Known, Number, Probe, Totals, Way
from otelbpf.probes.throttled import EVENTS, THROTTLED, marked
from otelbpf.protocols.dns_registry import NOERROR, NXDOMAIN, SERVFAIL
from otelbpf.signals import names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from otelbpf.batch import Batch

CLIENT, SERVER = 1, 2
ANSWERED, TIMED_OUT = 1, 2
ROLES = {CLIENT: "client", SERVER: "server"}
TRANSPORTS = {6: "tcp", 17: "udp"}
HOST_NOT_FOUND, TRY_AGAIN, NO_RECOVERY, TIMEOUT = 1, 2, 3, 4
ERRORS = {
    HOST_NOT_FOUND: "host_not_found",
    TRY_AGAIN: "try_again",
    NO_RECOVERY: "no_recovery",
    TIMEOUT: "timeout",
}
"""What getaddrinfo's older sister says (RFC 2133, netdb.h): the registry's words for dns.lookup.duration."""

_FLAG_TRUNCATED, _FLAGS_CODE = 0x0200, 0x000F
_NONE = -1
_PORTS_IN_A_WORD, _PORT_WORDS = 4, 4
_SHARES = 4
"""One cgroup may fill this part of the table of questions."""

_ERROR = Choice(names.ERROR_TYPE, "error", ERRORS)
_ROLE = Choice(names.OTELBPF_DNS_ROLE, "role", ROLES)
_TYPE = Known("question_kind", (names.OTELBPF_DNS_QUESTION_TYPE,))
_CODE = Known("outcome", (names.OTELBPF_DNS_RESPONSE_CODE,))
_TRANSPORT = Choice(names.NETWORK_TRANSPORT, "transport", TRANSPORTS)
_QUESTION = Known("question", (names.DNS_QUESTION_NAME,))

_ATTRIBUTES = (
    Number(names.PROCESS_PID, "pid", absent=0),
    Known("process", (names.PROCESS_EXECUTABLE_NAME, names.PROCESS_EXECUTABLE_PATH)),
    _TRANSPORT,
    Known("local", (names.NETWORK_LOCAL_ADDRESS, names.SERVER_ADDRESS)),
    Number(names.NETWORK_LOCAL_PORT, "local_port"),
    Known(
        "remote",
        (
            names.NETWORK_TYPE,
            names.NETWORK_PEER_ADDRESS,
            names.SERVER_ADDRESS,
            names.NET_PEER_NAME,
            names.SERVICE_PEER_NAME,
            names.SERVICE_PEER_NAMESPACE,
            names.OTELBPF_PEER_TYPE,
            names.OTELBPF_PEER_K8S_NAMESPACE_NAME,
            names.OTELBPF_PEER_K8S_WORKLOAD_NAME,
            names.OTELBPF_PEER_K8S_WORKLOAD_KIND,
            names.OTELBPF_PEER_K8S_POD_NAME,
            names.OTELBPF_PEER_K8S_POD_UID,
            names.OTELBPF_PEER_K8S_NODE_NAME,
            names.OTELBPF_PEER_K8S_SERVICE_NAME,
        ),
    ),
    Number(names.NETWORK_PEER_PORT, "remote_port"),
    Address(names.OTELBPF_NAT_PEER_ADDRESS, "nat_address"),
    Number(names.OTELBPF_NAT_PEER_PORT, "nat_port", absent=0),
    Number(names.SERVER_PORT, "server_port"),
    Number(names.OTELBPF_NETNS, "netns", absent=0),
    _QUESTION,
    _TYPE,
    _CODE,
    _ERROR,
    Known("answer", (names.DNS_ANSWERS, names.OTELBPF_DNS_CNAMES, names.OTELBPF_DNS_RECORDS, names.OTELBPF_DNS_TTL)),
    Number(names.OTELBPF_DNS_ANSWER_COUNT, "answers", absent=_NONE),
    Number(names.OTELBPF_DNS_LOOKUP_DURATION, "latency_ns", scale=1e-9),
    Number(names.OTELBPF_DNS_RETRIES, "retries", absent=0),
    Choice(names.OTELBPF_DNS_TRUNCATED, "truncated", {1: True}),
    _ROLE,
)


def _event(setting: str, role: str) -> Event:
    return Event(
        name=names.EVENT_DNS_LOOKUP,
        attributes=_ATTRIBUTES,
        body=lambda batch: sentences(batch, ROLES),
        setting=setting,
        when=role,
        failed="failed",
        duration_ns="latency_ns",
        identity=_identities,
    )


def _identities(batch: Batch) -> NDArray[np.uint64]:
    """What asker and server both know of a lookup: the question, its id, the asker's port."""
    rows, question = batch.rows, batch.things("question")
    asker_port = np.where(batch.number("client"), rows["local_port"], rows["remote_port"]).astype(np.uint64)
    asked = np.array([_checksum(facts) for facts in question.values], np.uint64)[question.codes]
    numbers: NDArray[np.uint64] = asker_port << np.uint64(16) | rows["id"]
    return asked << np.uint64(32) ^ numbers ^ rows["question_type"].astype(np.uint64) << np.uint64(40)


def _checksum(question: Facts) -> int:
    return crc32(str(question.get(names.DNS_QUESTION_NAME, "")).encode(errors="replace"))


_METRICS = (
    Histogram(names.METRIC_DNS_LOOKUP_DURATION, "latency_ns", 1e-9, (_QUESTION, _ERROR), when="client"),
    Counter(
        names.METRIC_OTELBPF_DNS_QUERIES,
        None,
        (_ROLE, _TYPE, _CODE, _ERROR, _TRANSPORT, Known("remote", (names.SERVER_ADDRESS,))),
    ),
)
_TOTALS = (Counter(names.METRIC_OTELBPF_DNS_QUERIES, EVENTS, (_ROLE, _TYPE, _CODE, _ERROR, _TRANSPORT, *THROTTLED)),)


class DnsLookups:
    """The `prepare` of this probe. Only what becomes a record, or teaches a host name, is read: the lookups that a
    server here answers are counted by what the kernel half took from the header, unless EDNS may say more of the code.
    """

    def __init__(self, config: Any) -> None:
        self.undecodable = 0
        self._reading = Reading()
        self.follow(config)

    def follow(self, config: Any) -> None:
        """Answers of a server here are read if they become records."""
        self._server_records = config.logs.dns_server != "off"

    def __call__(self, batch: Batch) -> Batch:
        rows, columns = batch.rows, batch.columns
        columns["client"] = client = rows["role"] == CLIENT
        columns["server"] = ~client
        columns["answered"] = answered = rows["kind"] == ANSWERED
        columns["truncated"] = (rows["flags"] & _FLAG_TRUNCATED != 0).astype(np.uint8)
        columns["answers"] = np.where(answered, rows["answer_count"].astype(np.int32), _NONE)
        columns["server_port"] = np.where(client, rows["remote_port"], rows["local_port"])
        columns["nat_port"] = np.zeros(len(batch), np.uint16)  # until enrichment knows better
        columns["nat_address"] = np.zeros(len(batch), "V16")
        columns["question_kind"] = self._reading.kinds(rows["question_type"])
        wanted = np.ones(len(batch), np.bool_) if self._server_records else client | may_have_more_code(rows)
        understood = self._reading.add_messages(batch, wanted)
        batch.rows = without_messages(rows)
        _add_outcome(batch)
        columns["outcome"] = self._reading.codes(batch.number("response_code"))
        if understood.all():
            return batch
        self.undecodable += int(np.count_nonzero(~understood))
        return batch.select(understood)


def _add_outcome(batch: Batch) -> None:
    """`response_code`, from the header where the message was not read; `error`; `failed`."""
    read, flags = batch.number("code_read"), batch.rows["flags"]
    code = np.where(read == _NONE, (flags & _FLAGS_CODE).astype(np.int32), read)
    code = np.where(batch.number("answered"), code, _NONE)
    batch.columns["response_code"] = code
    batch.columns["error"] = error = _errors(code)
    batch.columns["failed"] = error != 0


def _errors(code: NDArray[Any]) -> NDArray[np.intp]:
    """The error of each answer's code; *code* is _NONE where there was no answer."""
    errors: NDArray[np.intp] = np.select(
        [code == _NONE, code == NOERROR, code == NXDOMAIN, code == SERVFAIL],
        [TIMEOUT, 0, HOST_NOT_FOUND, TRY_AGAIN],
        NO_RECOVERY,
    )
    return errors


def _with_totals(batch: Batch) -> Batch:
    """The columns of sums of lookups. Of an answer whose code is not told apart, it is not known whether it failed."""
    rows, columns = batch.rows, batch.columns
    columns["response_code"] = code = rows["error"].astype(np.int32) - 1
    columns["error"] = _errors(code) * ((rows["kind"] == TIMED_OUT) | (code != _NONE))
    types, codes = np.unique(rows["question_type"], return_inverse=True)
    columns["question_kind"] = Categorical(codes, [kind_of(number) if number else Facts() for number in types.tolist()])
    distinct, codes = np.unique(code, return_inverse=True)
    columns["outcome"] = Categorical(codes, [code_of(number) for number in distinct.tolist()])
    return marked(batch)


def _constants(config: Any) -> Mapping[str, int]:
    settings = config.probes.dns_lookup
    return {
        **_port_words(settings.ports),
        "timeout_ns": round(settings.timeout * 1e9),
        "pending_share": max(1, settings.max_pending // _SHARES),
    }


def _port_words(ports: tuple[int, ...]) -> dict[str, int]:
    """Four ports a knob, the first in the lowest bits."""
    words = [0] * _PORT_WORDS
    for place, port in enumerate(dict.fromkeys(ports)):
        words[place // _PORTS_IN_A_WORD] |= port << 16 * (place % _PORTS_IN_A_WORD)
    return {f"dns_ports_{index}": word for index, word in enumerate(words)}


PROBE = Probe(
    name="dns_lookup",
    struct="dns_lookup",
    scope=names.SCOPE_DNS,
    summary="DNS lookups: who asked what, the answer, how long it took",
    cost="50 ns of kernel time a packet that is not DNS, most of it the measurement's own",
    ways=(Way("cgroup_skb", programs=("dns_sent", "dns_received")),),
    prepare=DnsLookups,
    constants=_constants,
    events=(_event("dns_lookup", "client"), _event("dns_server", "server")),
    metrics=_METRICS,
    totals=Totals(_with_totals, _TOTALS),
    sweep="sweep",
    map_sizes=lambda config: {"pending": config.probes.dns_lookup.max_pending},
)
