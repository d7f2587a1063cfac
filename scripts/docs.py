"""Write what is generated from the code: config/otelbpf.yaml, and the marked parts of README.md and docs/*.md.

docs.py          writes what is stale
docs.py --check  names it instead, and fails

A part stands between `<!-- generated: NAME -->` and `<!-- end -->`; whatever is around it is written by hand.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from msgspec import inspect

from otelbpf.config.changes import is_live
from otelbpf.config.kinds import bare, quantity
from otelbpf.config.quantities import quantity_text
from otelbpf.config.render import description, template, text
from otelbpf.config.settings import EXPORTERS, Config
from otelbpf.export.instruments import all_instruments
from otelbpf.probes import PROBES
from otelbpf.signals import document, names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[1]
PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


class Row(NamedTuple):
    """One setting as its table shows it."""

    key: str
    default: str
    limits: str
    changed: str
    meaning: str

    def __str__(self) -> str:
        return f"| `{self.key}` | {self.default} | {self.limits} | {self.changed} | {self.meaning} |"


def settings() -> str:
    """A table of every setting for each group of the configuration."""
    info = inspect.type_info(Config)
    assert isinstance(info, inspect.StructType)
    groups = {field.name: field for field in info.fields}
    exporters = groups.pop("exporters")
    live = is_live(exporters.type, above=False)
    tables = [_table(name, _rows_of(field)) for name, field in groups.items()]
    tables += [
        _table(f"exporters.{name}", _rows(inspect.type_info(kind), "", live=live)) for name, kind in EXPORTERS.items()
    ]
    return "\n".join(tables)


def _table(title: str, rows: Iterator[Row]) -> str:
    lines = [
        f"### {title}",
        "",
        "| setting | default | range | a change takes effect | meaning |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *map(str, rows), ""])


def _rows_of(field: inspect.Field) -> Iterator[Row]:
    inner, live = bare(field.type), is_live(field.type, above=False)
    if isinstance(inner, inspect.StructType):
        yield from _rows(inner, "", live=live)
    else:
        yield _row(field, field.name, live=live)


def _rows(kind: inspect.Type, path: str, *, live: bool) -> Iterator[Row]:
    assert isinstance(kind, inspect.StructType)
    for field in sorted(kind.fields, key=lambda field: not field.name.endswith("endpoint")):
        inner, mine = bare(field.type), is_live(field.type, above=live)
        key = f"{path}{field.name}"
        if isinstance(inner, inspect.StructType):
            yield from _rows(inner, f"{key}.", live=mine)
        else:
            yield _row(field, key, live=mine)


def _row(field: inspect.Field, key: str, *, live: bool) -> Row:
    default = "required" if field.required else f"`{_default(field)}`"
    changed = "after a reload" if live else "after a restart"
    return Row(key, default, _range(field.type), changed, description(field.type).replace("|", r"\|"))


def _default(field: inspect.Field) -> str:
    value = field.default_factory() if callable(field.default_factory) else field.default
    return text(value, field.type)


def _range(kind: inspect.Type) -> str:
    inner = bare(kind)
    if isinstance(inner, inspect.LiteralType):
        return ", ".join(f"`{word}`" for word in sorted(inner.values))
    if isinstance(inner, inspect.UnionType) and not any(
        isinstance(one, inspect.StructType | inspect.BoolType) for one in inner.types
    ):
        return ", or ".join(filter(None, map(_range, inner.types)))
    low, high = getattr(inner, "ge", None), getattr(inner, "le", None)
    measure = quantity(kind)
    texts = [quantity_text(limit, measure) for limit in (low, high) if limit is not None]
    if len(texts) == 2:
        return f"{texts[0]} to {texts[1]}"
    return "" if not texts else f"from {texts[0]}" if low is not None else f"to {texts[0]}"


def summary() -> str:
    """Log records and metrics with what they say; their attributes are in docs/signals.md."""
    records = {event.name: names.EVENTS[event.name].description for probe in PROBES for event in probe.events}
    metrics = {metric.name: metric.name for probe in PROBES for metric in probe.metrics}
    lines = ["| log record | |", "|---|---|", *(f"| `{name}` | {what} |" for name, what in records.items()), ""]
    lines += ["| metric | instrument, unit | |", "|---|---|---|"]
    lines += [f"| `{name}` | {name.instrument}, {name.unit} | {name.description} |" for name in metrics]
    return "\n".join(lines)


def telemetry() -> str:
    """The agent's metrics and events about itself."""
    lines = ["| metric | instrument | unit | what |", "|---|---|---|---|"]
    metrics = [*(name for name, _ in all_instruments()), names.METRIC_OTELBPF_AGENT_EVENT_LAG]  # recorded, not observed
    lines += [f"| `{name}` | {name.instrument} | `{name.unit}` | {name.description} |" for name in metrics]
    lines += ["", "| event | when |", "|---|---|"]
    events = [name for name in names.EVENTS.values() if name.startswith("otelbpf.agent.")]
    lines += [f"| `{name}` | {name.description} |" for name in events]
    return "\n".join(lines)


PARTS: dict[str, Callable[[], str]] = {
    "settings": settings,
    "signals": lambda: document.tables(PROBES),
    "summary": summary,
    "telemetry": telemetry,
}


def documents() -> Iterator[tuple[Path, str]]:
    """Each generated file and what it should be."""
    yield ROOT / "config" / "otelbpf.yaml", template()
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        yield path, PART.sub(lambda part: f"{part[1]}\n{PARTS[part[2]]().strip()}\n\n{part[3]}", path.read_text())


def main() -> int:
    """0 when all is fresh, or was written."""
    stale = [(path, fresh) for path, fresh in documents() if not path.exists() or path.read_text() != fresh]
    for path, fresh in stale:
        print(f"{path.relative_to(ROOT)}: {'stale; run make docs' if '--check' in sys.argv else 'written'}")
        if "--check" not in sys.argv:
            path.write_text(fresh)
    return int(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
