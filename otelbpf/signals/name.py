"""What a name is: a string that knows its type, unit and meaning."""

from __future__ import annotations

from typing import Literal, Self

Type = Literal["str", "int", "double", "bool", "str[]"]
Stability = Literal["stable", "release_candidate", "development", "deprecated"]
Instrument = Literal["Counter", "UpDownCounter", "Histogram", "Gauge"]


class AttributeName(str):
    """The key of an attribute. *registry*: it is one of OpenTelemetry's; a *template* is completed by ``.key``."""

    __slots__ = ("note", "registry", "stability", "template", "type", "unit")

    type: Type
    unit: str
    note: str
    registry: bool
    stability: Stability
    template: bool

    def __new__(
        cls,
        name: str,
        kind: Type,
        note: str = "",
        *,
        unit: str = "",
        registry: bool = False,
        stability: Stability = "development",
        template: bool = False,
    ) -> Self:
        made = super().__new__(cls, name)
        made.type = kind
        made.unit = unit
        made.note = note
        made.registry = registry
        made.stability = stability
        made.template = template
        return made


class EventName(str):
    """The event_name of a log record."""

    __slots__ = ("description",)

    description: str

    def __new__(cls, name: str, description: str) -> Self:
        made = super().__new__(cls, name)
        made.description = description
        return made


class MetricName(str):
    """The name of a metric. *bounds* are a histogram's explicit bounds, in *unit*."""

    __slots__ = ("bounds", "description", "instrument", "registry", "unit")

    instrument: Instrument
    unit: str
    description: str
    bounds: tuple[float, ...]
    registry: bool

    def __new__(
        cls,
        name: str,
        instrument: Instrument,
        unit: str,
        description: str,
        *,
        bounds: tuple[float, ...] = (),
        registry: bool = False,
    ) -> Self:
        made = super().__new__(cls, name)
        made.instrument = instrument
        made.unit = unit
        made.description = description
        made.bounds = bounds
        made.registry = registry
        return made
