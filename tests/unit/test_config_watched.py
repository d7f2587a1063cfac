"""A file that changes in all the ways in which files change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from otelbpf.config.watched import WatchedFile


def changes_seen(watched: WatchedFile) -> int:
    return sum(watched.changed() for _ in range(5))


def edited(path: Path) -> None:
    path.write_text("b: 2")


def appended(path: Path) -> None:
    with path.open("a") as file:
        file.write("\n")


def renamed_over(path: Path) -> None:
    other = path.with_suffix(".new")
    other.write_text("a: 1")
    other.rename(path)


def removed(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("change", [edited, appended, renamed_over, removed])
def test_a_change_is_seen_once_and_then_the_next(tmp_path, change):
    path = tmp_path / "f.yaml"
    path.write_text("a: 1")
    watched = WatchedFile(path)
    assert changes_seen(watched) == 0
    change(path)
    assert changes_seen(watched) == 1
    path.write_text("a: 3, b: 4")
    assert changes_seen(watched) == 1


def test_a_link_that_is_turned_elsewhere_as_a_config_map_does(tmp_path):
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "f.yaml").write_text("a: 1")
    (tmp_path / "data").symlink_to("1")
    (tmp_path / "f.yaml").symlink_to(Path("data", "f.yaml"))
    watched = WatchedFile(tmp_path / "f.yaml")
    assert changes_seen(watched) == 0
    (tmp_path / "tmp").symlink_to("2")
    (tmp_path / "tmp").rename(tmp_path / "data")
    assert changes_seen(watched) == 1


def test_who_writes_has_time_to_finish(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text("")
    watched = WatchedFile(path)
    for length in range(1, 10):
        path.write_text("#" * length)
        os.utime(path, ns=(length, length))
        assert not watched.changed()
    assert watched.changed()


def test_a_file_that_is_not_there_yet(tmp_path):
    watched = WatchedFile(tmp_path / "f.yaml")
    assert changes_seen(watched) == 0
    (tmp_path / "f.yaml").write_text("")
    assert changes_seen(watched) == 1
