"""The generated tables name everything that is declared."""

from __future__ import annotations

import pytest

from otelbpf.probes import PROBES
from otelbpf.signals import document, names

TABLES = document.tables(PROBES)


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_every_record_metric_and_attribute_of_a_probe_has_its_row(probe):
    wanted = [event.name for event in probe.events] + [metric.name for metric in probe.metrics]
    for declared in (*(event.attributes for event in probe.events), *(metric.by for metric in probe.metrics)):
        wanted += document.attribute_names(declared)
    assert not [name for name in wanted if f"| `{name}` |" not in TABLES]


def test_every_older_name_and_every_resource_attribute_has_its_row():
    older = [name for name in names.ATTRIBUTES.values() if name.stability == "deprecated"]
    assert not [name for name in older if f"| `{name}` |" not in TABLES]
    assert not [name for name in names.RESOURCE if f"| `{name}" not in TABLES]


def test_all_rows_of_a_table_have_as_many_cells_as_its_head():
    for table in TABLES.split("### ")[1:]:
        rows = [line for line in table.splitlines() if line.startswith("|")]
        assert len({row.replace("\\|", "").count("|") for row in rows}) == 1


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_a_terminal_is_told_of_each_probe(probe):
    text = document.probes(PROBES)
    assert f"{probe.name}: {probe.summary}" in text
    assert all(f"metric {metric.name} " in text for metric in probe.metrics)
