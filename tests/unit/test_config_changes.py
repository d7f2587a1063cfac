"""Two configurations compared: what is applied, what needs a restart, and what holds then."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelbpf.config import Config, loads
from otelbpf.config.changes import changes

FILES = (
    "",
    "logs: {process: failed, dns_server: {slow: 2s}}",
    "filters: {exclude_self: false, ports: {include: [80]}}\nmetrics: {temporality: delta, interval: 30s}",
    "exporters: {otlp_grpc: {endpoint: 'a:1'}, otlp_http/other: {endpoint: 'http://b'}}\nhealth: {endpoint: ''}",
    "exporters: {otlp_grpc: {endpoint: 'b:1', headers: {x: y}, spool: {directory: /s, max_age: 3h}}, console: {}}",
    "resource: {attributes: {tier: 1}}\nprobes: {dns_lookup: {ports: [53, 5353]}}\nkubernetes: {enabled: false}",
    "resource: {attributes: {tier: true}}\nconnection_id: {key: k}\ntelemetry: {enabled: false}\nshutdown_timeout: 1s",
)


def read(text: str) -> Config:
    return loads(text.encode())


@pytest.mark.parametrize(
    ("former", "wanted", "applied", "restart"),
    [
        ("", "", (), ()),
        ("logs: {process: off}", "logs: {process: {slow: 1s}}", ("logs.process",), ()),
        ("logs: {process: {slow: 2s}}", "logs: {process: {slow: 1s}}", ("logs.process",), ()),
        (
            "",
            "filters: {exclude_self: false, ports: {include: [80]}}",
            ("filters.ports.include",),
            ("filters.exclude_self",),
        ),
        (
            "metrics: {interval: 3s}",
            "metrics: {temporality: delta, max_series: 9}",
            ("metrics.interval",),
            ("metrics.max_series", "metrics.temporality"),
        ),
        (
            "resource: {attributes: {tier: 1}}",
            "resource: {attributes: {tier: true}}",
            ("resource.attributes",),
            (),
        ),
        ("probes: {process: {enabled: false}}", "", (), ("probes.process.enabled",)),
        (
            "exporters: {console: {}, otlp_grpc: {endpoint: a}}",
            "exporters: {otlp_http: {endpoint: 'http://c'}, otlp_grpc: {endpoint: b, sending_queue: {num_consumers: 3}}}",
            ("exporters.console", "exporters.otlp_http", "exporters.otlp_grpc.endpoint"),
            ("exporters.otlp_grpc.sending_queue.num_consumers",),
        ),
        (
            "exporters: {otlp_grpc: {endpoint: a, headers: {a: b, c: d}}}",
            "exporters: {otlp_grpc: {endpoint: a, headers: {c: d, a: b}, spool: {directory: /s}}}",
            (),
            ("exporters.otlp_grpc.spool.directory",),
        ),
    ],
)
def test_each_difference_is_named_once(former, wanted, applied, restart):
    found = changes(read(former), read(wanted))
    assert (found.applied, tuple(sorted(found.restart))) == (applied, restart)


def test_a_group_is_touched_by_what_is_in_it_only():
    found = changes(read(""), read("filters: {ports: {include: [80]}}\nmetrics: {temporality: delta}"))
    assert found.touches("filters")
    assert found.touches("filters.ports.include")
    assert not found.touches("filters.port")
    assert not found.touches("metrics")


@given(st.sampled_from(FILES), st.sampled_from(FILES))
def test_what_holds_differs_from_what_is_wanted_by_what_needs_a_restart(former, wanted):
    found = changes(read(former), read(wanted))
    assert changes(found.config, read(wanted)) == (found.config, (), found.restart)
    back = changes(read(former), found.config)
    assert (set(back.applied), back.restart) == (set(found.applied), ())
    assert bool(found) == (former != wanted)


def test_no_value_is_named():
    found = changes(
        read(""), read("connection_id: {key: secret}\nexporters: {otlp_grpc: {endpoint: e, headers: {a: secret}}}")
    )
    assert "secret" not in f"{found.applied} {found.restart}"
