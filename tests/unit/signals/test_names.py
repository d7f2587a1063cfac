"""The table of names, held against OpenTelemetry's registry."""

from __future__ import annotations

import importlib
import pkgutil
import re

import pytest
from opentelemetry.semconv import attributes as stable_package
from opentelemetry.semconv._incubating import attributes as incubating_package
from opentelemetry.semconv._incubating import metrics as metrics_package
from opentelemetry.semconv.schemas import Schemas

from otelbpf.signals import names


def constants(package: object) -> set[str]:
    """All strings that the modules of *package* define."""
    found: set[str] = set()
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):  # type: ignore[attr-defined]
        values = vars(importlib.import_module(module.name))
        found |= {value for key, value in values.items() if key.isupper() and isinstance(value, str)}
    return found


STABLE = constants(stable_package)
REGISTRY = STABLE | constants(incubating_package)
REGISTRY_METRICS = constants(metrics_package)


@pytest.mark.parametrize("name", names.ATTRIBUTES.values())
def test_an_attribute_says_whether_the_registry_has_it(name: names.AttributeName) -> None:
    assert (name in REGISTRY) == name.registry
    assert (name in STABLE) == (name.stability == "stable")


@pytest.mark.parametrize("name", names.METRICS.values())
def test_a_metric_says_whether_the_registry_has_it(name: names.MetricName) -> None:
    assert (name in REGISTRY_METRICS) == name.registry


@pytest.mark.parametrize("name", [name for name in names.ATTRIBUTES.values() if not name.registry])
def test_what_the_registry_lacks_is_ours(name: names.AttributeName) -> None:
    elsewhere = {names.NETWORK_TCP_HANDSHAKE_ROLE, names.SYSTEMD_UNIT_NAME, names.OTEL_METRIC_OVERFLOW}
    assert name.startswith("otelbpf.") or name in elsewhere


@pytest.mark.parametrize("constant", [key for key, value in vars(names).items() if isinstance(value, str | tuple)])
def test_a_constant_is_called_after_its_name(constant: str) -> None:
    value = getattr(names, constant)
    plain = str(value).upper().replace(".", "_")
    if isinstance(value, names.AttributeName):
        assert constant == plain
    elif isinstance(value, names.MetricName):
        assert constant == "METRIC_" + plain
    elif isinstance(value, names.EventName):
        assert constant == "EVENT_" + plain.removeprefix("OTELBPF_")


@pytest.mark.parametrize("name", names.METRICS.values())
def test_only_histograms_have_bounds_and_they_rise(name: names.MetricName) -> None:
    assert bool(name.bounds) == (name.instrument == "Histogram")
    assert list(name.bounds) == sorted(set(name.bounds))


@pytest.mark.parametrize("name", [*names.ATTRIBUTES, *names.METRICS, *names.EVENTS])
def test_names_are_lower_case_words_with_dots(name: str) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)+", name)


def test_the_schema_is_one_that_the_registry_published() -> None:
    assert Schemas.V1_44_0.value == names.SCHEMA_URL


def test_the_standard_bounds_of_lookups_are_all_there() -> None:
    standard = {0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10}
    assert standard < set(names.METRIC_DNS_LOOKUP_DURATION.bounds)


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("server.port", names.SERVER_PORT),
        ("k8s.pod.label.app.kubernetes.io/name", names.K8S_POD_LABEL),
        ("k8s.pod.annotation.x", names.K8S_POD_ANNOTATION),
        ("k8s.pod.uid.x", None),
        ("nothing", None),
    ],
)
def test_find(name: str, entry: names.AttributeName | None) -> None:
    assert names.find(name) is entry
