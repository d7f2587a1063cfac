"""What disks do to a spool, under load and with the peer away: no inodes, read-only, gone, failing, not ours, shared.

Each time what waits stays in memory, which is said once, and all of it arrives when the peer is back; what is on disk is
found by the next run.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e import exactly
from tests.e2e.polling import wait_for
from tests.peers.scripted import HttpPeer
from tests.peers.sending import Plan, Sending, arrived

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 2**20
IN_MEMORY_ONLY = "what waits is in memory only"


@pytest.fixture
def peer() -> Iterator[HttpPeer]:
    with HttpPeer() as running:
        yield running


@contextmanager
def disk(directory: Path, options: str) -> Iterator[Path]:
    """A file system of its own in memory."""
    directory.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=700,{options}", "tmpfs", directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", directory], check=True)


@contextmanager
def failing_disk(directory: Path) -> Iterator[tuple[Path, Path]]:
    """A file system on a loop device; what the device is made of runs out of room when the second path is filled."""
    with disk(directory / "below", "size=24m") as below:
        image, mounted = below / "image", directory / "mounted"
        mounted.mkdir()
        with image.open("wb") as sparse:
            sparse.truncate(64 * MIB)
        subprocess.run(["mkfs.ext4", "-q", "-E", "nodiscard", "-O", "^has_journal", image], check=True)
        subprocess.run(["mount", "-o", "loop,errors=remount-ro", image, mounted], check=True)
        try:
            yield mounted, below / "filler"
        finally:
            subprocess.run(["umount", "-l", mounted], check=True)


def plan(peer: HttpPeer, directory: Path, **more: Any) -> Plan:
    spool = {"directory": str(directory)}
    return Plan("otlp_http", {"endpoint": peer.endpoint, "timeout": 2.0, "spool": spool}, **more)


def on_disk(sending: Sending) -> None:
    """Waits until there is something on disk."""
    wait_for(lambda: min((one.spooled for one in sending.status().ledger.values()), default=0) > 500, "the spool")


def told(sending: Sending, *words: str) -> None:
    """Waits for a line of the log that holds *words*; there is one, however often the disk was tried."""
    wait_for(lambda: any(all(word in line for word in words) for line in sending.said), f"a line with {words}")
    assert sum(IN_MEMORY_ONLY in line for line in sending.said) == 1, sending.said
    assert "Traceback" not in "\n".join(sending.said)


def all_arrives(peer: HttpPeer, sending: Sending) -> None:
    """The peer is back: what was made arrives, with what has waited in memory, on disk, or on one and then the other."""
    peer.__enter__()
    wait_for(lambda: sending.status().up, "an answer")
    sending.pause()
    made = sending.status().made
    sending.wait_for_accepted(made)
    done = sending.finish(30)
    twice = exactly.complete(done, arrived(peer), in_order=False)
    assert max(done.largest_bytes.values()) <= 32 * MIB
    print(f"{done.made} of each arrived, {twice} twice, {done.largest_bytes} waited in memory")


def test_no_inodes(tmp_path, peer):
    with disk(tmp_path / "disk", "size=40m,nr_inodes=4") as small:
        for number in range(3):
            (small / f"file{number}").touch()
        peer.__exit__()
        with Sending(tmp_path, plan(peer, small)) as sending:
            told(sending, "No space left on device")
            sending.wait_for_made(1000)
            all_arrives(peer, sending)


def test_a_disk_that_becomes_read_only(tmp_path, peer):
    """As the kernel does it that met an error, with the file open."""
    with failing_disk(tmp_path) as (mounted, _filler):
        peer.__exit__()
        with Sending(tmp_path, plan(peer, mounted)) as sending:
            on_disk(sending)
            device = next(
                line.split()[0] for line in Path("/proc/mounts").read_text().splitlines() if str(mounted) in line
            )
            (Path("/sys/fs/ext4") / Path(device).name / "trigger_fs_error").write_text("1")
            told(sending, "in memory only")
            sending.wait_for_made(sending.status().made + 500)
            all_arrives(peer, sending)


def test_a_directory_that_cannot_be_written(tmp_path, peer):
    with disk(tmp_path / "disk", "size=4m,ro") as small:
        peer.__exit__()
        with Sending(tmp_path, plan(peer, small)) as sending:
            told(sending, "Read-only file system")
            sending.wait_for_made(1000)
            all_arrives(peer, sending)


def test_a_file_in_the_place_of_the_directory(tmp_path, peer):
    (tmp_path / "disk").write_text("I was here first")
    peer.__exit__()
    with Sending(tmp_path, plan(peer, tmp_path / "disk")) as sending:
        told(sending, "disk")
        sending.wait_for_made(1000)
        all_arrives(peer, sending)


def test_a_directory_that_is_removed(tmp_path, peer):
    """The open file lives on without a name: what it holds still arrives."""
    peer.__exit__()
    with Sending(tmp_path, plan(peer, tmp_path / "disk")) as sending:
        on_disk(sending)
        subprocess.run(["rm", "-r", tmp_path / "disk"], check=True)
        made = sending.status().made
        sending.wait_for_made(made + 1000)
        all_arrives(peer, sending)


def test_a_directory_that_is_removed_before_the_end(tmp_path, peer):
    """What the open file holds is written anew, so that the next run finds what this one says is on disk."""
    peer.__exit__()
    with Sending(tmp_path, plan(peer, tmp_path / "disk")) as sending:
        on_disk(sending)
        subprocess.run(["rm", "-r", tmp_path / "disk"], check=True)
        done = sending.finish(20)
        assert any("was removed" in line for line in sending.said)
    assert all(one.spooled == one.made for one in done.ledger.values())
    peer.__enter__()
    with Sending(tmp_path, plan(peer, tmp_path / "disk", first=10**6)) as again:
        again.wait_for_accepted(done.made)
        last = again.finish(30)
    for signal, numbers in arrived(peer).items():
        assert last.ledger[signal].recovered == done.made
        assert sorted(numbers) == [*range(done.made), *range(10**6, 10**6 + last.made)]


def test_a_directory_that_cannot_be_made_again(tmp_path, peer):
    """Then nothing is on disk at the end, and nothing is said to be."""
    peer.__exit__()
    with Sending(tmp_path, plan(peer, tmp_path / "disk")) as sending:
        on_disk(sending)
        subprocess.run(["rm", "-r", tmp_path / "disk"], check=True)
        (tmp_path / "disk").touch()
        told(sending, "disk/peer: ")
        done = sending.finish(5)
    for one in done.ledger.values():
        assert (one.balanced, one.accepted, one.queued, one.spooled) == (True, 0, 0, 0)
        assert sum(one.dropped.values()) == one.made
        assert one.dropped.keys() <= {"spool_corrupt", "shutdown"}


def test_a_disk_that_fails(tmp_path, peer):
    """Writing back gives errors, and so does reading: what is made then arrives, what was on disk is counted."""
    with failing_disk(tmp_path) as (mounted, filler):
        peer.__exit__()
        with Sending(tmp_path, plan(peer, mounted, padding=2000)) as sending:
            on_disk(sending)
            try:
                with filler.open("wb") as other:
                    while True:
                        other.write(bytes(65536))
                        other.flush()
            except OSError:
                pass
            sending.wait_for_made(8000)
            file = os.open(mounted / "peer" / "spool.db", os.O_RDONLY)
            subprocess.run(["sync", "-f", mounted], check=False, capture_output=True)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)
            peer.__enter__()
            wait_for(lambda: sending.status().up, "an answer")
            made = sending.status().made
            wait_for(lambda: made in arrived(peer)["logs"], "what is made now")
            wait_for(lambda: made in arrived(peer)["metrics"], "what is made now")
            done = sending.finish(30)
            twice = exactly.check(done, arrived(peer), in_order=False)
            print(f"{done.made} of each made, {done.ledger}, {twice} twice")
            assert "Traceback" not in "\n".join(sending.said)


def test_two_agents_and_one_directory(tmp_path, peer):
    """The second one keeps what waits in memory, and takes the spool over when the first has ended."""
    peer.__exit__()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with (
        Sending(tmp_path / "one", plan(peer, tmp_path / "disk", requests_s=20)) as one,
        Sending(tmp_path / "two", plan(peer, tmp_path / "disk", requests_s=20, first=10**6)) as two,
    ):
        both = (one, two)
        wait_for(lambda: any("another process has it" in line for each in both for line in each.said), "the refusal")
        holder, other = both if any("another process has it" in line for line in two.said) else (two, one)
        told(other, "another process has it")
        holder.wait_for_made(500)
        first = holder.finish(2)
        assert first.ledger["logs"].spooled == first.made
        wait_for(lambda: other.status().ledger["logs"].recovered == first.made, "the spool to be taken over")
        peer.__enter__()
        wait_for(lambda: other.status().up, "an answer")
        other.pause()
        status = other.status()
        other.wait_for_accepted(status.made + first.made)
        last = other.finish(30)
    found = arrived(peer)
    for signal in ("logs", "metrics"):
        ledger = last.ledger[signal]
        assert ledger.balanced
        assert (ledger.recovered, ledger.accepted) == (first.made, last.made + first.made)
        assert len(set(found[signal])) == ledger.accepted
    print(f"{first.made} of the first and {last.made} of the second arrived")
