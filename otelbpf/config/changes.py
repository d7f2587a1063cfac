"""Two configurations compared: what a reload applies, what needs a restart, and what then holds.

All of it follows from the mark `live` of each setting, so a sentence, the documentation and what is done agree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec import inspect

from otelbpf.config.document import key_path
from otelbpf.config.settings import Config, Settings, Slow

if TYPE_CHECKING:
    from collections.abc import Mapping


class Changes(NamedTuple):
    """What is different, by key path. An exporter that comes or goes is one path."""

    config: Config
    """What holds from now on: the new values where they can be applied, the former ones elsewhere."""
    applied: tuple[str, ...]
    restart: tuple[str, ...]
    """What holds after a restart only."""

    def __bool__(self) -> bool:
        return bool(self.applied or self.restart)

    def touches(self, group: str) -> bool:
        """Whether anything below the key *group* is applied."""
        return any(path == group or path.startswith(f"{group}.") for path in self.applied)


def changes(former: Config, wanted: Config) -> Changes:
    """How to come from *former*, which is in force, to *wanted*."""
    found = _Comparison()
    config = found.group(former, wanted, "", live=False)
    return Changes(config, tuple(found.applied), tuple(found.restart))


def is_live(kind: inspect.Type, *, above: bool) -> bool:
    """The mark of a setting, else that of the group *above*."""
    while isinstance(kind, inspect.Metadata):
        if kind.extra and "live" in kind.extra:
            return bool(kind.extra["live"])
        kind = kind.type
    return above


class _Comparison:
    """Walks both trees at once; gives the values that hold and notes the paths."""

    def __init__(self) -> None:
        self.applied: list[str] = []
        self.restart: list[str] = []

    def group(self, former: Any, wanted: Any, path: str, *, live: bool) -> Any:
        info = inspect.type_info(type(wanted))
        fields = info.fields if isinstance(info, inspect.StructType) else ()
        values = {
            field.name: self._setting(
                getattr(former, field.name),
                getattr(wanted, field.name),
                key_path(path, field.name),
                live=is_live(field.type, above=live),
            )
            for field in fields
        }
        return type(wanted)(**values)

    def _setting(self, former: Any, wanted: Any, path: str, *, live: bool) -> Any:
        if type(former) is type(wanted) and isinstance(wanted, Settings) and not isinstance(wanted, Slow):
            return self.group(former, wanted, path, live=live)
        if _holds_groups(former) or _holds_groups(wanted):
            return self._groups(former, wanted, path, live=live)
        if _written(former) == _written(wanted):
            return former
        (self.applied if live else self.restart).append(path)
        return wanted if live else former

    def _groups(self, former: Mapping[str, Any], wanted: Mapping[str, Any], path: str, *, live: bool) -> dict[str, Any]:
        """A map of named groups: those that come and go, and what is different within those that stay."""
        self.applied += [key_path(path, name) for name in former if name not in wanted]
        self.applied += [key_path(path, name) for name in wanted if name not in former]
        return {
            name: self._setting(former[name], group, key_path(path, name), live=live) if name in former else group
            for name, group in wanted.items()
        }


def _holds_groups(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(member, Settings) for member in value.values())


def _written(value: Any) -> bytes:
    """So that 1 is not true, and the order of keys says nothing."""
    return msgspec.json.encode(value, order="deterministic")
