"""A settings file as a tree whose every part knows where it stands; variables are filled in on the way.

YAML 1.2 (`on` and `off` are words). `${env:NAME}` and `${env:NAME:-default}` stand for variables, `$$` for a dollar
sign, as in the collector: a value that is nothing but one variable gets its type from the variable's text, and a
setting that wants text gets that text as it is.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

from otelbpf.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAX_FILE_BYTES = 2**20
"""No settings file is larger; /dev/zero is."""

_TAG = "tag:yaml.org,2002:"
_VARIABLE = re.compile(
    r"\$(?:\$|\{(?:env:)?([A-Za-z_][A-Za-z0-9_.]*)(?::-((?:[^{}]|\{[^{}]*\})*))?\}|\{[^}]*\}?)", re.ASCII
)
_TRUTH = {"true": True, "false": False}
_SPECIAL_FLOATS = {".inf": float("inf"), "+.inf": float("inf"), "-.inf": float("-inf"), ".nan": float("nan")}
_BASES = {"0x": 16, "0o": 8, "0b": 2}


@dataclass(slots=True)
class Scalar:
    """One value. *text* is what a setting that wants text takes of it; None: it is not text."""

    place: str
    value: str | int | float | bool | None
    text: str | None = None


@dataclass(slots=True)
class Listing:
    """Several values in order."""

    place: str
    items: list[Node] = field(default_factory=list)
    text: str | None = None


@dataclass(slots=True)
class Table:
    """Keys and their values, in the file's order; *key_places* say where each key stands."""

    place: str
    entries: dict[str, Node] = field(default_factory=dict)
    key_places: dict[str, str] = field(default_factory=dict)
    text: str | None = None

    def put(self, key: str, node: Node) -> None:
        """*node* under *key*, in the place of whatever was there."""
        self.entries[key] = node
        self.key_places[key] = node.place


Node = Scalar | Listing | Table


def printable(text: str, limit: int = 60) -> str:
    """*text* for a message: on one line, without what a terminal would obey, shortened."""
    shown = text if text.isprintable() else ascii(text)[1:-1]
    return shown if len(shown) <= limit else f"{shown[: limit - 3]}..."


def key_path(path: str, key: str) -> str:
    """The key path of *key* below *path*, for a message."""
    return f"{path}.{printable(key, 100)}" if path else printable(key, 100)


Mistakes = list[tuple[str, str]]
"""Place and what is wrong there, where the rest can be read all the same."""


def read_file(
    path: Path, environ: Mapping[str, str], mistakes: Mistakes | None = None, *, may_be_empty: bool = True
) -> Table:
    """The tree of a file; ConfigError when it cannot be read or is not a map of settings, or is empty and may not be. A
    key that stands twice is added to *mistakes*, or is a ConfigError, too."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        name = printable(str(path), 1000)
        raise ConfigError(f"{name}: cannot be read: {reason}; give the path of a readable file with -c") from error
    name = printable(str(path), 1000)
    if not may_be_empty and not content.strip():
        raise ConfigError(f"{name}: is empty; write {{}} if the defaults are meant")
    return parse(content, name, environ, mistakes)


def parse(content: bytes, name: str, environ: Mapping[str, str], mistakes: Mistakes | None = None) -> Table:
    """The tree of a file's bytes; ConfigError says where they are not a map of settings. *mistakes* as above."""
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"{name}: is larger than 1 MiB; that is not a settings file")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{name}:{line}: is not UTF-8 text; give a YAML file") from error
    node = Reader(name, environ, mistakes=mistakes).read(text)
    if isinstance(node, Scalar) and node.value is None:
        return Table(f"{name}:1")
    if not isinstance(node, Table):
        raise ConfigError(f"{node.place}: is not a map of settings; begin with a key such as `probes:`")
    return node


class _Yaml(YAML):
    def official_plug_ins(self) -> list[str]:
        """None: ruamel searches its directory for them each time."""
        return []


class Reader:
    """Makes trees of YAML text. *name* is the file's; without *numbered* a place is the name alone."""

    def __init__(
        self, name: str, environ: Mapping[str, str], *, numbered: bool = True, mistakes: Mistakes | None = None
    ) -> None:
        self._name = name
        self._environ = environ
        self._numbered = numbered
        self._mistakes = mistakes

    def read(self, text: str) -> Node:
        """The tree of one document; an empty one is a Scalar of None."""
        yaml = _Yaml(typ="safe", pure=True)
        yaml.composer.warn_double_anchors = False  # YAML allows them, and warnings are not for the user's terminal
        try:
            root = yaml.compose(io.StringIO(text))
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            what = ", ".join(str(part) for part in (error.problem, error.context) if part)
            raise self._not_yaml(self._place(mark.line if mark else 0), what) from error
        except (YAMLError, ValueError, OverflowError) as error:  # the latter of escapes that are no character
            raise self._not_yaml(self._place(0), str(error).strip().split("\n")[0]) from error
        except RecursionError as error:
            raise ConfigError(f"{self._place(0)}: is nested too deeply; settings have at most a few levels") from error
        return Scalar(self._place(0), None) if root is None else self._convert(root, {})

    def _place(self, line_index: int) -> str:
        return f"{self._name}:{line_index + 1}" if self._numbered else self._name

    def _not_yaml(self, place: str, what: str) -> ConfigError:
        what = " ".join(what.split()) or "it cannot be read"
        return ConfigError(f"{place}: is not YAML: {what}; check indentation, quotes and brackets here and just above")

    def _convert(self, node: object, seen: dict[int, Node | None]) -> Node:
        """*seen* shares what an alias names, so that aliases of aliases cannot grow; None: it is being made."""
        if not isinstance(node, ScalarNode | SequenceNode | MappingNode):
            raise ConfigError(f"{self._name}: contains something that is not plain YAML; write plain values")
        place = self._place(node.start_mark.line)
        if id(node) in seen:
            known = seen[id(node)]
            if known is None:
                raise ConfigError(f"{place}: holds itself through an alias; write the settings out")
            return known
        seen[id(node)] = None
        made = self._convert_new(node, place, seen)
        seen[id(node)] = made
        return made

    def _convert_new(
        self, node: ScalarNode | SequenceNode | MappingNode, place: str, seen: dict[int, Node | None]
    ) -> Node:
        if not str(node.tag).startswith(_TAG):
            raise ConfigError(f"{place}: has the tag {printable(str(node.tag))}; write the value without it")
        if isinstance(node, SequenceNode):
            return Listing(place, [self._convert(item, seen) for item in node.value])
        if isinstance(node, MappingNode):
            return self._table(node, place, seen)
        return self._scalar(node, place)

    def _table(self, node: MappingNode, place: str, seen: dict[int, Node | None]) -> Table:
        table = Table(place)
        for key_node, value_node in node.value:
            key_place = self._place(key_node.start_mark.line)
            if not isinstance(key_node, ScalarNode):
                raise ConfigError(f"{key_place}: has a list or map for a key; write a word")
            key = key_node.value
            if key in table.entries:
                self._stands_twice(key, key_place, table.key_places[key])
                continue
            table.entries[key] = self._convert(value_node, seen)
            table.key_places[key] = key_place
        return table

    def _stands_twice(self, key: str, place: str, first: str) -> None:
        what = f"the key {printable(key)} is given twice, first at {first}; keep one of them"
        if self._mistakes is None:
            raise ConfigError(f"{place}: {what}")
        self._mistakes.append((place, what))

    def _scalar(self, node: ScalarNode, place: str) -> Node:
        text = node.value
        if "$" in text:
            whole = _VARIABLE.fullmatch(text)
            filled = _VARIABLE.sub(lambda match: self._variable(match, place), text)
            return self._typed(filled, place) if whole and text != "$$" else Scalar(place, filled, filled)
        value = scalar_value(str(node.tag).removeprefix(_TAG), text)
        return Scalar(place, value, text if isinstance(value, str) else None)

    def _variable(self, match: re.Match[str], place: str) -> str:
        if match[0] == "$$":
            return "$"
        name, default = match[1], match[2]
        if name is None:
            raise ConfigError(
                f"{place}: {printable(match[0])} names no variable; write ${{env:NAME}}, and $$ for a dollar sign"
            )
        value = self._environ.get(name, default)
        if value is None:
            raise ConfigError(
                f"{place}: the variable {name} is not set; set it, or give a default: ${{env:{name}:-value}}"
            )
        return value

    def _typed(self, text: str, place: str) -> Node:
        """A variable's text as the YAML value that it spells; text that spells none is text."""
        try:
            node = _Literal(place, {}, numbered=False).read(text)
        except ConfigError:
            return Scalar(place, text, text)
        node.text = text
        return node


class _Literal(Reader):
    """YAML in which a dollar sign is a dollar sign: what a variable held is not looked through for variables."""

    def _variable(self, match: re.Match[str], place: str) -> str:
        return match[0]


def scalar_value(kind: str, text: str) -> str | int | float | bool | None:
    """The value of a plain scalar that YAML resolves to *kind*; what is too odd for a setting stays text."""
    if kind == "null":
        return None
    if kind == "bool":
        return _TRUTH.get(text.lower(), text)
    if kind == "int":
        return _integer(text)
    if kind == "float":
        return _real(text)
    return text


def _integer(text: str) -> int | str:
    sign, digits = ("-", text[1:]) if text.startswith("-") else ("", text.removeprefix("+"))
    base = _BASES.get(digits[:2].lower(), 10)
    try:
        return int(sign + (digits if base == 10 else digits[2:]), base)
    except ValueError:  # too many digits, 1:30
        return text


def _real(text: str) -> float | str:
    lower = text.lower()
    if lower in _SPECIAL_FLOATS:
        return _SPECIAL_FLOATS[lower]
    try:
        return float(text)
    except ValueError:
        return text
