"""The spool: what is written is there, whole and in order, after whatever happened."""

from __future__ import annotations

import os
import stat

import pytest

from otelbpf.export.request import Request
from otelbpf.export.spool import FILE, Kept, Row, Spool, SpoolCorruptError, SpoolError


def request(number: int, signal: str = "logs", size: int = 10) -> Request:
    return Request(signal, b"%d " % number + bytes(size), 2, number)


@pytest.fixture
def spool(tmp_path):
    with Spool(tmp_path / "spool", "otlp_grpc/second") as opened:
        yield opened


def test_what_is_written_is_read(spool):
    assert spool.write([request(7), request(8, size=100_000)]) == [1, 2]
    assert spool.read(2) == request(8, size=100_000).body
    assert spool.rows("logs", 0, 10) == [Row(1, 2, 7, 12), Row(2, 2, 8, 100_002)]
    assert spool.rows("logs", 1, 10) == [Row(2, 2, 8, 100_002)]
    assert spool.kept() == {"logs": Kept(2, 4, 100_014, 7)}


def test_numbers_are_not_used_twice(spool):
    spool.write([request(1), request(2, "metrics")])
    assert spool.write([request(3)], forget=[1, 2]) == [3]
    assert spool.read(1) is None
    assert set(spool.kept()) == {"logs"}


def test_the_next_to_open_it_finds_everything(tmp_path):
    with Spool(tmp_path, "a") as spool:
        spool.write([request(1), request(2)])
    with Spool(tmp_path, "a") as spool:
        assert [row.oldest_ns for row in spool.rows("logs", 0, 10)] == [1, 2]
    with Spool(tmp_path, "b") as spool:
        assert spool.kept() == {}


def test_nobody_else_may_read_it(spool):
    spool.write([request(1)])
    for path in spool.directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(spool.directory.stat().st_mode) == 0o700


def test_two_agents_do_not_share_one(spool):
    with (
        pytest.raises(SpoolError, match="another process has it"),
        Spool(spool.directory.parent, "otlp_grpc/second"),
    ):
        pass


def test_a_body_that_changed_on_disk_is_not_given(spool):
    (number,) = spool.write([request(1)])
    spool._open.execute("UPDATE request SET body=?", (b"other",))
    assert spool.read(number) is None


@pytest.mark.parametrize("content", [b"nonsense " * 10_000, b"SQLite format 3\x00" + os.urandom(50_000)])
def test_a_damaged_file_is_set_aside(tmp_path, content):
    spool = Spool(tmp_path, "a")
    spool.directory.mkdir()
    spool.path.write_bytes(content)
    with pytest.raises(SpoolCorruptError, match="damaged"), spool:
        pass
    aside = spool.set_aside()
    assert aside.read_bytes() == content
    with spool:
        assert spool.write([request(1)]) == [1]


def test_a_file_of_another_format_is_not_touched(tmp_path):
    with Spool(tmp_path, "a") as spool:
        spool._open.execute("PRAGMA user_version=99")
    with pytest.raises(SpoolCorruptError, match="format 99"), Spool(tmp_path, "a"):
        pass


def test_a_file_that_was_removed_is_put_back(tmp_path):
    with Spool(tmp_path, "x") as spool:
        first, second = spool.write([request(1), request(2)])
        spool.write([], [second])
        assert spool.is_there()
        spool.path.unlink()
        spool.path.with_name("spool.db.new").write_bytes(b"left behind")
        assert not spool.is_there()
        spool.put_back()
        assert spool.is_there()
        assert (spool.path.stat().st_mode & 0o777, spool.read(first)) == (0o600, request(1).body)
        (third,) = spool.write([request(3)])
        assert third > second
    with Spool(tmp_path, "x") as spool:
        assert spool.kept()["logs"].items == 4


def test_another_file_in_its_place_is_not_touched(tmp_path):
    with Spool(tmp_path, "x") as spool:
        spool.path.unlink()
        spool.path.write_bytes(b"not ours")
        with pytest.raises(SpoolError, match="another file is in its place"):
            spool.put_back()
        assert spool.path.read_bytes() == b"not ours"


def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SpoolError, match="Not a directory"), Spool(tmp_path / "file", "a"):
        pass


def test_room_is_given_back_when_nothing_is_left(spool):
    rows = spool.write([request(number, size=2**20) for number in range(40)])
    assert spool.size_bytes() > 40 * 2**20
    spool.write([], forget=rows)
    assert spool.size_bytes() < 2**20
    spool.shrink()
    assert (spool.directory / FILE).stat().st_size < 2**20


def test_a_closed_spool_says_so(tmp_path):
    with pytest.raises(SpoolError, match="closed"):
        Spool(tmp_path, "a").read(1)
