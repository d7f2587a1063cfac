"""Struct layouts as numpy dtypes, read from the BTF of a compiled BPF object: the C struct is the only place where
a layout is written."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from otelbpf.errors import CannotRun
from otelbpf.kernel.elf import sections, text_at, variables
from otelbpf.kernel.ring import HEADER_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from otelbpf.kernel.elf import Variable

_INT, _ARRAY, _STRUCT, _VAR = 1, 3, 4, 14
_QUALIFIERS = {8, 9, 10, 11, 18}  # typedef, volatile, const, restrict, type tag
_FIXED_BYTES = {_INT: 4, _ARRAY: 12, _VAR: 4, 17: 4}
_BYTES_PER_ITEM = {_STRUCT: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}
_REFUSED = {2: "a pointer", 5: "a union", 6: "an enumeration", 19: "an enumeration"}
_SIGNED, _BOOL = 1, 4


class _Type(NamedTuple):
    name: str
    kind: int
    size_or_type: int
    detail: bytes
    bitfields: bool


class Btf:
    """The types of one object. Raises CannotRun, with a sentence, for what is not there or cannot be an array."""

    def __init__(self, elf: bytes, origin: str = "object") -> None:
        found = next((section.content for section in sections(elf) if section.name == ".BTF"), None)
        if found is None:
            raise CannotRun(f"{origin}: no BTF in it; compile with -g")
        self._origin = origin
        self._types, self._strings = _types(found)
        self.variables: dict[str, Variable] = variables(elf)

    @classmethod
    def read(cls, path: Path) -> Btf:
        """The BTF of the object file at *path*."""
        try:
            return cls(path.read_bytes(), path.name)
        except FileNotFoundError as missing:
            raise CannotRun(f"{path}: no such compiled BPF object; `make bpf` makes it") from missing

    def layout(self, struct_name: str) -> np.dtype[np.void]:
        """The dtype of a C struct: nested structs nested, char[n] as S<n>, unsigned bytes [n] as V<n>."""
        for found in self._types:
            if found.kind == _STRUCT and found.name == struct_name:
                return self._struct(found)
        raise CannotRun(f"{self._origin}: no struct {struct_name} in its BTF; EVENT({struct_name}) keeps it there")

    def variable(self, name: str, section: str) -> tuple[int, np.dtype[Any]]:
        """Offset in *section* and dtype of a global variable."""
        place = self.variables.get(name)
        if place is None or place.section != section:
            known = ", ".join(sorted(n for n, p in self.variables.items() if p.section == section)) or "none"
            raise CannotRun(f"{self._origin}: no variable {name} in {section} (there are: {known})")
        declared = next(t for t in self._types if t.kind == _VAR and t.name == name)
        return place.offset, self._dtype(declared.size_or_type, name)

    def _resolve(self, type_id: int) -> _Type:
        found = self._types[type_id]
        while found.kind in _QUALIFIERS:
            found = self._types[found.size_or_type]
        return found

    def _dtype(self, type_id: int, member: str) -> np.dtype[Any]:
        found = self._resolve(type_id)
        if found.kind == _INT:
            return _integer(found)
        if found.kind == _ARRAY:
            return self._array(found, member)
        if found.kind == _STRUCT:
            return self._struct(found)
        what = _REFUSED.get(found.kind, f"BTF kind {found.kind}")
        raise CannotRun(f"{self._origin}: {member} is {what}, which has no array form; use an integer")

    def _array(self, found: _Type, member: str) -> np.dtype[Any]:
        element, _index, count = struct.unpack("<3I", found.detail)
        inner = self._resolve(element)
        if inner.kind == _INT and inner.size_or_type == 1:
            return np.dtype(f"{'S' if inner.name == 'char' else 'V'}{count}")
        return np.dtype((self._dtype(element, member), (count,)))

    def _struct(self, found: _Type) -> np.dtype[np.void]:
        names, formats, offsets = [], [], []
        for name_offset, type_id, bits in struct.iter_unpack("<3I", found.detail):
            name = text_at(self._strings, name_offset)
            if not name or found.bitfields or bits % 8:
                what = "a bit field" if name else "a member without a name"
                raise CannotRun(f"{self._origin}: struct {found.name} has {what}, which has no array form")
            names.append(name)
            formats.append(self._dtype(type_id, f"{found.name}.{name}"))
            offsets.append(bits // 8)
        return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": found.size_or_type})


def record_dtype(layout: np.dtype[np.void]) -> np.dtype[np.void]:
    """*layout* as it stands in a ring: behind the record's header and padded to the record's stride."""
    fields: Mapping[str, Any] = layout.fields or {}
    names = layout.names or ()
    return np.dtype(
        {
            "names": list(names),
            "formats": [fields[name][0] for name in names],
            "offsets": [fields[name][1] + HEADER_BYTES for name in names],
            "itemsize": HEADER_BYTES + (layout.itemsize + 7 & ~7),
        }
    )


def _types(btf: bytes) -> tuple[list[_Type], bytes]:
    header_bytes, type_offset, type_bytes, string_offset, string_bytes = struct.unpack_from("<5I", btf, 4)
    strings = btf[header_bytes + string_offset :][:string_bytes]
    at = header_bytes + type_offset
    end = at + type_bytes
    types = [_Type("void", 0, 0, b"", False)]
    while at < end:
        name, info, size_or_type = struct.unpack_from("<3I", btf, at)
        kind, count = info >> 24 & 31, info & 0xFFFF
        length = _FIXED_BYTES.get(kind, 0) + _BYTES_PER_ITEM.get(kind, 0) * count
        at += 12
        types.append(_Type(text_at(strings, name), kind, size_or_type, btf[at : at + length], bool(info >> 31)))
        at += length
    return types, strings


def _integer(found: _Type) -> np.dtype[Any]:
    (encoding,) = struct.unpack("<I", found.detail)
    if encoding >> 24 & _BOOL:
        return np.dtype("?")
    signed = encoding >> 24 & _SIGNED
    return np.dtype(f"<{'i' if signed else 'u'}{found.size_or_type}")
