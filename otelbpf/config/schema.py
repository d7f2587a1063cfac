"""A JSON Schema of the settings file, for editors that complete and check while one types."""

from __future__ import annotations

from typing import Any

from msgspec import inspect

from otelbpf.config.render import written
from otelbpf.config.settings import EXPORTERS, OLDER_NAMES, Config

_QUANTITIES: dict[str, dict[str, Any]] = {
    "duration": {"type": "string", "examples": ["10s", "500ms", "1m30s"]},
    "size": {"type": ["string", "integer"], "examples": ["4MiB", "512KiB"]},
    "ring size": {"type": ["string", "integer"], "examples": ["4MiB", "512KiB"]},
}


def schema() -> dict[str, Any]:
    """The whole schema. A variable (`${env:NAME}`) may stand for any value, so numbers and switches take text too."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "otelbpf",
        **_schema(inspect.type_info(Config)),
    }


def _schema(kind: inspect.Type) -> dict[str, Any]:
    match kind:
        case inspect.Metadata(type=inner, extra_json_schema=notes, extra=extra):
            quantity = (extra or {}).get("quantity", "")
            return {**(_QUANTITIES.get(quantity) or _schema(inner)), **(notes or {})}
        case inspect.StructType(fields=fields):
            return {
                "type": ["object", "null"],
                "additionalProperties": False,
                "properties": {field.name: _property(field) for field in fields},
                **({"required": names} if (names := [field.name for field in fields if field.required]) else {}),
            }
        case inspect.DictType(value_type=inspect.UnionType(types=types)) if isinstance(types[0], inspect.StructType):
            return {"type": ["object", "null"], "additionalProperties": False, "patternProperties": _exporters()}
        case inspect.DictType(value_type=value_type):
            return {"type": ["object", "null"], "additionalProperties": _schema(value_type)}
        case inspect.VarTupleType(item_type=item_type) | inspect.ListType(item_type=item_type):
            return {"type": ["array", "null"], "items": _schema(item_type), **_limits(kind)}
        case inspect.UnionType(types=types):
            return {"anyOf": [_schema(member) for member in types]}
        case inspect.LiteralType(values=words):
            return {"enum": sorted(words)}
    return _plain(kind)


def _exporters() -> dict[str, Any]:
    """Each kind under its name, its older names and `name/anything`."""
    patterns = {}
    for name, kind in EXPORTERS.items():
        names = "|".join([name, *(older for older, today in OLDER_NAMES.items() if today == name)])
        patterns[f"^({names})(/.+)?$"] = _schema(inspect.type_info(kind))
    return patterns


def _property(field: inspect.Field) -> dict[str, Any]:
    made = _schema(field.type)
    if (
        field.required
        or isinstance(made.get("properties"), dict)
        or not isinstance(field.default, str | bool | int | float)
    ):
        return made
    return {**made, "default": written(field.default, field.type)}


def _plain(kind: inspect.Type) -> dict[str, Any]:
    match kind:
        case inspect.BoolType():
            return {"type": "boolean"}
        case inspect.IntType():
            return {"type": "integer", **_limits(kind)}
        case inspect.FloatType():
            return {"type": "number", **_limits(kind)}
    return {"type": "string", **_limits(kind)}


_KEYWORDS = {"ge": "minimum", "le": "maximum"}
_LENGTHS = {inspect.StrType: ("minLength", "maxLength"), inspect.VarTupleType: ("minItems", "maxItems")}


def _limits(kind: inspect.Type) -> dict[str, Any]:
    shortest, longest = _LENGTHS.get(type(kind), ("minLength", "maxLength"))
    keywords = {**_KEYWORDS, "min_length": shortest, "max_length": longest}
    found = {keyword: getattr(kind, name, None) for name, keyword in keywords.items()}
    return {keyword: limit for keyword, limit in found.items() if limit is not None}
