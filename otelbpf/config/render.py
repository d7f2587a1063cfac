"""Settings as a YAML file: what `config print` shows and what `config/otelbpf.yaml` is made of."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

from msgspec import Struct, inspect

from otelbpf.config import quantities
from otelbpf.config.kinds import bare, quantity, variable
from otelbpf.config.settings import EXPORTERS, Config, Slow, Throttle

if TYPE_CHECKING:
    from collections.abc import Iterator

HIDDEN = "***"
EXAMPLES: dict[str, dict[str, Any]] = {
    "otlp_grpc": {"endpoint": "collector:4317"},
    "otlp_http": {"endpoint": "http://collector:4318"},
}
"""What an exporter is shown with where there is none."""
COMMENT_COLUMN = 44


def render(config: Config) -> str:
    """The effective settings as a file that `load` reads; secrets are hidden."""
    return "".join(f"{line}\n" for line in _group(config, Config, 0, comments=False))


def template() -> str:
    """Every setting with its default and its meaning; the text of `config/otelbpf.yaml`."""
    lines = [
        "# Every setting of otelbpf with its default. Made by `make docs` from otelbpf/config/settings.py.",
        "# ${env:NAME} and ${env:NAME:-default} stand for variables, $$ for a dollar sign.",
        "",
    ]
    for line in _group(Config(), Config, 0, comments=True):
        if not line.startswith(" ") and len(lines) > 3:
            lines.append("")
        lines.append(line)
        if line.startswith("exporters:"):
            lines += _exporter_examples()
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _exporter_examples() -> Iterator[str]:
    yield "#  Take the {} away and the # off the lines that you need; several of a kind are named such as otlp_grpc/second."
    for name, kind in EXPORTERS.items():
        yield f"#  {name}:"
        for line in _group(kind(**EXAMPLES.get(name, {})), kind, 2, comments=True):
            yield f"#{line}"


def _group(values: Any, kind: type, depth: int, *, comments: bool) -> Iterator[str]:
    info = inspect.type_info(kind)
    fields = info.fields if isinstance(info, inspect.StructType) else ()
    for field in sorted(fields, key=_after_endpoints):
        yield from _setting(field.name, getattr(values, field.name), field.type, depth, comments=comments)


def _after_endpoints(field: inspect.Field) -> bool:
    """Where an exporter sends is what one looks for first; the sort leaves the rest in its order."""
    return not field.name.endswith("endpoint")


def _setting(name: str, value: Any, kind: inspect.Type, depth: int, *, comments: bool) -> Iterator[str]:
    indent = "  " * depth
    note = description(kind) if comments else ""
    if isinstance(value, Struct) and not isinstance(value, Slow | Throttle):
        yield _with_note(f"{indent}{name}:", note)
        yield from _group(value, type(value), depth + 1, comments=comments)
    elif isinstance(value, dict) and value:
        yield _with_note(f"{indent}{name}:", note)
        for key, item in value.items():
            yield from _setting(scalar(key, key=True), item, _item(kind), depth + 1, comments=comments)
    elif comments and quantity(kind) == "secret":
        yield _with_note(f'{indent}{name}: "${{env:OTELBPF_CONNECTION_KEY:-}}"', note)
    elif comments and (named := variable(kind)):
        yield _with_note(f'{indent}{name}: "${{env:{named}:-}}"', note)
    else:
        yield _with_note(f"{indent}{name}: {text(value, kind)}", note)


def _with_note(line: str, note: str) -> str:
    return f"{line:<{COMMENT_COLUMN}}# {note}" if note else line


def _item(kind: inspect.Type) -> inspect.Type:
    kind = bare(kind)
    return kind.value_type if isinstance(kind, inspect.DictType) else kind


def description(kind: inspect.Type) -> str:
    """What a setting means."""
    notes = kind.extra_json_schema if isinstance(kind, inspect.Metadata) else None
    return str((notes or {}).get("description", ""))


def written(value: Any, kind: inspect.Type) -> Any:
    """*value* as it stands in a file: durations and sizes as text, secrets hidden."""
    name = quantity(kind)
    if name == "secret":
        return HIDDEN if value else ""
    if name == "duration":
        return quantities.duration_text(value)
    return quantities.size_text(value) if "size" in name and isinstance(value, int) else value


def text(value: Any, kind: inspect.Type) -> str:
    """*value* as YAML on one line."""
    if isinstance(value, Slow):
        return f"{{slow: {quantities.duration_text(value.slow)}}}"
    if isinstance(value, Throttle):
        return f"{{rate: {value.rate}, burst: {value.burst}}}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(scalar(item, flow=True) for item in value)}]"
    if isinstance(value, dict):
        return "{}"
    return scalar(written(value, kind))


_PLAIN = re.compile(r"[A-Za-z_/](?:[A-Za-z0-9_./:@-]*[A-Za-z0-9_./@-])?", re.ASCII)
_PLAIN_IN_LIST = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*", re.ASCII)
_QUANTITY = re.compile(r"\d+(?:\.\d+)?(?:ns|us|ms|s|m|h|B|kB|MB|GB|KiB|MiB|GiB)", re.ASCII)
_RESERVED = {"true", "false", "null"}


def scalar(value: Any, *, flow: bool = False, key: bool = False) -> str:
    """One YAML scalar; text is quoted where YAML or a variable could read something else into it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    if not isinstance(value, str):
        return repr(value)
    plain = (_PLAIN_IN_LIST if flow else _PLAIN).fullmatch(value) and value.lower() not in _RESERVED
    if plain or _QUANTITY.fullmatch(value):
        return value
    return _quoted(value if key else value.replace("$", "$$"))


def _quoted(text: str) -> str:
    """In double quotes, with what YAML does not take raw as escapes."""
    return "".join(
        character if character.isprintable() else f"\\U{ord(character):08x}"
        for character in json.dumps(text, ensure_ascii=False)
    )
