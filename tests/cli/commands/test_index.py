"""``mesm index``: build, add, remove, stats, verify and move from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mesm_core.search import Index
from mesm_core.search.writer import changing
from tests.extraction.made import make_videos

ROWS = ["--clip-len", "1/10", "--segment", "0.1", "--device", "cpu"]


@pytest.fixture
def built(mesm, zero: list[object], here: Path) -> Path:
    """An index of three videos in the working folder."""
    make_videos(here / "videos", 3)
    done = mesm("index", "build", "i", "videos", *ROWS, *zero)
    assert done.code == 0, done.err
    return here / "i"


def test_an_index_is_built_once_and_added_to(mesm, zero: list[object], built: Path, here: Path) -> None:
    again = mesm("index", "build", "i", "videos", "--json")
    assert again.code == 0, again.err
    found = json.loads(again.out)
    assert (found["added"], found["already_there"], found["videos"], found["frames"]) == (0, 3, 3, 0)
    make_videos(here / "videos", 4)
    (here / "videos" / "v0003.avi").rename(here / "more.avi")
    done = mesm("index", "add", "i", "more.avi", *zero)
    assert done.code == 0, done.err
    assert done.out.splitlines()[0] == "1 added"
    assert "4 videos" in done.out
    other = mesm("index", "build", "i", "videos", "--overlap", "0.25")
    assert (other.code, "built with --overlap 0.5, not 0.25" in other.err) == (2, True)


def test_a_bad_video_is_reported_and_the_others_are_added(mesm, zero: list[object], here: Path) -> None:
    make_videos(here / "videos", 2)
    (here / "videos" / "bad.mp4").write_bytes(b"no video")
    done = mesm("index", "build", "i", "videos", *ROWS, *zero, "--json")
    assert done.code == 2
    assert "1 of 3 videos have no features" in done.err
    assert "The others are in the index." in done.err
    found = json.loads(done.out)
    assert (found["added"], len(found["bad"])) == (2, 1)
    only = mesm("index", "build", "j", "videos/bad.mp4", *ROWS, *zero)
    assert (only.code, "The others" in only.err, "Repair these and add them." in only.err) == (2, False, True)


def test_copies_are_named(mesm, zero: list[object], built: Path, here: Path) -> None:
    first = here / "videos" / "v0001.avi"
    (here / "w.avi").write_bytes(first.read_bytes())
    done = mesm("index", "add", "i", "w.avi", *zero)
    assert done.code == 0, done.err
    assert done.out.splitlines()[0] == "0 added, 1 a copy of another"
    assert f"{here / 'w.avi'} has the content of {first}." in done.err
    for number in range(12):
        (here / f"x{number}.avi").write_bytes(first.read_bytes())
    many = mesm("index", "add", "i", str(here / "x*.avi"), *zero)
    assert many.out.splitlines()[0] == "0 added, 12 copies of others"
    assert many.err.count("has the content of") == 10
    assert "… and 2 more; --json lists all." in many.err


def test_stats_of_an_index_without_videos_has_sizes(mesm, built: Path) -> None:
    assert mesm("index", "remove", "i", "v*").code == 0
    assert "exact, vectors 0 bytes" in mesm("index", "stats", "i").out


def test_stats_and_verify_mark_deleted_and_changed_videos(mesm, built: Path, here: Path) -> None:
    (here / "videos" / "v0000.avi").unlink()
    (here / "videos" / "v0001.avi").write_bytes(b"changed")
    shown = mesm("index", "stats", "i")
    assert "3, 0.00 h" in shown.out
    assert "clip-b32, weights" in shown.out
    assert "v0000.avi was deleted or moved" in shown.out
    figures = json.loads(mesm("index", "stats", "i", "--json").out)
    assert (figures["videos"], figures["segment_seconds"], figures["engine"]) == (3, 0.1, "exact")
    assert [video["name"] for video in figures["changed"]] == ["v0001"]
    checked = mesm("index", "verify", "i")
    assert checked.code == 0, checked.err
    assert "3 videos, all data as written" in checked.out
    assert "v0001.avi changed since it was added" in checked.out


def test_verify_fails_for_damage(mesm, built: Path) -> None:
    next((built / "features").iterdir()).write_bytes(b"damaged")
    shard = next((built / "vectors").iterdir())
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x7f")
    done = mesm("index", "verify", "i", "--json")
    assert done.code == 2
    assert "i has 2 problems" in done.err
    problems = json.loads(done.out)["problems"]
    assert "hash differs" in problems[0]
    assert "missing or damaged" in problems[1]
    assert "damaged" in mesm("index", "verify", "i").out


def test_videos_are_removed_by_name_pattern_or_absence(mesm, built: Path, here: Path) -> None:
    assert "removed" in mesm("index", "remove", "i", "v0001").out
    (here / "videos" / "v0002.avi").unlink()
    found = json.loads(mesm("index", "remove", "i", "--missing", "--json").out)
    assert ([video["name"] for video in found["removed"]], found["videos"]) == (["v0002"], 1)
    none = mesm("index", "remove", "i", "v0009")
    assert (none.code, "No video of the index is 'v0009'. Did you mean 'v0000'?" in none.err) == (2, True)
    assert mesm("index", "remove", "i").code == 2
    assert mesm("index", "remove", "i", "*").code == 0
    assert Index.open(built).videos == {}
    assert mesm("index", "verify", "i").code == 0


def test_a_second_writer_and_a_folder_without_index_are_errors(mesm, zero: list[object], built: Path) -> None:
    with changing(built):
        busy = mesm("index", "add", "i", "videos", *zero)
        assert (busy.code, "Another process is changing the index" in busy.err) == (2, True)
        assert mesm("index", "stats", "i").code == 0
    for words in (("stats", "videos"), ("verify", "nowhere"), ("add", "videos", "videos"), ("remove", "nowhere", "x")):
        none = mesm("index", *words)
        assert (none.code, "is not an index" in none.err) == (2, True), none.err


def test_engines_that_do_not_fit_are_refused(mesm, built: Path) -> None:
    same = mesm("index", "move", "i", "exact")
    assert (same.code, "has the engine exact already" in same.err) == (2, True)
    unknown = mesm("index", "move", "i", "milvis")
    assert (unknown.code, "Did you mean 'milvus'?" in unknown.err) == (2, True)


def test_an_index_moves_between_engines(mesm, built: Path) -> None:
    pytest.importorskip("milvus_lite")
    pytest.importorskip("pymilvus")
    moved = mesm("index", "move", "i", "milvus")
    assert moved.code == 0, moved.err
    assert "moved from exact to milvus" in moved.out
    assert "milvus" in mesm("index", "stats", "i").out
    back = mesm("index", "move", "i", "exact", "--json")
    assert json.loads(back.out) | {"segments": 0} == {"from": "milvus", "to": "exact", "videos": 3, "segments": 0}
    assert mesm("index", "verify", "i").code == 0


def test_a_cluster_and_processes_are_not_used_together(mesm, zero: list[object], here: Path) -> None:
    done = mesm("index", "build", "my.index", "videos", *zero, "--ray", "auto", "--processes", "2")
    assert done.code == 2
    assert "--ray and --processes" in done.err
    assert not (here / "my.index").exists()
