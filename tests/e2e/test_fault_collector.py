"""A real collector that misbehaves under load: stopped and continued, slow, short of memory, its disk full, killed.

Each record is looked for among what arrived, and the account has to agree with that.
"""

from __future__ import annotations

import signal
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e import exactly
from tests.e2e.collector import Collector, write_at_once
from tests.e2e.polling import wait_for
from tests.kernel.netns import namespace
from tests.peers.scripted import HttpPeer
from tests.peers.sending import Plan, Sending, numbers_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 2**20
QUEUE_BYTES = 32 * MIB


@pytest.fixture(params=["grpc", "http"])
def protocol(request) -> str:
    return request.param


def plan(collector: Collector, protocol: str, **more: Any) -> Plan:
    endpoint = collector.grpc_endpoint if protocol == "grpc" else collector.http_endpoint
    return Plan(f"otlp_{protocol}", {"endpoint": endpoint, "timeout": 1.0, **more})


def arrived(collector: Collector, protocol: str) -> dict[str, list[int]]:
    return {
        "logs": [int(record.body.split()[1]) for record in collector.records(protocol)],
        "metrics": [int(point.value) for point in collector.points(protocol)],
    }


def forget_half_lines(collector: Collector) -> None:
    """What the collector was writing when it was killed would run into what it writes next."""
    for path in collector.directory.glob("*.jsonl"):
        written = path.read_bytes()
        path.write_bytes(written[: written.rfind(b"\n") + 1])


def test_it_is_stopped_and_continued_again_and_again(tmp_path, protocol):
    """SIGSTOP: connections stay, nothing is answered, for longer than a request may take."""
    with Collector(tmp_path) as collector, Sending(tmp_path, plan(collector, protocol)) as sending:
        for _ in range(4):
            made = sending.wait_for_accepted(1).made
            collector.process.send_signal(signal.SIGSTOP)
            sending.wait_for_made(made + 200)
            sending.wait_until_down()
            collector.process.send_signal(signal.SIGCONT)
            wait_for(lambda: sending.status().up, "an answer")
        done = sending.finish(60)
        collector.stop()
        twice = exactly.complete(done, arrived(collector, protocol))
    assert max(done.largest_bytes.values()) < QUEUE_BYTES
    print(f"stopped 4 times: {done.made} of each arrived, {twice} twice, at most {done.largest_bytes} bytes waited")


def test_it_is_killed_and_started_in_cycles(tmp_path, protocol):
    """What it answered it has written; all else is sent again."""
    with (
        Collector(tmp_path, write_at_once) as collector,
        Sending(tmp_path, plan(collector, protocol), environment={}) as sending,
    ):
        for _ in range(5):
            accepted = min(ledger.accepted for ledger in sending.wait_for_accepted(1).ledger.values())
            sending.wait_for_accepted(accepted + 100)
            collector.kill()
            sending.wait_until_down()
            forget_half_lines(collector)
            collector.start()
        done = sending.finish(60)
        collector.stop()
        twice = exactly.complete(done, arrived(collector, protocol))
    print(f"killed 5 times: {done.made} of each arrived, {twice} twice, answers {done.codes}")


def test_it_has_little_memory(tmp_path, protocol):
    """Its memory limiter refuses what comes while it has too much; it is asked to take it later, and it does."""

    def limited(configuration: dict[str, Any]) -> None:
        limiter = {"check_interval": "100ms", "limit_mib": 18, "spike_limit_mib": 4}
        configuration["processors"] = {"memory_limiter": limiter}
        for pipeline in configuration["service"]["pipelines"].values():
            pipeline["processors"] = ["memory_limiter"]

    large = Plan(f"otlp_{protocol}", {}, requests_s=10, items=400, padding=5000)
    with Collector(tmp_path, limited) as collector:
        settings = plan(collector, protocol, sending_queue={"max_bytes": 256 * MIB}).settings
        with Sending(tmp_path, Plan(large.kind, settings, large.requests_s, large.items, large.padding)) as sending:
            wait_for(lambda: sending.status().codes.keys() - {"OK"}, "a refusal", 40)
            sending.wait_for_made(12_000)
            done = sending.finish(120)
        collector.stop()
        twice = exactly.complete(done, arrived(collector, protocol))
    assert any("high memory usage" in line for line in sending.said), sending.said
    print(f"little memory: {done.made} of each arrived, {twice} twice, answers {done.codes}, {done.largest_bytes}")


@contextmanager
def small_disk(directory: Path, size: str) -> Iterator[Path]:
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", directory], check=True)


def test_its_disk_is_full(tmp_path, protocol):
    """Its own queue is on a disk that fills up while who it sends to is away: it refuses, and later takes all."""
    with small_disk(tmp_path / "disk", "4m") as disk, HttpPeer() as behind:

        def queued_on_disk(configuration: dict[str, Any]) -> None:
            queue = {"storage": "file_storage", "queue_size": 10**6, "num_consumers": 1}
            configuration["extensions"]["file_storage"] = {"directory": str(disk)}
            configuration["service"]["extensions"].append("file_storage")
            configuration["exporters"] = {
                "otlp_http": {
                    "endpoint": behind.endpoint,
                    "sending_queue": queue,
                    "retry_on_failure": {"initial_interval": "50ms", "max_interval": "200ms", "max_elapsed_time": 0},
                }
            }
            for pipeline in configuration["service"]["pipelines"].values():
                pipeline["exporters"] = ["otlp_http"]

        with Collector(tmp_path, queued_on_disk) as collector, Sending(tmp_path, plan(collector, protocol)) as sending:
            sending.wait_for_accepted(100)
            behind.__exit__()
            sending.wait_until_down()
            sending.wait_for_made(sending.status().made + 500)
            behind.__enter__()
            done = sending.finish(60)

            def found() -> dict[str, list[int]]:
                """Each once: the collector repeats a request under whose answer we cut its peer off."""
                return {
                    signal: list(dict.fromkeys(n for body in behind.bodies(signal) for n in numbers_of(signal, body)))
                    for signal in ("logs", "metrics")
                }

            wait_for(
                lambda: all(len(set(there)) == done.made for there in found().values()),
                "the collector to pass all of it on",
                limit_s=120,  # one request at a time, to a peer that is read in the same process
            )
            assert any("no space left" in line for line in sending.said), sending.said
            twice = exactly.complete(done, found())
    print(f"collector's disk full: {done.made} of each arrived, {twice} twice, answers {done.codes}")


def test_the_way_to_it_is_slow(tmp_path, protocol):
    """A link of 1 Mbit/s that takes a fifth of what is made, then is as fast as ever."""
    with namespace() as slow, slow.inside():
        slow.run("ip", "link", "set", "lo", "mtu", "1500")
        slow.run("tc", "qdisc", "add", "dev", "lo", "root", "tbf", "rate", "1mbit", "burst", "16kb", "latency", "400ms")
        with Collector(tmp_path) as collector:
            settings = plan(collector, protocol, timeout=3.0).settings
            with Sending(tmp_path, Plan(f"otlp_{protocol}", settings, 50, 20, 500)) as sending:
                sending.wait_for_made(8000)
                slow.run("tc", "qdisc", "del", "dev", "lo", "root")
                done = sending.finish(60)
            collector.stop()
            twice = exactly.complete(done, arrived(collector, protocol))
    assert QUEUE_BYTES > done.largest_bytes["logs"] > MIB
    print(f"1 Mbit/s: {done.made} of each arrived, {twice} twice, answers {done.codes}, {done.largest_bytes} waited")
