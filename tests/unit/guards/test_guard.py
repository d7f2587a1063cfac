"""From pressure to steps to what they do, with a real queue and the real choice of records."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from otelbpf.config import Config, Retry, SendingQueue, loads
from otelbpf.config.settings import Metrics
from otelbpf.errors import ConfigError
from otelbpf.export import Exporters
from otelbpf.export.console import ConsoleTransport
from otelbpf.export.request import Request
from otelbpf.export.sender import Sender
from otelbpf.guards import cpu, memory
from otelbpf.guards.guard import Change, Guard, Guards, guards
from otelbpf.guards.ladder import Ladder
from otelbpf.guards.shedding import CPU_LIMIT, CPU_STEPS, MEMORY_LIMIT, MEMORY_STEPS, Shedding, memory_steps
from otelbpf.signals.sampling import EVERYTHING, SAMPLED, STEPS_DOWN, TOTALS, Due, Sampling

if TYPE_CHECKING:
    from pathlib import Path

MIB = 2**20


@pytest.fixture
def outputs() -> Exporters:
    """An exporter whose threads were not started, so that all stays where it is."""
    queue = SendingQueue(max_bytes=32 * MIB)
    return Exporters([Sender("away", ConsoleTransport(), Retry(), queue, ("logs", "metrics", "traces"))])


def ignored(_tick_s: float) -> None:
    """The pace of a line that there is not."""


def fill(outputs: Exporters, signal: str) -> None:
    for _ in range(32):
        outputs.export(Request(signal, bytes(MIB), 10, 1))


def capacities(outputs: Exporters) -> dict[str, int]:
    return {signal: size.capacity_bytes // MIB for (_, signal), size in outputs.sizes().items()}


def test_short_of_memory_queues_go_first_then_records_then_older_points(outputs: Exporters) -> None:
    sampling = Sampling("")
    shedding = Shedding(outputs, sampling, ignored)
    for signal in ("logs", "metrics"):
        fill(outputs, signal)
    seen = []
    for level in range(len(MEMORY_STEPS)):
        shedding.memory(level)
        ledger = outputs.ledger()
        assert all(row.balanced for row in ledger.values())
        seen.append(
            (sampling.now, capacities(outputs), {signal: dict(row.dropped) for (_, signal), row in ledger.items()})
        )
    everything, totals = Due(EVERYTHING, ""), Due(TOTALS, MEMORY_LIMIT)
    assert seen == [
        (everything, {"logs": 32, "metrics": 32}, {"logs": {}, "metrics": {}}),
        (everything, {"logs": 4, "metrics": 32}, {"logs": {"memory_limit": 280}, "metrics": {}}),
        (totals, {"logs": 1, "metrics": 32}, {"logs": {"memory_limit": 310}, "metrics": {}}),
        (totals, {"logs": 1, "metrics": 4}, {"logs": {"memory_limit": 310}, "metrics": {"memory_limit": 280}}),
    ]
    shedding.memory(0)
    assert capacities(outputs) == {"logs": 32, "metrics": 32}
    assert sampling.now == everything


def test_what_overflows_a_queue_that_was_cut_is_lost_for_want_of_memory(outputs: Exporters) -> None:
    shedding = Shedding(outputs, Sampling(""), ignored)
    shedding.memory(1)
    fill(outputs, "logs")
    shedding.memory(0)
    for _ in range(2):
        fill(outputs, "logs")
    dropped = outputs.ledger()["away", "logs"].dropped
    assert dropped == {"memory_limit": 280, "queue_full": 360}


def test_points_that_are_differences_are_never_shed() -> None:
    assert memory_steps("delta") == MEMORY_STEPS[:-1]


def test_the_sparser_of_both_limits_holds(outputs: Exporters) -> None:
    sampling = Sampling("")
    shedding = Shedding(outputs, sampling, ignored)
    for level, detail in enumerate((EVERYTHING, *STEPS_DOWN)):
        shedding.cpu(level)
        assert sampling.now.detail is detail
    shedding.cpu(2)
    shedding.memory(2)
    assert sampling.now == Due(TOTALS, MEMORY_LIMIT)
    shedding.memory(0)
    assert sampling.now == Due(SAMPLED, CPU_LIMIT)
    shedding.cpu(0)
    assert sampling.now == Due(EVERYTHING, "")


def test_there_is_a_step_for_each_detail() -> None:
    assert [step.name for step in CPU_STEPS] == ["everything", "batched", *(one.name for one in STEPS_DOWN[1:])]


def test_the_first_thing_that_cpu_time_costs_is_delay(outputs: Exporters) -> None:
    ticks: list[float] = []
    shedding = Shedding(outputs, Sampling(""), ticks.append)
    for level in (1, 2, 0):
        shedding.cpu(level)
    assert ticks == [0.5, 0.5, 0.0]


def test_each_step_is_told_once_and_counted() -> None:
    pressures = iter([0.5, 0.85, 0.95, 0.95, 0.1, 0.1, 0.1])
    applied: list[int] = []
    guard = Guard(MEMORY_LIMIT, Ladder(3, 0.8, 0.65, 1, 10, 0.9), MEMORY_STEPS, lambda: next(pressures), applied.append)
    changes = [guard.turn(now_s) for now_s in (0, 1, 1.1, 1.2, 2, 12, 22)]
    assert applied == [1, 2, 3, 2, 1]
    assert [change and (change.step, change.down) for change in changes] == [
        None,
        ("queues", True),
        ("records", True),
        ("points", True),
        None,
        ("records", False),
        ("queues", False),
    ]
    assert changes[1] is not None
    assert changes[1].sentence == (
        "memory_limit: 85% of it is used: an eighth of their room is left to the queues of log records and spans"
    )
    assert guard.state() == (MEMORY_LIMIT, "queues", 1, 0.1, 3, 2)


def test_cpu_time_counts_over_a_window_and_not_at_the_start() -> None:
    now_s = used_s = 0.0
    pressure = cpu.CpuPressure(0.5, lambda: used_s, lambda: now_s)
    seen = []
    for second in range(30):
        now_s = float(second)
        used_s += 1.0 if second < 20 else 0.25
        seen.append(round(pressure(), 2))
    begun = int(cpu.STARTING_S + cpu.WINDOW_S)
    assert seen[:begun] == [0.0] * begun
    assert seen[begun:20] == [2.0] * (20 - begun)
    assert seen[20:24] == [1.5, 1.0, 0.5, 0.5]


def test_the_settings_decide_which_guards_there_are(outputs: Exporters) -> None:
    def made(**settings: object) -> list[str]:
        config = Config(**settings)  # type: ignore[arg-type]
        return [
            state.name for state in guards(config, memory.bounds(config), outputs, Sampling(""), ignored, list).states()
        ]

    assert made(memory_limit="off", cpu_limit="off") == []
    assert made(memory_limit=200 * MIB, cpu_limit=0.5) == [MEMORY_LIMIT, CPU_LIMIT]
    assert made(memory_limit=200 * MIB, cpu_limit="off", metrics=Metrics(temporality="delta")) == [MEMORY_LIMIT]


def test_the_process_is_measured_by_what_no_file_stands_behind() -> None:
    bound = memory.ProcessBound(1)
    before = bound.used_bytes()
    held = os.urandom(50 * MIB)
    assert 50 * MIB <= bound.used_bytes() - before < 60 * MIB
    assert len(held) == 50 * MIB


def test_the_setting_takes_no_less_than_is_needed() -> None:
    assert loads(f"memory_limit: {memory.NEEDED_BYTES}".encode()).memory_limit == memory.NEEDED_BYTES
    with pytest.raises(ConfigError, match="out of range"):
        loads(f"memory_limit: {memory.NEEDED_BYTES - 1}".encode())


def test_maps_count_once_for_each_map(tmp_path: Path) -> None:
    (tmp_path / "fdinfo").mkdir()
    for number, text in enumerate(("map_id:\t7\nmemlock:\t4096\n", "map_id:\t7\nmemlock:\t4096\n", "pos:\t0\n")):
        (tmp_path / "fdinfo" / str(number)).write_text(text)
    assert memory.map_bytes(tmp_path) == 4096


def test_a_bound_that_cannot_be_read_is_no_pressure(tmp_path: Path) -> None:
    assert memory.pressure([memory.ProcessBound(1, tmp_path)])() == 0.0


def test_the_thread_turns_them_and_tells(outputs: Exporters) -> None:
    told: list[Change] = []
    guard = Guard(MEMORY_LIMIT, Ladder(1, 0.8, 0.6, 0, 0), MEMORY_STEPS, lambda: 1.0, lambda _level: None)
    turning = Guards([guard], list, 60)
    turning.on_change = told.append
    with turning:
        turning._thread.join(0.5)
        for _ in range(100):
            if told:
                break
            turning._thread.join(0.1)
    assert [change.step for change in told] == ["queues"]
    assert list(turning.sentences) == [told[0].sentence]
