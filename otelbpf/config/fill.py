"""From a tree of values to settings of the right types, with every mistake told at its place.

Driven by the types of `settings` alone: a new setting needs nothing here.
"""

from __future__ import annotations

import difflib
import math
from typing import TYPE_CHECKING, Any

from msgspec import inspect

from otelbpf.config import kinds, quantities
from otelbpf.config.document import Listing, Scalar, Table, key_path, printable
from otelbpf.config.settings import EXPORTERS, OLDER_NAMES
from otelbpf.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from otelbpf.config.document import Node

MAX_SHOWN = 20
"""More mistakes than that are counted only."""
INT64 = 2**63
_OF_THE_COLLECTOR = frozenset(("receivers", "processors", "connectors", "extensions", "service"))


class Problems:
    """Mistakes found so far, each one line: `PLACE: key.path: what is wrong; what to do`."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, place: str, path: str, what: str) -> None:
        self._lines.append(f"{place}: {path}: {what}" if path else f"{place}: {what}")

    def refuse(self) -> None:
        """Raises ConfigError if there are any."""
        if not self._lines:
            return
        omitted = len(self._lines) - MAX_SHOWN
        more = [f"and {omitted} more mistakes"] if omitted > 0 else []
        raise ConfigError("\n".join(self._lines[:MAX_SHOWN] + more))


class Filler:
    """Makes settings of nodes. A mistake goes to *problems* and the value is None; refuse before using any.

    *places* tells afterwards where each setting that was given stands, for checks that look at several.
    """

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self.places: dict[str, str] = {}

    def fill(self, kind: inspect.Type, node: Node, path: str, quantity: str = "") -> Any:
        """The value of *node* as *kind*; *path* is its key path."""
        self.places[path] = node.place
        match kind:
            case inspect.Metadata(type=inner, extra=extra):
                return self.fill(inner, node, path, (extra or {}).get("quantity", quantity))
            case inspect.StructType():
                return self._struct(kind, node, path)
            case inspect.UnionType(types=types):
                return self._union(types, node, path)
            case inspect.DictType(value_type=value_type):
                return self._dictionary(value_type, node, path)
            case inspect.VarTupleType() | inspect.ListType():
                return self._sequence(kind, node, path)
        try:
            return scalar(kind, node, quantity)
        except ValueError as error:
            empty = isinstance(node, Scalar) and node.value is None and not node.text
            what = "has no value; give it one, or remove the key" if empty else f"{_shown(node, quantity)} {error}"
            self._problems.add(node.place, path, what)
            return None

    def _struct(self, kind: inspect.StructType, node: Node, path: str) -> Any:
        fields = {field.name: field for field in kind.fields}
        table = self._table(node, path)
        values = {}
        for key, child in table.entries.items():
            if key in fields:
                values[key] = self.fill(fields[key].type, child, key_path(path, key))
            else:
                self._problems.add(table.key_places[key], key_path(path, key), _not_a_setting(key, path, fields))
        for field in kind.fields:
            if field.required and field.name not in values:
                self._problems.add(node.place, key_path(path, field.name), "is missing; give it a value")
                values[field.name] = None
        return kind.cls(**values)

    def _table(self, node: Node, path: str) -> Table:
        if isinstance(node, Table):
            return node
        if not (isinstance(node, Scalar) and node.value is None):
            self._problems.add(node.place, path, f"{_shown(node)} is not a map of settings; write its keys below it")
        return Table(node.place)

    def _union(self, types: Sequence[inspect.Type], node: Node, path: str) -> Any:
        """Words, a switch, a number or one struct: a map is the struct, anything else one of the words."""
        structs = [kind for kind in types if isinstance(kind, inspect.StructType)]
        words = [kind for kind in types if isinstance(kind, inspect.LiteralType)]
        numbers = [kind for kind in types if isinstance(kinds.bare(kind), inspect.IntType | inspect.FloatType)]
        if structs and isinstance(node, Table):
            return self._struct(structs[0], node, path)
        if words and isinstance(node, Scalar) and isinstance(node.value, bool) and _takes_switch(types):
            return node.value
        if words and numbers and not (isinstance(node, Scalar) and node.value in words[0].values):
            return self._number(words[0], numbers[0], node, path)
        if words:
            return self.fill(words[0], node, path)
        return self._attribute(node, path)

    def _number(self, words: inspect.LiteralType, kind: inspect.Type, node: Node, path: str) -> Any:
        """The value of *node*, which is a number as it is none of *words*."""
        name = kinds.quantity(kind)
        try:
            return scalar(kinds.bare(kind), node, name)
        except ValueError as error:
            what = f"{_shown(node, name)} {error}, or {' or '.join(sorted(map(str, words.values)))}"
            self._problems.add(node.place, path, what)
            return None

    def _attribute(self, node: Node, path: str) -> Any:
        """The value of an attribute, which may be of any plain type."""
        if isinstance(node, Listing):
            return [self.fill(_TEXT, item, f"{path}[{index}]") for index, item in enumerate(node.items)]
        if isinstance(node, Scalar) and isinstance(node.value, bool | int | float):
            if isinstance(node.value, int) and not -INT64 <= node.value < INT64:
                self._problems.add(node.place, path, f"{node.value} does not fit into 64 bits; write it in quotes")
            return node.value
        return self.fill(_TEXT, node, path)

    def _dictionary(self, value_type: inspect.Type, node: Node, path: str) -> dict[str, Any]:
        table = self._table(node, path)
        if isinstance(value_type, inspect.UnionType) and any(
            isinstance(kind, inspect.StructType) for kind in value_type.types
        ):
            return dict(self._exporters(table, path))
        values = {}
        for key, child in table.entries.items():
            self.fill(_KEY, Scalar(table.key_places[key], key, key), key_path(path, key))
            values[key] = self.fill(value_type, child, key_path(path, key))
        return values

    def _exporters(self, table: Table, path: str) -> Iterator[tuple[str, Any]]:
        seen: dict[str, str] = {}
        for key, child in table.entries.items():
            name = canonical(key)
            kind = EXPORTERS.get(name.split("/")[0])
            if kind is None or name.endswith("/"):
                what = f"is not an exporter; {_nearest(name.split('/')[0], EXPORTERS)}"
                self._problems.add(table.key_places[key], key_path(path, key), what)
            elif name in seen:
                what = f"is the same as {seen[name]}; name one of them {name}/other"
                self._problems.add(table.key_places[key], key_path(path, key), what)
            else:
                seen[name] = key
                yield name, self.fill(inspect.type_info(kind), child, key_path(path, name))

    def _sequence(self, kind: inspect.VarTupleType | inspect.ListType, node: Node, path: str) -> tuple[Any, ...]:
        if isinstance(node, Scalar) and node.value is None:
            node = Listing(node.place)
        if not isinstance(node, Listing):
            self._problems.add(node.place, path, f"{_shown(node)} is not a list; write it as [a, b]")
            return ()
        least, most = kind.min_length or 0, kind.max_length or len(node.items)
        if not least <= len(node.items) <= most:
            self._problems.add(
                node.place, path, f"has {len(node.items)} entries; give {_between(least, kind.max_length)}"
            )
        return tuple(self.fill(kind.item_type, item, f"{path}[{index}]") for index, item in enumerate(node.items))


def _takes_switch(types: Sequence[inspect.Type]) -> bool:
    return any(isinstance(kind, inspect.BoolType) for kind in types)


_TEXT = inspect.StrType()
_KEY = inspect.StrType(min_length=1)


def canonical(exporter: str) -> str:
    """An exporter's name with its type in today's form."""
    kind, slash, name = exporter.partition("/")
    return OLDER_NAMES.get(kind, kind) + slash + name


def scalar(kind: inspect.Type, node: Node, quantity: str) -> str | int | float | bool:
    """The value of one setting; ValueError says what is wrong with it, after the value that it has."""
    match kind:
        case inspect.LiteralType(values=words):
            return _word(words, node)
        case inspect.StrType():
            return _text(kind, node, quantity)
        case inspect.BoolType():
            if isinstance(node, Scalar) and isinstance(node.value, bool):
                return node.value
            raise ValueError("is not true or false; write one of them")
        case inspect.IntType() | inspect.FloatType():
            return _limited(kind, _number(kind, node, quantity), quantity)
    raise TypeError(f"settings have no type {kind}")


def _word(words: Sequence[Any], node: Node) -> str:
    if isinstance(node, Scalar) and node.value in words:
        return str(node.value)
    raise ValueError(f"is not one of {', '.join(sorted(words))}; write one of them")


def _text(kind: inspect.StrType, node: Node, quantity: str) -> str:
    text = node.text
    if text is None:
        raise ValueError("is not text; write it in quotes")
    if kind.min_length and not text:
        raise ValueError("is empty; give it a value")
    if "\0" in text or not _encodable(text):
        raise ValueError("holds a character that is not text; write it in UTF-8")
    return quantities.network(text) if quantity == "network" else text


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _number(kind: inspect.IntType | inspect.FloatType, node: Node, quantity: str) -> int | float:
    value = node.value if isinstance(node, Scalar) else None
    if quantity == "duration":
        return _duration(value)
    if "size" in quantity and isinstance(value, str):
        value = quantities.parse_size(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("is not a size; write it such as 4MiB" if "size" in quantity else "is not a number; write one")
    if isinstance(kind, inspect.FloatType):
        return float(value)
    if not isinstance(value, int):
        raise ValueError("is not a whole number; write one")
    return quantities.power_of_two(value) if quantity == "ring size" else value


def _duration(value: object) -> float:
    if isinstance(value, str):
        return quantities.parse_duration(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("is not a duration; write a number with a unit, such as 10s, 500ms or 1m30s")
    if value == 0:
        return 0.0
    raise ValueError(f"has no unit; write {value}s if you mean seconds")


def _limited(kind: inspect.IntType | inspect.FloatType, value: float, quantity: str) -> int | float:
    least = -math.inf if kind.ge is None else kind.ge
    most = math.inf if kind.le is None else kind.le
    if least <= value <= most:
        return value
    raise ValueError(f"is out of range; give {_between(kind.ge, kind.le, quantity)}")


def _between(least: float | None, most: float | None, quantity: str = "") -> str:
    low, high = (None if limit is None else quantities.quantity_text(limit, quantity) for limit in (least, most))
    if low is None or high is None:
        return f"at most {high}" if low is None else f"at least {low}"
    return f"{low} to {high}"


def _shown(node: Node, quantity: str = "") -> str:
    """The value as it was given, shortened; never a secret."""
    if quantity == "secret":
        return "its value"
    if not isinstance(node, Scalar):
        return "a list" if isinstance(node, Listing) else "a map"
    if node.value is None:
        return "nothing"
    text = str(node.value).lower() if isinstance(node.value, bool) else str(node.value)
    return f'"{printable(text)}"' if isinstance(node.value, str) else printable(text)


def _not_a_setting(key: str, path: str, fields: dict[str, Any]) -> str:
    if not path and key in _OF_THE_COLLECTOR:
        return (
            "is a setting of the collector; here `probes` say what is watched and `exporters` where it goes; remove it"
        )
    return f"is not a setting; {_nearest(key, fields)}"


def _nearest(key: str, known: Sequence[str] | dict[str, Any]) -> str:
    names = {name.replace("_", ""): name for name in known}
    plain = "".join(letter for letter in key.lower() if letter.isalnum())
    close = difflib.get_close_matches(plain[:64], names, n=1, cutoff=0.5)
    return f"did you mean {names[close[0]]}?" if close else f"known here: {', '.join(known)}"
