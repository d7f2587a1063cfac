"""As much of an ELF file as a compiled BPF object needs: its sections, and where its variables stand."""

from __future__ import annotations

import struct
from typing import NamedTuple

from otelbpf.errors import CannotRun

_SYMBOL_TABLE = 2
_OBJECT = 1


class Section(NamedTuple):
    """One section: *link* is the index of the section that goes with it (a symbol table's strings)."""

    name: str
    kind: int
    content: bytes
    link: int


class Variable(NamedTuple):
    """Where a global variable stands in its section."""

    section: str
    offset: int
    size: int


def text_at(strings: bytes, offset: int) -> str:
    """The NUL-terminated text that starts at *offset*."""
    return strings[offset : strings.index(b"\0", offset)].decode()


def sections(elf: bytes) -> list[Section]:
    """All sections of a 64-bit little-endian object, in the order of their index."""
    if elf[:6] != b"\x7fELF\x02\x01":
        raise CannotRun("not a compiled BPF object: no 64-bit little-endian ELF file")
    try:
        (table,) = struct.unpack_from("<Q", elf, 40)
        count, names_index = struct.unpack_from("<2H", elf, 60)
        heads = [struct.unpack_from("<2I4Q2I", elf, table + 64 * index) for index in range(count)]
    except struct.error as short:
        raise CannotRun("not a compiled BPF object: the file ends too early") from short
    names = elf[heads[names_index][4] :][: heads[names_index][5]]
    return [
        Section(text_at(names, name), kind, elf[offset : offset + size], link)
        for name, kind, _flags, _address, offset, size, link, _info in heads
    ]


def variables(elf: bytes) -> dict[str, Variable]:
    """The global variables by name. clang leaves their places in BTF empty for the linker: symbols know them."""
    table = sections(elf)
    found: dict[str, Variable] = {}
    for symbols in (section for section in table if section.kind == _SYMBOL_TABLE):
        strings = table[symbols.link].content
        for name, info, _other, index, value, size in struct.iter_unpack("<I2BH2Q", symbols.content):
            if info & 15 == _OBJECT and index < len(table):
                found[text_at(strings, name)] = Variable(table[index].name, value, size)
    return found
