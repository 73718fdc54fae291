"""``mesm extract`` and ``mesm prepare merge``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mesm_cli.commands.extract import _Speed
from mesm_core.extraction.pipeline import Frames
from mesm_core.extraction.sources import VideoFile
from mesm_core.extraction.work import Done
from tests.extraction.made import content, make_videos, same

PIXELS = ("--backbone", "pixels", "--clip-len", "1/10")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("made") / "videos", 6)


def test_files_patterns_and_lists_are_accepted(videos: Path, tmp_path: Path, mesm: Any) -> None:
    (tmp_path / "list.txt").write_text(f"{videos}/v0002.avi\n\n{videos}/v0003.avi\n")
    done = mesm("extract", videos / "v0000.avi", f"{videos}/*1.avi", tmp_path / "list.txt", tmp_path / "out", *PIXELS)
    assert done.code == 0, done.err
    assert "4 videos extracted" in done.out
    assert "pixels.hdf5: pixels, 8 new rows" in done.out
    assert "for demonstrations and tests, not for real search" in done.err
    assert sorted(content(tmp_path / "out" / "pixels.hdf5")) == ["v0000", "v0001", "v0002", "v0003"]


def test_unreadable_videos_are_listed_with_exit_code_2(tmp_path: Path, mesm: Any) -> None:
    videos = make_videos(tmp_path / "videos", 3)
    (videos / "v0001.avi").write_text("text")
    (videos / "v'1\n2.avi").write_bytes((videos / "v0000.avi").read_bytes())
    done = mesm("extract", videos, tmp_path / "out", *PIXELS, "--json")
    assert done.code == 2
    assert "1 of 4 videos have no features" in done.err
    assert "v0001.avi is not a video" in done.err
    printed = json.loads(done.out)
    assert printed["videos"] == 3
    assert [Path(bad["video"]).name for bad in printed["bad"]] == ["v0001.avi"]
    assert "v'1\n2" in content(tmp_path / "out" / "pixels.hdf5")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--backbone", "vgg"], "mesm does not extract vgg features"),
        (["--backbone", "c3d"], "c3d.hdf5 (4096 wide)"),
        (["--backbone", "clip-b23"], "Did you mean 'clip-b32'?"),
        (["--backbone", "clip-b32"], "--weights clip-b32=FILE"),
        (["--backbone", "clip-b32", "--weights", "clip-b32"], "is not NAME=FILE"),
        (["--backbone", "pixels", "--clip-len", "0"], "is not a number of seconds"),
        (["--backbone", "pixels", "--shard", "3/2"], "there is no shard 3 of 2"),
        (["--backbone", "pixels", "--shard", "slurm/4"], "SLURM_ARRAY_TASK_ID is not set"),
        ([], "--backbone"),
    ],
)
def test_invalid_arguments_are_refused(videos: Path, tmp_path: Path, mesm: Any, words: list[str], message: str) -> None:
    done = mesm("extract", videos, tmp_path / "out", *words)
    assert done.code == 2
    assert message in " ".join(done.err.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def test_a_dry_run_writes_nothing(videos: Path, tmp_path: Path, mesm: Any) -> None:
    done = mesm("extract", videos, tmp_path / "out", *PIXELS, "--dry-run", "--json")
    assert done.code == 0, done.err
    printed = json.loads(done.out)
    assert (printed["videos"], printed["rows"], printed["bytes"]) == (6, {"pixels": 12}, {"pixels": 12 * 256 * 2})
    assert printed["seconds"] > 0
    assert not (tmp_path / "out").exists()
    shown = mesm("extract", videos, tmp_path / "out", *PIXELS, "--dry-run")
    assert "12 rows, " in shown.out
    assert "about " in shown.out


def test_progress_shows_videos_speed_and_remaining_time() -> None:
    shown: list[tuple[str, int, int]] = []
    seconds = iter([0.0, 1.0, 2.0, 4.0])
    show = _Speed(10, lambda *parts: shown.append(parts), clock=lambda: next(seconds))
    video = VideoFile("a", Path("a.mp4"))
    show(Frames(50))
    show(Done(video, "hash", {}))  # was there already
    show(Done(video, "hash", {"pixels": 3}))
    assert shown == [
        ("Extracting, 50 frames/s", 0, 10),
        ("Extracting, 25 frames/s", 1, 10),
        ("Extracting, 12 frames/s, about 32 s left", 2, 10),
    ]


def test_shards_are_merged(videos: Path, tmp_path: Path, mesm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    out, merged = tmp_path / "out", tmp_path / "pixels.hdf5"
    for number in (1, 2, 3):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(number))
        assert mesm("extract", videos, out, *PIXELS, "--shard", "slurm/3").code == 0
    names = [f"pixels.{number}-of-3.hdf5" for number in (1, 2, 3)]
    assert sorted(path.name for path in out.iterdir()) == names
    done = mesm("prepare", "merge", f"{out}/pixels.*-of-3.hdf5", merged, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["missing_shards"] == []
    assert mesm("extract", videos, tmp_path / "whole", *PIXELS).code == 0
    assert same(content(merged), content(tmp_path / "whole" / "pixels.hdf5"))
    partly = mesm("prepare", "merge", out / names[0], out / names[2], merged, "--overwrite")
    assert partly.code == 0
    assert "Shards are missing: 2-of-3" in partly.err


def test_a_shard_without_videos_is_written_as_an_empty_file(videos: Path, tmp_path: Path, mesm: Any) -> None:
    done = mesm("extract", videos / "v0000.avi", tmp_path / "out", *PIXELS, "--shard", "1/2")
    other = mesm("extract", videos / "v0000.avi", tmp_path / "out", *PIXELS, "--shard", "2/2")
    assert (done.code, other.code) == (0, 0)
    merged = mesm("prepare", "merge", f"{tmp_path}/out/pixels.*-of-2.hdf5", tmp_path / "pixels.hdf5")
    assert merged.code == 0, merged.err
    assert not merged.err
    assert list(content(tmp_path / "pixels.hdf5")) == ["v0000"]


def test_compare_finds_differences(videos: Path, tmp_path: Path, mesm: Any) -> None:
    out, published = tmp_path / "out", tmp_path / "published.hdf5"
    assert mesm("extract", videos, out, *PIXELS).code == 0
    with h5py.File(published, "w") as file:
        for name, (features, _) in content(out / "pixels.hdf5").items():
            file[name] = features.astype(np.float32) * 3
        file["v0001"][1] *= -1
        del file["v0002"]
        file["v0002"] = file["v0003"][:1] * 1
        del file["v0005"]
        file["other"] = np.ones((2, 256))
    done = mesm("extract", out, "--compare", published, "--json")
    assert done.code == 0, done.err
    printed = json.loads(done.out)
    assert printed["min"] == pytest.approx(-1)
    assert [printed["only_ours"], printed["only_published"], printed["other_lengths"]] == [
        ["v0005"],
        ["other"],
        ["v0002"],
    ]
    by_name = {video["video"]: video for video in printed["videos"]}
    assert by_name["v0001"]["worst_row"] == 1
    assert by_name["v0001"]["mean"] == pytest.approx(0, abs=1e-6)
    assert by_name["v0004"]["cosines"] == pytest.approx([1, 1])
    shown = mesm("extract", videos, out, *PIXELS, "--resume", "--compare", published)
    assert shown.code == 0
    assert "v0001 row 1 (-1.0000)" in shown.out
    with h5py.File(published, "w") as file:
        file["v0001"] = np.ones((2, 99))
    wrong = mesm("extract", out, "--compare", published)
    assert wrong.code == 2
    assert "is 99 wide" in wrong.err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--processes", "2"], "--ray and --processes: the cluster decides"),
        (["--shard", "1/2"], "--ray and --shard: the nodes share all videos"),
        (["--dry-run"], "--ray and --dry-run: it measures this machine"),
        (["--ray", "node1"], "--ray node1 is no address of a Ray cluster"),
    ],
)
def test_options_that_do_not_go_with_a_cluster_are_refused(
    mesm: Any, tmp_path: Path, words: list[str], reason: str
) -> None:
    videos = make_videos(tmp_path / "videos", 1)
    done = mesm("extract", videos, tmp_path / "out", *PIXELS, "--ray", "auto", *words)
    assert done.code == 2
    assert reason in done.err
    assert not (tmp_path / "out").exists()
