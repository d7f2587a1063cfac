"""DNS messages: `parse` makes a Message of an answer (or of a question alone), or raises ProtocolError, nothing else.

Everything is bounded: a compression pointer must go back before the name it stands in, a name has 255 bytes, and
MAX_RECORDS records are read. What was captured may be shorter than the message: the records that are whole count.
"""

from __future__ import annotations

import struct
from socket import AF_INET6, inet_ntoa, inet_ntop
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from otelbpf.errors import ProtocolError
from otelbpf.protocols.dns_names import read_name, skip_name
from otelbpf.protocols.dns_records import record_text
from otelbpf.protocols.dns_registry import AAAA, CNAME, IN, OPT, A

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_RECORDS = 32

_HEADER = Struct(">6H")
_QUESTION_TAIL = Struct(">2H")
_RECORD = Struct(">HHIH")
_A_RECORD, _AAAA_RECORD = Struct(">HIIH4s"), Struct(">HIIH16s")  # type and class as one number
_OPT_START = b"\0\0\x29"
_RESPONSE, _TRUNCATED, _CODE = 0x8000, 0x0200, 0x000F
_POINTER = 0xC000
_HIGHEST_TTL = 0x7FFFFFFF


class Message(NamedTuple):
    """A question and, of an answer, what it says."""

    name: str
    """As asked: letter case kept, no trailing dot; the root is `.`; odd bytes escaped as in zone files."""
    type: int
    code: int
    """Response code with the bits that OPT adds; 0 in a question."""
    addresses: list[str]
    """A and AAAA, in order."""
    cnames: list[str]
    """What the name asked for is an alias of, in the order of the chain."""
    records: list[str]
    """The other answers, as `MX 10 mx.example.org`."""
    ttl: int | None
    """The smallest of the answers, in seconds; None without answers."""
    truncated: bool
    """The server says that not everything fitted."""
    complete: bool
    """Whether all the answers that the message announces were read."""


def parse(message: bytes, whole_bytes: int | None = None) -> Message:
    """The message that begins with *message*; *whole_bytes* is its length when that was not captured whole.

    Raises ProtocolError when it is no DNS message with one question, or is cut where it should not be.
    """
    try:
        return _parse(message, cut=whole_bytes is not None and whole_bytes > len(message))
    except (IndexError, struct.error) as cut:
        raise ProtocolError("a DNS message ends too early") from cut


def parse_question(message: bytes) -> Message:
    """What the header and the question of *message* say, whatever follows them.

    Raises ProtocolError when that much cannot be read.
    """
    try:
        flags, questions = _HEADER.unpack_from(message)[1:3]
        if questions != 1:
            raise ProtocolError(f"a DNS message with {questions} questions")
        name, at = read_name(message, 12)
        type_, _class = _QUESTION_TAIL.unpack_from(message, at)
    except (IndexError, struct.error) as cut:
        raise ProtocolError("a DNS message ends too early") from cut
    return Message(name, type_, flags & _CODE, [], [], [], None, flags & _TRUNCATED != 0, False)


def _parse(message: bytes, *, cut: bool) -> Message:
    _id, flags, questions, answers, authorities, additionals = _HEADER.unpack_from(message)
    if questions != 1:
        raise ProtocolError(f"a DNS message with {questions} questions")
    name, at = read_name(message, 12)
    type_, class_ = _QUESTION_TAIL.unpack_from(message, at)
    if not flags & _RESPONSE:
        return Message(name, type_, 0, [], [], [], None, False, True)
    if class_ == IN and not cut and not authorities and not flags & _TRUNCATED:
        plain = _plain_addresses(message, at + 4, type_, answers, additionals)
        if plain is not None:
            addresses, ttl, code = plain
            # What NamedTuple's own constructor does, in half the time.
            return tuple.__new__(Message, (name, type_, flags & _CODE | code, addresses, [], [], ttl, False, True))
    return _answer(message, at + 4, name, type_, cut=cut)


def _plain_addresses(
    message: bytes, at: int, type_: int, answers: int, additionals: int
) -> tuple[list[str], int, int] | None:
    """Addresses, TTL and upper bits of the code of the answer that is by far the most frequent: addresses of the type
    asked for, under names by pointer, and at most EDNS behind them. None for any other."""
    to_text: Callable[[bytes], str]
    if type_ == A:
        layout, length, to_text = _A_RECORD, 4, inet_ntoa
    elif type_ == AAAA:
        layout, length, to_text = _AAAA_RECORD, 16, _ipv6_text
    else:
        return None
    end = at + layout.size * answers
    if not 0 < answers <= MAX_RECORDS or end > len(message):
        return None
    code = 0
    if additionals:
        if additionals > 1 or message[end : end + 3] != _OPT_START or end + 11 > len(message):
            return None
        code = message[end + 5] << 4
    wanted, smallest, addresses = type_ << 16 | IN, _HIGHEST_TTL, []
    for owner, found, ttl, bytes_, address in layout.iter_unpack(message[at:end]):
        if found != wanted or bytes_ != length or owner < _POINTER or ttl > _HIGHEST_TTL:
            return None
        smallest = min(smallest, ttl)
        addresses.append(to_text(address))
    return addresses, smallest, code


def _ipv6_text(address: bytes) -> str:
    return inet_ntop(AF_INET6, address)


def _answer(message: bytes, at: int, name: str, type_: int, *, cut: bool) -> Message:
    """Any answer whose records begin at *at*."""
    _id, flags, _questions, answers, authorities, additionals = _HEADER.unpack_from(message)
    found = _Answers(message, name)
    truncated = flags & _TRUNCATED != 0
    code = flags & _CODE
    try:
        at = found.read(at, min(answers, MAX_RECORDS))
        complete = answers <= MAX_RECORDS
        if additionals and complete:
            code |= _code_of_opt(message, at, authorities, additionals)
    except (IndexError, struct.error):
        if not cut and not truncated:
            raise
        complete = found.count >= answers
    return Message(name, type_, code, found.addresses, found.chain(), found.records, found.ttl, truncated, complete)


class _Answers:
    """What the answer section says, record by record: those before a cut stay."""

    __slots__ = ("addresses", "aliases", "count", "message", "name", "records", "ttl")

    def __init__(self, message: bytes, name: str) -> None:
        self.message, self.name = message, name
        self.count = 0
        self.ttl: int | None = None
        self.addresses: list[str] = []
        self.aliases: list[tuple[int, str]] = []
        self.records: list[str] = []

    def read(self, at: int, count: int) -> int:
        """Reads *count* records from *at* on; gives where the last one ends."""
        message, unpack, size = self.message, _RECORD.unpack_from, len(self.message)
        for _ in range(count):
            owner = at
            at = at + 2 if message[at] >= 0xC0 else skip_name(message, at)
            type_, class_, ttl, length = unpack(message, at)
            at += 10
            end = at + length
            if end > size:
                raise IndexError
            if type_ == A and class_ == IN and length == 4:
                self.addresses.append(inet_ntoa(message[at:end]))
            elif type_ == AAAA and class_ == IN and length == 16:
                self.addresses.append(inet_ntop(AF_INET6, message[at:end]))
            else:
                self._read_other(type_, owner, at, end)
            if ttl > _HIGHEST_TTL:
                ttl = 0  # RFC 2181, section 8
            if self.ttl is None or ttl < self.ttl:
                self.ttl = ttl
            self.count += 1
            at = end
        return at

    def _read_other(self, type_: int, owner: int, at: int, end: int) -> None:
        if type_ == CNAME:
            target, after = read_name(self.message, at)
            if after != end:
                raise ProtocolError("a CNAME record is longer or shorter than its name")
            self.aliases.append((owner, target))
        else:
            self.records.append(record_text(self.message, type_, at, end))

    def chain(self) -> list[str]:
        """The aliases' targets as they follow from the name; servers may send them in any order."""
        if len(self.aliases) < 2:
            return [target for _owner, target in self.aliases]
        aliases = [(read_name(self.message, owner)[0].lower(), target) for owner, target in self.aliases]
        targets = dict(reversed(aliases))
        chain, name = [], self.name.lower()
        while name in targets:
            target = targets.pop(name)
            chain.append(target)
            name = target.lower()
        return chain + [target for owner, target in aliases if owner in targets]


def _code_of_opt(message: bytes, at: int, authorities: int, additionals: int) -> int:
    """The upper eight of the twelve bits of a response code, which EDNS keeps among the additional records."""
    for _ in range(min(authorities + additionals, 2 * MAX_RECORDS)):
        at = skip_name(message, at)
        type_, _class, ttl, length = _RECORD.unpack_from(message, at)
        if type_ == OPT:
            return int(ttl) >> 24 << 4
        at += 10 + length
    return 0
