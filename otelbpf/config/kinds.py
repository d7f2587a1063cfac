"""What stands behind the type of a setting: msgspec wraps it in what is said about it."""

from __future__ import annotations

from msgspec import inspect


def bare(kind: inspect.Type) -> inspect.Type:
    """*kind* without what is said about it."""
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    return kind


def quantity(kind: inspect.Type) -> str:
    """`duration`, `size`, `secret` …: how a setting is written."""
    return str(_extra(kind, "quantity"))


def variable(kind: inspect.Type) -> str:
    """The variable that a setting is taken from where nothing else is said."""
    return str(_extra(kind, "variable"))


def _extra(kind: inspect.Type, name: str) -> object:
    while isinstance(kind, inspect.Metadata):
        if kind.extra and name in kind.extra:
            return kind.extra[name]
        kind = kind.type
    return ""
