"""`--set KEY=VALUE`: one key of the tree replaced, the value read as YAML."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import inspect

from otelbpf.config.document import Reader, Table, printable
from otelbpf.config.fill import canonical
from otelbpf.config.settings import EXPORTERS, Config
from otelbpf.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otelbpf.config.document import Node


def override(tree: Table, assignment: str, environ: Mapping[str, str]) -> Table:
    """A tree like *tree* with the setting of `KEY=VALUE`; ConfigError when it is not of this form."""
    path, equals, text = assignment.partition("=")
    keys = split_path(path.strip())
    if not equals or not all(keys):
        raise ConfigError(f"--set {printable(path)}: is not KEY=VALUE; write it such as --set metrics.interval=30s")
    node = Reader("--set", environ, numbered=False).read(text)
    if node.text is None and text.strip() == "":
        node.text = ""
    return _replaced(tree, keys, node)


def _replaced(tree: Node | None, keys: Sequence[str], node: Node) -> Table:
    """A copy along the path only: an alias may show the same table in two places."""
    table = tree if isinstance(tree, Table) else Table(node.place)
    copy = Table(table.place, dict(table.entries), dict(table.key_places))
    key = keys[0]
    copy.put(key, node if len(keys) == 1 else _replaced(copy.entries.get(key), keys[1:], node))
    return copy


def split_path(path: str) -> list[str]:
    """The keys of a dotted path; below a free map (attributes, headers) the rest is one key."""
    return _split(inspect.type_info(Config), path)


def _split(kind: inspect.Type, path: str) -> list[str]:
    if isinstance(kind, inspect.Metadata):
        return _split(kind.type, path)
    if isinstance(kind, inspect.DictType):
        return _exporter(path) if isinstance(kind.value_type, inspect.UnionType) and _holds_structs(kind) else [path]
    key, dot, rest = path.partition(".")
    if not dot:
        return [path]
    return [key, *_split(_field(kind, key), rest)]


def _holds_structs(kind: inspect.DictType) -> bool:
    return isinstance(kind.value_type, inspect.UnionType) and any(
        isinstance(member, inspect.StructType) for member in kind.value_type.types
    )


def _field(kind: inspect.Type, key: str) -> inspect.Type:
    if isinstance(kind, inspect.UnionType):
        kind = next((member for member in kind.types if isinstance(member, inspect.StructType)), kind)
    fields = kind.fields if isinstance(kind, inspect.StructType) else ()
    return next((field.type for field in fields if field.name == key), inspect.AnyType())


def _exporter(path: str) -> list[str]:
    """An exporter's own name may hold dots: the first dot after which a setting of its type follows ends it."""
    parts = path.split(".")
    settings = inspect.type_info(EXPORTERS.get(canonical(parts[0]).split("/")[0], Config))
    for length in range(1, len(parts)):
        if not isinstance(_field(settings, parts[length]), inspect.AnyType):
            return [canonical(".".join(parts[:length])), *_split(settings, ".".join(parts[length:]))]
    return [canonical(parts[0]), *parts[1:]] if "/" not in parts[0] else [canonical(path)]
