"""Whatever a file, an override or a variable holds: a Config or a ConfigError, nothing else."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from msgspec import inspect

from otelbpf import config
from otelbpf.config import Config
from otelbpf.config.environment import PREFIX
from otelbpf.config.quantities import duration_text, parse_duration, parse_size, size_text
from otelbpf.config.settings import EXPORTERS
from otelbpf.errors import ConfigError

VARIABLES = [
    "ENDPOINT",
    "LOGS_ENDPOINT",
    "PROTOCOL",
    "METRICS_PROTOCOL",
    "HEADERS",
    "TIMEOUT",
    "INSECURE",
    "CERTIFICATE",
]


def all_keys() -> list[str]:
    found = {"exporters", "otlp", "otlphttp/x", *EXPORTERS}

    def walk(kind: inspect.Type) -> None:
        if isinstance(kind, inspect.Metadata):
            walk(kind.type)
        if isinstance(kind, inspect.StructType):
            for field in kind.fields:
                found.add(field.name)
                walk(field.type)

    for kind in (Config, *EXPORTERS.values()):
        walk(inspect.type_info(kind))
    return sorted(found)


keys = st.sampled_from(all_keys()) | st.text(max_size=8)
words = st.sampled_from(
    [
        "10s",
        "1m30s",
        "4MiB",
        "off",
        "all",
        "${env:A}",
        "${env:B:-x}",
        "$$",
        "10.0.0.0/8",
        "http://c:4317",
        "c:4317",
        "0x1f",
    ]
)
leaves = st.none() | st.booleans() | st.integers() | st.floats() | words | st.text(max_size=20)
trees = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=25
)
environs = st.dictionaries(
    st.sampled_from(
        ["A", "B", "OTEL_RESOURCE_ATTRIBUTES", "OTELBPF_CONNECTION_KEY", *(PREFIX + name for name in VARIABLES)]
    ),
    words | st.text(max_size=30),
)


def check(content: bytes, environ: dict[str, str]) -> None:
    try:
        made = config.loads(content, "f.yaml", environ)
    except ConfigError as error:
        assert all(line.isprintable() and line for line in str(error).split("\n"))
        return
    printed = config.render(made)
    again = config.loads(printed.encode(), "printed", {})
    assert config.render(again) == printed


@given(st.binary(max_size=200), environs)
def test_any_bytes(content: bytes, environ: dict[str, str]) -> None:
    check(content, environ)


@given(st.text(alphabet="{}[]:,-&*!|>'\"%@`# \n\tab1${}env", max_size=60), environs)
def test_what_looks_like_yaml(text: str, environ: dict[str, str]) -> None:
    check(text.encode(), environ)


@given(st.dictionaries(keys, trees, max_size=5), environs)
def test_trees_of_settings(tree: dict[str, object], environ: dict[str, str]) -> None:
    check(json.dumps(tree).encode(), environ)


@given(st.lists(st.tuples(st.lists(keys, max_size=4), words | st.text(max_size=20)), max_size=3), environs)
def test_overrides(assignments: list[tuple[list[str], str]], environ: dict[str, str]) -> None:
    try:
        config.load(None, [f"{'.'.join(path)}={value}" for path, value in assignments], environ)
    except ConfigError as error:
        assert all(line.isprintable() and line for line in str(error).split("\n"))


@given(st.floats(min_value=0, max_value=1e7).map(lambda value: round(value, 9)))
def test_a_duration_is_written_so_that_it_reads_back(seconds: float) -> None:
    assert abs(parse_duration(duration_text(seconds)) - seconds) <= 1e-9


@given(st.integers(min_value=0, max_value=2**45))
def test_a_size_is_written_so_that_it_reads_back(size: int) -> None:
    assert parse_size(size_text(size)) == size
