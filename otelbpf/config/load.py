"""From a file, `--set` and the standard variables to one Config, or to the sentences that say why not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import inspect

from otelbpf.config import environment
from otelbpf.config.checks import mistakes
from otelbpf.config.document import Mistakes, Reader, Scalar, Table, parse, read_file
from otelbpf.config.fill import Filler, Problems
from otelbpf.config.override import override
from otelbpf.config.settings import Config

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from otelbpf.config.document import Node

DEFAULT_KEY = "${env:OTELBPF_CONNECTION_KEY:-}"
"""The connection id's key where nothing else is said, so that a Secret of Kubernetes reaches it without a file."""

NODE_NAME = "NODE_NAME"
"""What manifests put `spec.nodeName` in."""


def load(
    path: Path | None,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    *,
    may_be_empty: bool = True,
) -> Config:
    """The settings of the file at *path* (None: all defaults) with *overrides* (`KEY=VALUE`) on top.

    Where neither names an exporter the standard variables in *environ* do, else the console is it. A file that replaces
    another one may not be empty: it is being written, or a full disk has cut it.
    Raises ConfigError: one line for each mistake, with file, line and key path.
    """
    environ = {} if environ is None else environ
    found: Mistakes = []
    tree = Table("the defaults") if path is None else read_file(path, environ, found, may_be_empty=may_be_empty)
    return _build(tree, overrides, environ, found)


def loads(content: bytes, name: str = "settings", environ: Mapping[str, str] | None = None) -> Config:
    """The settings of a file's *content*, as `load` gives them."""
    environ = {} if environ is None else environ
    found: Mistakes = []
    return _build(parse(content, name, environ, found), (), environ, found)


def _build(tree: Table, overrides: Sequence[str], environ: Mapping[str, str], found: Mistakes) -> Config:
    for assignment in overrides:
        tree = override(tree, assignment, environ)
    tree = _completed(tree, environ)
    problems = Problems()
    for place, what in found:
        problems.add(place, "", what)
    filler = Filler(problems)
    config: Config = filler.fill(inspect.type_info(Config), tree, "")
    problems.refuse()
    for where, what in mistakes(config):
        problems.add(_place(filler.places, where), where, what)
    problems.refuse()
    return config


def _completed(tree: Table, environ: Mapping[str, str]) -> Table:
    """*tree* with what the variables add to what it leaves open."""
    variables = Table("the environment")
    if _is_empty(tree.entries.get("exporters")):
        named = environment.exporters(environ)
        tree = Table(tree.place, {**tree.entries}, {**tree.key_places})
        tree.put("exporters", named if named.entries else _table("console", Table("the defaults")))
    key = Reader("OTELBPF_CONNECTION_KEY", environ, numbered=False).read(f'"{DEFAULT_KEY}"')
    variables.put("connection_id", _table("key", key))
    node = environ.get(NODE_NAME, "").strip()
    if node:
        variables.put("kubernetes", _table("node_name", Scalar(NODE_NAME, node, node)))
    variables.put("resource", _table("attributes", environment.resource_attributes(environ)))
    return _over(tree, variables)


def _is_empty(node: Node | None) -> bool:
    if isinstance(node, Table):
        return not node.entries
    return node is None or (isinstance(node, Scalar) and node.value is None)


def _over(tree: Table, below: Table) -> Table:
    """Both, key by key; where both say something *tree* counts. Neither is changed."""
    both = Table(tree.place, {**tree.entries}, {**tree.key_places})
    for key, node in below.entries.items():
        mine = tree.entries.get(key)
        if isinstance(mine, Table) and isinstance(node, Table):
            both.entries[key] = _over(mine, node)
        elif mine is None or (isinstance(node, Table) and _is_empty(mine)):
            both.put(key, node)
    return both


def _table(key: str, node: Node) -> Table:
    table = Table(node.place)
    table.put(key, node)
    return table


def _place(places: Mapping[str, str], path: str) -> str:
    """Where the setting at *path* was given, or the nearest group above it."""
    while path and path not in places:
        path = path.rpartition(".")[0]
    return places[path]
