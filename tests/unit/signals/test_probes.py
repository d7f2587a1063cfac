"""The declarations of the real probes through the engines, over rows of their real layouts."""

from __future__ import annotations

import numpy as np
import pytest

from otelbpf.batch import Batch, Categorical, Facts
from otelbpf.config import Config
from otelbpf.export.memory import decode_logs
from otelbpf.kernel.attach import object_path
from otelbpf.kernel.btf import Btf
from otelbpf.probes import PROBES
from otelbpf.signals import names
from otelbpf.signals.logs import Logs
from otelbpf.signals.metrics import Metrics
from otelbpf.signals.record import INFO
from otelbpf.signals.sampling import SAMPLED, Due
from tests.unit.protocols.test_dns import ADDRESS, CHAIN, MIXED
from tests.unit.signals import oracle, sample

NOW = 1_800_000_000_000_000_000
PROBES_WITH_SIGNALS = [probe for probe in PROBES if probe.events]


def rows(probe, count, random):
    """Rows of small random numbers: every enumeration gets its values, and some that it does not know."""
    layout = Btf.read(object_path(probe.name)).layout(probe.struct)
    made = np.zeros(count, layout)
    for name in layout.names:
        if layout[name].kind == "u":
            made[name] = random.integers(0, 3, count)
    made["head"]["time_ns"] = 10_000_000_000 + np.arange(count)
    made["head"]["pid"] = random.integers(1, 1 << 22, count)
    made["head"]["comm"] = random.choice([b"python3", b"curl"], count)
    return made


def fill(probe, made, random):
    """What makes rows of a probe look like something."""
    count = len(made)
    if probe.name == "tcp_connection":
        made["kind"] = random.integers(1, 3, count)
        made["error"] = random.choice([0, 0, 104, 110, 111, 71], count)
        made["error"][(made["kind"] == 2) & (made["error"] == 0)] = 111
        made["cookie"] = np.arange(count)
        made["start_ns"] = random.choice([0, 1_000_000_000], count)
        made["tx_bytes"] = random.integers(0, 1 << 40, count)
        made["local_port"], made["remote_port"] = random.integers(1, 65536, (2, count))
        made["client_isn"], made["server_isn"] = random.integers(1, 1 << 32, (2, count))
    elif probe.name == "dns_lookup":
        made["kind"], made["role"] = random.integers(1, 3, (2, count))
        made["transport"] = random.choice([6, 17], count)
        made["family"] = 4
        made["flags"] = random.choice([0x8180, 0x8183, 0x8182, 0x8380], count)
        for row, choice in enumerate(random.integers(0, 3, count)):
            message = (ADDRESS, CHAIN, MIXED)[choice]
            made[row]["message"] = message[:512]
            made[row]["captured_bytes"] = made[row]["message_bytes"] = min(512, len(message))
    else:
        made["exit_signal"] = random.choice([0, 0, 9, 11], count)
        made["filename"], made["command"] = b"/usr/bin/curl", b"curl"


def prepared(probe, count, seed):
    random = np.random.default_rng(seed)
    made = rows(probe, count, random)
    fill(probe, made, random)
    batch = probe.prepare(Config())(Batch(probe.name, made, 1_700_000_000_000_000_000))
    things = sample.Things()
    batch.columns["server_address"] = np.zeros(len(batch), "V16")  # the things have names
    batch.columns["client_address"] = sample.addresses(random, len(batch))
    for name, values in {
        "resource": things.resources,
        "process": things.processes,
        "parent": [Facts({names.OTELBPF_PARENT_EXECUTABLE_NAME: "bash"}), Facts()],
        "local": things.locals,
        "remote": things.remotes,
        "edge": things.edges,
    }.items():
        batch.columns[name] = Categorical(random.integers(0, len(values), len(batch)), values)
    return batch


@pytest.mark.parametrize("probe", PROBES_WITH_SIGNALS, ids=lambda probe: probe.name)
def test_log_records_say_what_the_declaration_says(probe):
    batch = prepared(probe, 200, seed=1)
    config = sample.config(logs_dns_server="all")
    requests = list(Logs(config, PROBES, lambda: NOW).encode(batch))
    assert sum(request.items for request in requests) > 20
    for event in probe.events:
        if event.complete is not None:
            event.complete(Config(), batch)
    assert oracle.parsed_logs(requests) == oracle.log_records(probe, batch, NOW)


@pytest.mark.parametrize("probe", PROBES_WITH_SIGNALS, ids=lambda probe: probe.name)
def test_sampled_records_are_the_same_ones_with_a_weight(probe):
    """Of the real declarations: what is kept, what it says it stands for, and the account of what is not made."""
    batch = prepared(probe, 3000, seed=3)
    engine = Logs(sample.config(logs_dns_server="all"), PROBES, lambda: NOW)
    everything = by_content(engine.encode(batch))
    engine.sampling.now = Due(SAMPLED, "cpu_limit")
    sampled = by_content(engine.encode(batch))
    failed = sum(severity > INFO for severity, _ in everything)
    kept = [weight for weight in sampled.values() if weight]
    assert sampled.keys() <= everything.keys()
    assert len(sampled) - len(kept) == failed
    assert set(kept) == {10}
    ordinary = len(everything) - failed
    assert abs(sum(kept) - ordinary) < 5 * (9 * ordinary) ** 0.5
    assert engine.sampling.made == {probe.name: len(everything) + len(sampled)}
    assert engine.sampling.shed == {(probe.name, "cpu_limit"): len(everything) - len(sampled)}


def by_content(requests):
    """(severity, all else that a record says) → its weight, 0 where it has none."""
    found = {}
    for request in requests:
        for record in decode_logs(request.body):
            weight = record.attributes.pop(str(names.OTELBPF_SAMPLE_WEIGHT), 0)
            found[record.severity, repr(record)] = weight
    return found


@pytest.mark.parametrize("probe", PROBES_WITH_SIGNALS, ids=lambda probe: probe.name)
def test_points_say_what_the_declaration_says(probe):
    batch = prepared(probe, 200, seed=2)
    engine, reference = Metrics(Config(), PROBES), oracle.MetricsOracle(probe)
    engine.update(batch)
    reference.update(batch)
    points = oracle.parsed_metrics(engine.collect(NOW))
    assert {name for _, name, _ in points} == {str(m.name) for m in probe.metrics} - {"otelbpf.tcp.connection.active"}
    oracle.assert_same(points, reference)
