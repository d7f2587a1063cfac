"""`otelbpf check` on this kernel: every probe is found, by the way that is really used."""

from __future__ import annotations

from otelbpf import config
from otelbpf.doctor import report
from otelbpf.kernel import features
from otelbpf.stages import enabled


def test_every_probe_is_reported_with_its_way_and_its_memory() -> None:
    settings = config.load(None, (), {})
    found = report(settings)
    assert [probe.name for probe in found.probes] == [probe.name for probe in enabled(settings)]
    for probe in found.probes:
        assert probe.state == "ok", probe
        assert probe.way is not None
        assert probe.memory_bytes >= probe.ring_bytes > 0
    assert {row.subject: row.state for row in found.rows}["BTF"] == ("ok" if features.btf() else "failed")


def test_a_probe_that_is_switched_off_is_not_tried() -> None:
    settings = config.load(None, ["probes.dns_lookup.enabled=false"], {})
    assert "dns_lookup" not in {probe.name for probe in report(settings).probes}


def test_an_endpoint_where_nothing_listens_is_a_degradation() -> None:
    settings = config.load(None, ["exporters.otlp_grpc.endpoint=127.0.0.1:1"], {})
    found = report(settings)
    row = next(row for row in found.rows if row.subject == "exporter otlp_grpc")
    assert row.state == "degraded"
    assert "127.0.0.1:1" in row.what
    assert found.exit_code == 1
