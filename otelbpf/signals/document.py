"""The documentation of the signals, from the declarations of the probes and the table of names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelbpf.probes.probe import Choice, Constant, Known
from otelbpf.signals import names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from otelbpf.probes.probe import Attribute, Metric, Probe
    from otelbpf.signals.name import AttributeName, MetricName

_MOST_VALUES = 12


def tables(probes: Sequence[Probe]) -> str:
    """Markdown: the log records, the metrics and every attribute of *probes*, and the resource."""
    return "\n".join([*_records(probes), *_metrics(probes), *_attributes(probes), *_resource()]) + "\n"


def probes(declared: Sequence[Probe]) -> str:
    """Plain text for a terminal: each probe with the ways it gets its signal, its cost, log records and metrics."""
    lines: list[str] = []
    for probe in declared:
        lines += [f"{probe.name}: {probe.summary}", *_ways(probe)]
        lines += [f"  cost: {probe.cost}"] if probe.cost else []
        for name, attributes in {event.name: event.attributes for event in probe.events}.items():
            lines.append(f"  log record {name}: {_described(name)}")
            lines += [f"    {attribute}" for attribute in attribute_names(attributes)]
        for metric, by in _by_metric(probe.metrics).items():
            lines.append(f"  metric {metric} ({metric.instrument}, {metric.unit}): {metric.description}")
            lines += [f"    {attribute}" for attribute in by]
        for metric, by in _by_metric(probe.totals.metrics if probe.totals else ()).items():
            lines.append(f"  beyond its throttle metric {metric} by {', '.join(by)}")
        lines.append("")
    return "\n".join(lines).rstrip()


def attribute_names(attributes: Iterable[Attribute]) -> list[AttributeName]:
    """The names of declared attributes, each once, in their order."""
    found: dict[AttributeName, None] = {}
    for attribute in attributes:
        found |= dict.fromkeys(attribute.names if isinstance(attribute, Known) else (attribute.name,))
    return list(found)


def _ways(probe: Probe) -> Iterator[str]:
    for way in probe.ways:
        yield f"  way {way.name}: {', '.join(way.programs + way.optional)}"
        yield from (f"    without {program} is lost: {lost}" for program, lost in way.lost.items())


def _records(declared: Sequence[Probe]) -> Iterator[str]:
    yield "### Log records\n"
    yield "| event | when | severity | `logs` setting | attributes |"
    yield "| --- | --- | --- | --- | --- |"
    described: set[str] = set()
    for probe in declared:
        for event in probe.events:
            if event.name in described:  # the same record under another setting
                continue
            described.add(event.name)
            settings = ", ".join(f"`{each.setting}`" for each in probe.events if each.name == event.name)
            always_failed = event.failed is not None and event.failed == event.when
            levels = [*["INFO"] * (not always_failed), *["WARN"] * bool(event.failed), *["ERROR"] * bool(event.error)]
            yield _row(
                f"`{event.name}`",
                _described(event.name),
                ", ".join(levels),
                settings,
                _listed(attribute_names(event.attributes)),
            )
    yield ""


def _metrics(declared: Sequence[Probe]) -> Iterator[str]:
    yield "### Metrics\n"
    yield "| metric | instrument | unit | what | attributes |"
    yield "| --- | --- | --- | --- | --- |"
    for probe in declared:
        for name, by in _by_metric(probe.metrics).items():
            bounds = f"; bounds {' '.join(f'{bound:g}' for bound in name.bounds)}" if name.bounds else ""
            what = name.description.rstrip(".") + bounds
            yield _row(f"`{name}`", name.instrument, f"`{name.unit}`", what, _listed(by))
    yield ""


def _attributes(declared: Sequence[Probe]) -> Iterator[str]:
    yield "### Attributes of log records and metrics\n"
    yield "| attribute | type | unit | what | registry |"
    yield "| --- | --- | --- | --- | --- |"
    used = [item for probe in declared for event in probe.events for item in event.attributes]
    used += [item for probe in declared for metric in probe.metrics for item in metric.by]
    used += [item for probe in declared if probe.totals for metric in probe.totals.metrics for item in metric.by]
    values = _values(used)
    general = [names.OTEL_EVENT_NAME, names.OTEL_METRIC_OVERFLOW, names.OTELBPF_SAMPLE_WEIGHT, *names.LEGACY.values()]
    for name in sorted({*attribute_names(used), *general}):
        yield _row(
            f"`{name}`",
            _type(name),
            name.unit,
            name.note or ", ".join(values.get(name, ())),
            name.stability.replace("_", " ") if name.registry else "",
        )
    yield ""


def _resource() -> Iterator[str]:
    yield "### Resource of what is observed\n"
    yield "| attribute | type | what | registry |"
    yield "| --- | --- | --- | --- |"
    for name in names.RESOURCE:
        key = f"`{name}.<key>`" if name.template else f"`{name}`"
        yield _row(key, _type(name), name.note, name.stability.replace("_", " ") if name.registry else "")


def _by_metric(metrics: Iterable[Metric]) -> dict[MetricName, list[AttributeName]]:
    """Metric → all attributes that any of its declarations has."""
    found: dict[MetricName, list[AttributeName]] = {}
    for metric in metrics:
        known = found.setdefault(metric.name, [])
        known += [name for name in attribute_names(metric.by) if name not in known]
    return found


def _values(attributes: Iterable[Attribute]) -> dict[AttributeName, list[str]]:
    """Attribute → the texts that declarations allow, where they are few."""
    found: dict[AttributeName, dict[str, None]] = {}
    for attribute in attributes:
        match attribute:
            case Choice():
                texts = [str(value).lower() if value is True else str(value) for value in attribute.values.values()]
            case Constant(_, value):
                texts = [str(value)]
            case _:
                continue
        found.setdefault(attribute.name, {}).update(dict.fromkeys(texts))
    return {name: list(texts) for name, texts in found.items() if len(texts) <= _MOST_VALUES}


def _described(event: str) -> str:
    return names.EVENTS[event].description


def _type(name: AttributeName) -> str:
    return {"str": "string", "str[]": "string[]"}.get(name.type, name.type)


def _listed(chosen: Iterable[AttributeName]) -> str:
    return ", ".join(f"`{name}`" for name in chosen)


def _row(*cells: str) -> str:
    escaped = (cell.replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"
