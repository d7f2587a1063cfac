"""TCP: what a connection costs the agent, the kernel and the application, both ends watched."""

from __future__ import annotations

from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

from tests.bench import running
from tests.bench.figure import Figure
from tests.bench.resources import MIB, bpf_memory, bpf_runs, bpf_stats, cpu_s, memory
from tests.load import tcp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.agent import Agent

FIRST_PEER = "127.16.0.1"
CEILING = tcp.Plan(count=1_000_000, threads=2, address=FIRST_PEER, peers=100_000, records=False)
"""As many as the figure is said of: what is done once, at the start and at the end, is not multiplied."""
LATENCY = tcp.Plan(count=20_000, address=FIRST_PEER, peers=20_000, records=False)
PAIRS = 8
STATE_CHANGES = 10


def cost(title: str, goal: str, plan: tcp.Plan, *, logs: bool) -> Figure:
    """CPU seconds of the agent per million connections at the machine's ceiling, all work done, and what it lost.

    Others' connections on this machine are the agent's work too, so the cost is divided by what it processed.
    """
    with running.agent(logs=logs) as (agent, _):
        before = cpu_s(agent.pid)
        truth = tcp.tcp_load(plan)
        during = cpu_s(agent.pid) - before
        after = tail(agent, before)
    row = agent.summary.events["tcp_connection"]
    processed = row.terms["processed"] / 2 / 1e6
    measured = f"{after / processed:.1f} s per million, {row.terms['lost']} of {row.terms['seen']} events lost"
    reasons = ", ".join(f"{reason} {count}" for reason, count in row.reasons.items() if count)
    reasons += f", throttled {row.terms['throttled']}" * bool(row.terms["throttled"])
    note = f"{truth.rate:.0f} connections/s offered; CPU {during:.2f} s while the load ran, {after:.2f} s in all; {reasons}"
    return Figure(title, measured, goal, note)


def tail(agent: Agent, before: float) -> float:
    """CPU seconds since *before*, up to the agent's last one: read while it ends, as a dead process has no clock."""
    agent.process.terminate()
    used = cpu_s(agent.pid) - before
    try:
        while agent.process.poll() is None:
            used = cpu_s(agent.pid) - before
    except OSError:
        pass
    running.settle(agent)
    return used


def figures() -> Iterator[Figure]:
    """Cost to the agent, when every peer is new to it and when most are known."""
    for title, plan in (("100,000 distinct peers", CEILING), ("1,000 distinct peers", replace(CEILING, peers=1000))):
        yield cost(f"TCP, {title}, logs + metrics: agent CPU", "≤ 12 s, none lost", plan, logs=True)
        yield cost(f"TCP, {title}, metrics only: agent CPU", "≤ 6 s, none lost", plan, logs=False)


def kernel_figures() -> Iterator[Figure]:
    """Cost in the kernel, program by program; a connection with both ends here is ten changes of state."""
    with bpf_stats(), running.agent() as (agent, _):
        before = bpf_runs(agent.pid)
        tcp.tcp_load(tcp.Plan(count=50_000, threads=2, address=FIRST_PEER, peers=50_000, records=False))
        spent = {name: runs.since(before.get(name)) for name, runs in bpf_runs(agent.pid).items()}
    connections = spent["tcp_state_changed"].runs / STATE_CHANGES
    used = {name: runs for name, runs in spent.items() if runs.runs > connections / 10}
    packets = {name: runs for name, runs in used.items() if runs.kind == "cgroup_skb"}
    tcp_only = {name: runs for name, runs in used.items() if name not in packets}
    for title, goal, programs in (
        ("eBPF time per connection, both ends", "≤ 3000 ns", tcp_only),
        ("cgroup_skb of dns_lookup, the same connection", "apart", packets),
    ):
        total = sum(runs.nanoseconds for runs in programs.values()) / connections
        parts = (f"{name} {r.nanoseconds / r.runs:.0f} ns x {r.runs / connections:.1f}" for name, r in programs.items())
        yield Figure(title, f"{total:.0f} ns", goal, "; ".join(parts))


def latency_figures() -> Iterator[Figure]:
    """The application's latency with and without an agent, in interleaved pairs."""
    ratios, without_ns = [], []
    for _ in range(PAIRS):
        without = tcp.tcp_load(LATENCY).client["p50_ns"]
        with running.agent() as (agent, _sink):
            tcp.tcp_load(tcp.Plan(count=500, address=FIRST_PEER, records=False))
            with_agent = tcp.tcp_load(LATENCY).client["p50_ns"]
            running.settle(agent)
        ratios.append(with_agent / without)
        without_ns.append(without)
    note = f"without: {median(without_ns) / 1000:.1f} µs; pairs: {' '.join(f'{ratio:.2f}' for ratio in ratios)}"
    yield Figure("p50 of connect + request + close, with / without", f"{median(ratios):.3f}", "≤ 1.08", note)


def memory_figures() -> Iterator[Figure]:
    """Memory after 100,000 distinct peers, and again after as many once more."""
    plan = tcp.Plan(count=100_000, threads=2, address=FIRST_PEER, peers=100_000, records=False)
    with running.agent() as (agent, _):
        rows = [memory(agent.pid)]
        for _ in range(2):
            tcp.tcp_load(plan)
            rows.append(memory(agent.pid))
        maps = bpf_memory(agent.pid)
        running.settle(agent)
    start, first, second = rows
    measured = f"{first.anonymous / MIB:.0f} MiB anonymous + {maps / MIB:.0f} MiB maps and rings"
    note = (
        f"at start {start.anonymous / MIB:.0f}; after 200,000 connections {second.anonymous / MIB:.0f}; "
        f"VmRSS {first.resident / MIB:.0f} → {second.resident / MIB:.0f} MiB"
    )
    yield Figure("memory after 100,000 distinct peers", measured, "≤ 60 MB, flat", note)
