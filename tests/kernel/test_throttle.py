"""Beyond its rate a cgroup's events are summed in the kernel: every sum is that of the generator, whatever happens."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from otelbpf.batch import Batch
from otelbpf.config import Config
from otelbpf.errors import OtelbpfError
from otelbpf.kernel import throttle
from otelbpf.kernel.attach import attach
from otelbpf.kernel.clock import boottime_ns, boottime_offset_ns
from otelbpf.probes import dns_lookup, filters, process, tcp_connection
from tests.kernel.cgroups import Cgroup, cgroup
from tests.kernel.feed import Feed
from tests.kernel.netns import Namespace, namespace
from tests.kernel.tcp import CLIENT, CLOSED, FAILED, SERVER
from tests.load import dns, tcp
from tests.load.programs import Place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from otelbpf.probes.probe import Probe

SLOW = {"rate": 1, "burst": 1}
EXEC, EXIT = 1, 2
OK, ERROR, SIGNAL = 1, 2, 3
NOERROR, NXDOMAIN, REFUSED = 1, 4, 6
MIX = {"normal": 5, "refused": 2, "server_resets": 1, "client_resets": 1, "server_closes": 1}
TWICE = 2
OURS = "10.232.0.1"


class Throttled(Feed):
    """What a throttled probe told of some cgroups, and what it summed of them."""

    def __init__(self, attached: Any, ids: set[int]) -> None:
        super().__init__(attached)
        self._ids = list(ids)
        self._totals: list[NDArray[np.void]] = []

    def rows(self) -> NDArray[np.void]:
        rows = super().rows()
        return rows[np.isin(rows["head"]["cgroup_id"], self._ids)]

    def totals(self) -> NDArray[np.void]:
        """All sums so far."""
        assert self.attached.throttle is not None
        self._totals.append(self.attached.throttle.totals())
        together = np.concatenate(self._totals)
        return together[np.isin(together["head"]["cgroup_id"], [0, *self._ids])]

    def counted(self, *by: str) -> Counter[tuple[int, ...]]:
        """Events by columns, those that were told and those that were summed together."""
        rows, totals = self.rows(), self.totals()
        found: Counter[tuple[int, ...]] = Counter(zip(*(rows[name].tolist() for name in by), strict=True))
        for row in totals:
            found[tuple(int(row[name]) for name in by)] += int(row["events"])
        return found


@contextmanager
def throttled(
    probe: Probe,
    *cgroups: Cgroup,
    rate: dict[str, int] | str = SLOW,
    addresses: tuple[str, ...] = (),
    **settings: Any,
) -> Iterator[Throttled]:
    """The probe, limited to *rate*; where the sums of others would disturb, of *addresses* only."""
    chosen = {"exclude_self": False, "addresses": {"include": addresses}}
    config = msgspec.convert({"probes": {probe.name: {"throttle": rate, **settings}}, "filters": chosen}, Config)
    with attach(probe, config, before_attach=lambda loaded: filters.fill(loaded, config)) as attached:
        yield Throttled(attached, {one.id for one in cgroups})


@pytest.fixture
def place() -> Iterator[Namespace]:
    """Ports that nobody else uses."""
    with namespace() as made:
        yield made


@pytest.fixture
def one() -> Iterator[Cgroup]:
    with cgroup() as made:
        yield made


@pytest.fixture
def other() -> Iterator[Cgroup]:
    with cgroup() as made:
        yield made


def ends(place: Namespace, client: Cgroup, server: Cgroup) -> tuple[Place, Place]:
    return Place(place.name, cgroup=client.words()), Place(place.name, cgroup=server.words())


def run(one: Cgroup, script: str) -> None:
    subprocess.run([*one.words(), "sh", "-c", script], check=False)


def test_connections_are_summed_to_the_last_byte(place, one, other):
    with throttled(tcp_connection.PROBE, one, other) as seen:
        truth = tcp.tcp_load(tcp.Plan(count=3000, mix=MIX, spread=1000, records=False), *ends(place, one, other))
        totals, rows = seen.totals(), seen.rows()
        assert seen.counted("kind", "role") == {
            (CLOSED, CLIENT): truth.established,
            (CLOSED, SERVER): truth.established,
            (FAILED, CLIENT): truth.failed,
        }
        for role, sent, received in ((CLIENT, "sent", "received"), (SERVER, "received", "sent")):
            for column, which in (("tx_bytes", sent), ("rx_bytes", received)):
                told = rows[(rows["role"] == role) & (rows["kind"] == CLOSED)][column].sum()
                assert told + totals[totals["role"] == role][column].sum() == truth.client[which]
        assert totals["tx_resets"].sum() + rows["tx_resets"].sum() == sum(
            truth.client["by_kind"][kind] for kind in ("server_resets", "client_resets")
        )
        assert len(rows) <= sum(MIX.values())
        assert set(totals[totals["kind"] == FAILED]["error"].tolist()) == {111}


def test_lookups_are_summed_by_role_and_code(place, one, other):
    plan = dns.Plan(count=2000, mix={"a": 6, "n": 1, "r": 1}, port=53, both_types=True, records=False)
    with throttled(dns_lookup.PROBE, one, other) as seen:
        truth = dns.dns_load(plan, *ends(place, one, other))
        by_code = {
            NOERROR: truth.answered["a", 0],
            NXDOMAIN: truth.answered["n", 3],
            REFUSED: truth.answered["r", 5],
        }
        totals, rows = seen.totals(), seen.rows()
        found = Counter(zip(rows["role"].tolist(), ((rows["flags"] & 15) + 1).tolist(), strict=True))
        for row in totals:
            found[int(row["role"]), int(row["error"])] += int(row["events"])
        assert found == {(role, code): count for role in (CLIENT, SERVER) for code, count in by_code.items()}
        assert set(totals["question_type"].tolist()) == {1, 28}
        assert sum(seen.counted("role").values()) == TWICE * plan.count


def test_lookups_that_nobody_answers_are_summed_too(place, one, other):
    plan = dns.Plan(count=40, mix={"d": 1}, way="window", port=53, wait_ms=50, records=False)
    with throttled(dns_lookup.PROBE, one, other, timeout=0.1) as seen:
        truth = dns.dns_load(plan, *ends(place, one, other))
        for _ in range(100):
            seen.attached.sweep()
            found = seen.counted("role", "kind")
            if sum(found.values()) == TWICE * plan.count:
                break
            threading.Event().wait(0.05)
        assert truth.unanswered == plan.count
        assert found == {(CLIENT, 2): plan.count, (SERVER, 2): plan.count}


def test_processes_are_summed_by_how_they_ended(one):
    script = "for i in 1 2 3 4 5; do /bin/true; /bin/false; sh -c 'kill -9 $$'; done; exit 0"
    with throttled(process.PROBE, one) as seen:
        run(one, script)
        totals, rows = seen.totals(), seen.rows()
        kinds = seen.counted("kind")
        assert kinds == {(EXEC,): 16, (EXIT,): 16}
        found = Counter()
        for row in totals[totals["kind"] == EXIT]:
            found[int(row["how"])] += int(row["events"])
        told = rows[rows["kind"] == EXIT]
        found.update(np.where(told["exit_signal"] > 0, SIGNAL, np.where(told["exit_code"] > 0, ERROR, OK)).tolist())
        assert found == {OK: 6, ERROR: 5, SIGNAL: 5}


def test_without_a_limit_and_within_it_all_are_told(place, one, other):
    for rate in ("off", {"rate": 10_000_000, "burst": 1_000_000}):
        with throttled(tcp_connection.PROBE, one, other, rate=rate) as seen:
            tcp.tcp_load(tcp.Plan(count=300, records=False), *ends(place, one, other))
            assert len(seen.where(lambda rows: rows["kind"] == CLOSED, 600)) == 600
            assert len(seen.totals()) == 0


def test_a_rate_holds_for_each_cgroup_and_comes_back_with_time(place, one, other):
    with throttled(tcp_connection.PROBE, one, other, rate={"rate": 50, "burst": 2}) as seen:
        tcp.tcp_load(tcp.Plan(count=300, rate=100, records=False), *ends(place, one, other))
        told = Counter(seen.rows()["role"].tolist())
        summed = Counter()
        for row in seen.totals():
            summed[int(row["role"])] += int(row["events"])
        for role in (CLIENT, SERVER):
            assert told[role] + summed[role] == 300
            assert 3 < told[role] < 250


def test_a_flood_leaves_the_ring_to_its_neighbours(place, one, other):
    """Nobody reads the ring meanwhile: without a throttle the flood fills it, and what comes after is lost."""
    with cgroup() as neighbour:
        for rate, is_throttled in (({"rate": 1, "burst": 20}, True), ("off", False)):
            with throttled(tcp_connection.PROBE, one, other, neighbour, rate=rate, ring_size=1 << 16) as seen:
                flood = tcp.tcp_load(tcp.Plan(count=1000, records=False), *ends(place, one, other))
                little = tcp.tcp_load(tcp.Plan(count=10, records=False), *ends(place, neighbour, neighbour))
                told = seen.rows()
                ours = told[told["head"]["cgroup_id"] == neighbour.id]
                assert (seen.count("ring_full") == 0) is is_throttled
                assert (len(ours) == TWICE * little.established) is is_throttled
                summed = int(seen.totals()["events"].sum())
                assert (len(told) + summed == TWICE * (flood.established + 10)) is is_throttled


def test_a_limit_changes_while_programs_run(place, one, other):
    load = tcp.Plan(count=100, records=False)
    with throttled(tcp_connection.PROBE, one, other) as seen:
        assert seen.attached.throttle is not None
        tcp.tcp_load(load, *ends(place, one, other))
        summed = seen.totals()["events"].sum()
        assert summed >= TWICE * load.count - 20
        seen.attached.throttle.limit(0, 0)
        tcp.tcp_load(load, *ends(place, one, other))
        assert seen.totals()["events"].sum() == summed
        assert sum(seen.counted("kind").values()) == 2 * TWICE * load.count


def test_sums_of_a_cgroup_outlive_it(place, other):
    with ExitStack() as open_:
        gone = open_.enter_context(cgroup())
        seen = open_.enter_context(throttled(tcp_connection.PROBE, gone))
        cgroup_id = gone.id
        tcp.tcp_load(tcp.Plan(count=100, records=False), *ends(place, gone, other))
        gone.path.rmdir()
        assert sum(seen.counted("role").values()) == 100
        assert set(seen.totals()["head"]["cgroup_id"].tolist()) == {cgroup_id}


def test_nothing_is_lost_between_two_readings(place, one, other):
    """The map that is read changes over while both CPUs add to it."""
    with throttled(tcp_connection.PROBE, one, other) as seen:
        ended = threading.Event()
        truths = []

        def generate():
            try:
                truths.append(tcp.tcp_load(tcp.Plan(count=20_000, mix=MIX, records=False), *ends(place, one, other)))
            finally:
                ended.set()

        load = threading.Thread(target=generate)
        load.start()
        readings = 0
        while not ended.is_set():
            seen.totals()
            readings += 1
        load.join()
        assert readings > 5
        assert sum(seen.counted("kind").values()) == TWICE * truths[0].established + truths[0].failed


def test_a_close_after_a_snapshot_counts_the_rest_only(place, one, other):
    """Snapshots without a pause, while thousands of connections come and go: each is counted once, to the byte."""
    prepare = tcp_connection.PROBE.prepare(Config())
    counted: Counter[str] = Counter()

    def take(rows: NDArray[np.void], *, snapshot: bool) -> None:
        batch = prepare(Batch("tcp_connection", rows, boottime_offset_ns(), snapshot=snapshot))
        clients = batch.rows["role"] == CLIENT
        opened = batch.number("opened")
        counted["opened"] += int((opened & clients).sum())
        counted["tx"] += int(batch.number("tx_bytes_new")[clients].sum())
        counted["rx"] += int(batch.number("rx_bytes_new")[clients].sum())
        counted["snapshots"] += int((opened & clients).sum()) if snapshot else 0

    rate = {"rate": 1000, "burst": 10}
    with throttled(tcp_connection.PROBE, one, other, rate=rate, ring_size=64 << 20) as seen:
        ended = threading.Event()
        truths = []

        def generate():
            plan = tcp.Plan(count=30_000, threads=8, workers=8, request_bytes=2000, spread=9000, records=False)
            try:
                truths.append(tcp.tcp_load(plan, *ends(place, one, other)))
            finally:
                ended.set()

        load = threading.Thread(target=generate)
        load.start()
        taken = 0
        while True:
            last = ended.is_set()
            alive = np.frombuffer(seen.attached.snapshot(), seen.attached.struct)
            rows = seen.rows()
            take(rows[taken:], snapshot=False)
            taken = len(rows)
            take(alive[np.isin(alive["head"]["cgroup_id"], [one.id])], snapshot=True)
            if last:
                break
        load.join()
        totals = seen.totals()
        summed = totals[totals["role"] == CLIENT]
        truth = truths[0]
        assert seen.count("ring_full") == 0
        assert summed["events"].sum() > 0
        assert counted["snapshots"] > 0
        assert counted["opened"] + summed["events"].sum() == truth.established == 30_000
        assert counted["tx"] + summed["tx_bytes"].sum() == truth.client["sent"]
        assert counted["rx"] + summed["rx_bytes"].sum() == truth.client["received"]


def test_cgroups_beyond_the_bound_share_a_bucket_and_are_counted(place, one, other):
    with throttled(tcp_connection.PROBE, one, other) as seen:
        control = seen.attached.throttle
        assert control is not None
        buckets = control._buckets
        full = (2**63).to_bytes(8, "little") + bytes(16)
        with suppress(OtelbpfError):  # there are those of others already
            for number in range(2**40, 2**40 + buckets.max_entries):  # no cgroup has: a fresh machine's ids are small
                buckets.update(number.to_bytes(8, "little"), full)
        assert len(buckets) == buckets.max_entries
        tcp.tcp_load(tcp.Plan(count=200, records=False), *ends(place, one, other))
        assert control.shared.buckets >= 400
        assert sum(seen.counted("role").values()) == 400
        assert {row["head"]["cgroup_id"].item() for row in seen.totals()} == {one.id, other.id}


def test_what_has_no_room_in_the_sums_is_counted_without_its_cgroup(place, one, other):
    place.run("ip", "address", "add", f"{OURS}/32", "dev", "lo")
    with throttled(tcp_connection.PROBE, one, other, addresses=(OURS,)) as seen:
        control = seen.attached.throttle
        assert control is not None
        for sums in control._sums:
            key = np.zeros(1, control._key)
            with suppress(OtelbpfError):  # those of others are there already
                for number in range(sums.max_entries):
                    key["cgroup_id"] = 2**62 + number
                    sums.update(key.tobytes(), bytes(sums.value_bytes))
        truth = tcp.tcp_load(tcp.Plan(count=500, mix=MIX, address=OURS, records=False), *ends(place, one, other))
        totals, rows = seen.totals(), seen.rows()
        assert set(totals["head"]["cgroup_id"].tolist()) == {0}
        assert set(totals["role"].tolist()) == {0}
        told = Counter(rows["kind"].tolist())
        found = Counter({int(row["kind"]): int(row["events"]) for row in totals}) + told
        assert found == {CLOSED: 2 * truth.established, FAILED: truth.failed}
        assert control.shared.totals >= totals["events"].sum()


def test_one_cgroup_cannot_have_all_the_room(tmp_path, one):
    """Each executable is an entry; beyond its share a cgroup's are summed together, and still as its own."""
    programs = 80
    for number in range(programs):
        shutil.copy("/bin/true", tmp_path / f"true-{number}")
    with throttled(process.PROBE, one) as seen:
        run(one, "; ".join(f"{tmp_path}/true-{number}" for number in range(programs)))
        totals = seen.totals()
        assert seen.counted("kind") == {(EXEC,): programs + 1, (EXIT,): programs + 1}
        assert set(totals["head"]["cgroup_id"].tolist()) == {one.id}
        assert len(totals) <= 64 + 2
        assert totals[totals["head"]["executable"] == 0]["events"].sum() > 0
        assert seen.attached.throttle is not None
        assert seen.attached.throttle.shared.totals >= totals[totals["head"]["executable"] == 0]["events"].sum()


def test_buckets_that_are_full_again_go(place, one, other):
    with throttled(tcp_connection.PROBE, one, other) as seen:
        control = seen.attached.throttle
        assert control is not None
        tcp.tcp_load(tcp.Plan(count=50, records=False), *ends(place, one, other))
        old = (boottime_ns() - throttle.IDLE_NS - 1).to_bytes(8, "little") + bytes(16)
        control._buckets.update(one.id.to_bytes(8, "little"), old)
        control.sweep()
        left = {int.from_bytes(key, "little") for key in control._buckets}
        assert one.id not in left
        assert other.id in left
        assert control.entries == len(left)
