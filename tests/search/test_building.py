"""Building of an index from videos and feature files: what is added, skipped, replaced and refused."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mesm_core.errors import ConfigError, DataError, FeatureError, MesmError, OutputError
from mesm_core.extraction.pipeline import Frames
from mesm_core.extraction.setup import Options
from mesm_core.inference.locate import Locator
from mesm_core.search import Index
from mesm_core.search.building import IndexBuild, Report
from mesm_core.search.checking import Findings, statistics, verify
from mesm_core.search.choices import Choices
from mesm_core.search.segments import pool_segments
from mesm_core.search.writer import changing
from tests.extraction.made import make_videos
from tests.tiny_clip import write_clip
from tests.video.made import aged

HALF = Choices(clip_len=Fraction(1, 10), seconds=0.1)
WEIGHTS = "w" * 32


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {"clip-b32": aged(write_clip(tmp_path_factory.mktemp("weights") / "ViT-B-32.pt"))}


def build(path: Path, *sources: object, new: bool = True, **options: Any) -> Report:
    job = IndexBuild(path, [*map(str, sources)], new=new, **options)
    for _ in job.run():
        pass
    return job.report


def findings(path: Path) -> Findings:
    (*_, found) = verify(Index.open(path))
    assert isinstance(found, Findings)
    return found


def write_features(path: Path, **videos: dict[str, Any]) -> Path:
    """Write a feature file as ``mesm extract`` does; each video: rows and attributes."""
    with h5py.File(path, "a") as file:
        for name, about in videos.items():
            node = file.create_dataset(name, data=about.pop("rows"))
            node.attrs.update({"backbone": "clip-b32", "weights": WEIGHTS, "clip_len": 2.0} | about)
    return path


def rows(seed: int, length: int = 20, width: int = 512) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(length, width)).astype(np.float16)


def test_videos_are_extracted_once_and_found_by_content(clip: dict[str, Path], tmp_path: Path) -> None:
    videos, path = make_videos(tmp_path / "videos", 4), tmp_path / "i"
    assert build(path, videos, choices=HALF, weights=clip).added == 4
    index = Index.open(path)
    assert (index.backbone, len(index.weights or "")) == ("clip-b32", 32)
    assert sorted(video.name for video in index.videos.values()) == ["v0000", "v0001", "v0002", "v0003"]
    for id_, video in index.videos.items():
        kept, clip_len = index.features(id_)
        made = pool_segments(kept, clip_len=clip_len, duration=video.duration, seconds=0.1)
        assert clip_len == 0.1
        assert video.duration == pytest.approx(0.2)
        assert video.segments == len(made)
        assert video.content.startswith(id_)
        assert index.query(kept.mean(axis=0), 1, {id_})[0].similarity > 0.5
    assert findings(path) == Findings((), (), (), 0, 0)

    job = IndexBuild(path, [str(videos)], new=True, choices=HALF)  # unchanged videos need no weights
    assert (job.videos, job.report.already) == ([], 4)
    (videos / "v0002.avi").rename(videos / "moved.avi")
    shutil.copy(videos / "v0001.avi", videos / "zz.avi")
    shutil.copy(videos / "v0000.avi", videos / "v0003.avi")
    job = IndexBuild(path, [str(videos)], new=False, weights=clip)
    assert not any(isinstance(event, Frames) and event.count for event in job.run())
    report = job.report
    assert (report.added, report.moved, len(report.copies), report.already) == (0, 1, 2, 2)
    names = {video.name for video in Index.open(path).videos.values()}
    assert names == {"v0000", "v0001", "moved"}


def test_deleted_and_changed_videos_are_marked(clip: dict[str, Path], tmp_path: Path) -> None:
    videos, path = make_videos(tmp_path / "videos", 3), tmp_path / "i"
    build(path, videos, choices=HALF, weights=clip)
    (videos / "v0000.avi").unlink()
    (videos / "v0001.avi").write_bytes((videos / "v0002.avi").read_bytes() + b"0")
    for found in (findings(path), statistics(Index.open(path))):
        assert [video.name for video in found.missing] == ["v0000"]
        assert [video.name for video in found.changed] == ["v0001"]
    report = build(path, videos, new=False, weights=clip)
    assert (report.added, report.replaced, report.already) == (0, 1, 1)
    assert len(Index.open(path).videos) == 3
    assert [video.name for video in findings(path).missing] == ["v0000"]


def test_a_video_that_cannot_be_read_does_not_stop_the_others(clip: dict[str, Path], tmp_path: Path) -> None:
    videos, path = make_videos(tmp_path / "videos", 2), tmp_path / "i"
    (videos / "bad.mp4").write_bytes(b"no video")
    report = build(path, videos, choices=HALF, weights=clip)
    assert (report.added, len(report.bad)) == (2, 1)
    assert "bad.mp4" in report.bad[0][1]


def test_features_are_used_where_they_lie(tmp_path: Path) -> None:
    file = write_features(
        tmp_path / "clip_image.hdf5",
        a={"rows": rows(1), "duration": 39.5, "source_hash": "e" * 64},
        b={"rows": rows(2)},
    )
    path = tmp_path / "i"
    assert build(path, file).added == 2
    index = Index.open(path)
    assert index.weights == WEIGHTS
    a = index.videos["e" * 16]
    assert (a.name, a.duration, a.clip_len, a.is_video, a.path) == ("a", 39.5, 2.0, False, file)
    kept, _ = index.features(a.id)
    assert np.array_equal(kept, rows(1))
    assert not (path / "features").exists()
    assert findings(path).problems == ()
    hits = index.query(rows(2)[:4].mean(axis=0), 1)
    assert (index.videos[hits[0].video].name, hits[0].start, hits[0].end) == ("b", 0.0, 8.0)
    assert build(path, file).already == 2
    with h5py.File(file, "a") as opened:
        opened["a"][:] = rows(3)
    report = build(path, file, new=False)
    assert (report.replaced, report.already) == (1, 1)
    file.unlink()
    assert "No feature file" in findings(path).problems[0]
    assert [video.name for video in statistics(Index.open(path)).missing] == ["a", "b"]


def test_the_features_of_several_backbones_are_kept(tmp_path: Path) -> None:
    clip = write_features(tmp_path / "clip_image.hdf5", a={"rows": rows(1)})
    slow = write_features(
        tmp_path / "slowfast.hdf5", a={"rows": rows(2, width=2304), "backbone": "slowfast-r50", "weights": "s" * 32}
    )
    build(tmp_path / "i", slow, clip)
    index = Index.open(tmp_path / "i")
    (id_,) = index.videos
    assert index.backbone == "clip-b32"
    assert index.features(id_)[0].shape == (20, 512)
    assert index.features(id_, "slowfast-r50")[0].shape == (20, 2304)
    with pytest.raises(FeatureError, match=r"keeps features of clip-b32 and slowfast-r50; the feature files would add"):
        build(tmp_path / "i", write_features(tmp_path / "clip2.hdf5", b={"rows": rows(4)}))


def test_two_names_of_one_video_in_a_feature_file_are_one_video(tmp_path: Path) -> None:
    same = {"source_hash": "e" * 64}
    file = write_features(
        tmp_path / "clip_image.hdf5", b={"rows": rows(1), **same}, a={"rows": rows(1), **same}, c={"rows": rows(1)}
    )
    for _ in range(2):
        report = build(tmp_path / "i", file)
        assert report.copies == [(f"'b' in {file}", f"'a' in {file}")]
        assert [video.name for video in Index.open(tmp_path / "i").videos.values()] == ["a", "c"]


def test_a_video_takes_its_features_from_a_file_that_has_its_name(tmp_path: Path) -> None:
    videos = make_videos(tmp_path / "videos", 2)
    file = write_features(
        tmp_path / "clip_image.hdf5", v0000={"rows": rows(1)}, v0001={"rows": rows(2), "source_hash": "0" * 64}
    )
    report = build(tmp_path / "i", videos, file)
    assert report.added == 1
    assert "is not the video that its features were extracted from" in report.bad[0][1]
    (video,) = Index.open(tmp_path / "i").videos.values()
    assert (video.path, video.is_video) == (videos / "v0000.avi", True)
    assert build(tmp_path / "i", videos, file).already == 1


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        (
            {"weights": "x" * 32},
            r"clip-b32, weights wwwwwwwwwwww, width 512; the feature files would add .* xxxxxxxxxxxx",
        ),
        ({"backbone": "pixels"}, r"pixels are 256 wide"),
        ({"backbone": "vgg"}, r"does not extract vgg"),
        ({"backbone": "mine"}, r"No backbone is called 'mine'"),
    ],
)
def test_features_of_another_backbone_or_weights_are_refused(
    tmp_path: Path, attributes: dict[str, str], message: str
) -> None:
    build(tmp_path / "i", write_features(tmp_path / "clip_image.hdf5", a={"rows": rows(1)}))
    other = write_features(tmp_path / "other.hdf5", b={"rows": rows(1)} | attributes)
    with pytest.raises(MesmError, match=message):
        build(tmp_path / "i", other)


def test_backbones_without_text_are_refused(tmp_path: Path) -> None:
    pixels = write_features(tmp_path / "pixels.hdf5", a={"rows": rows(1, width=256), "backbone": "pixels"})
    with pytest.raises(FeatureError, match="pixels cannot be searched: only features of clip-b32"):
        build(tmp_path / "i", pixels)
    with pytest.raises(FeatureError, match="slowfast-r50 cannot be searched"):
        build(tmp_path / "i", make_videos(tmp_path / "v", 1), choices=Choices(backbones=("slowfast-r50",)))
    assert not (tmp_path / "i").exists()


def test_other_settings_and_weights_than_those_of_the_index_are_refused(clip: dict[str, Path], tmp_path: Path) -> None:
    videos, path = make_videos(tmp_path / "videos", 1), tmp_path / "i"
    build(path, videos, choices=HALF, weights=clip)
    for choices, message in (
        (Choices(seconds=4.0), r"was built with --segment 0.1, not 4"),
        (Choices(clip_len=Fraction(1, 3)), r"--clip-len 1/10, not 1/3"),
        (Choices(backbones=("clip-b32", "pixels")), r"--backbone clip-b32, not clip-b32 and pixels"),
        (Choices(engine="milvus"), r"--engine exact, not milvus"),
    ):
        with pytest.raises(ConfigError, match=message):
            build(path, videos, choices=choices, weights=clip)
    other = {"clip-b32": write_clip(tmp_path / "other.pt", seed=1)}
    with pytest.raises(FeatureError, match=r"has features of clip-b32, weights .*; the weights would add features of"):
        build(path, make_videos(tmp_path / "more", 2), weights=other)
    with pytest.raises(ConfigError, match=r"Segments of 0 seconds"):
        Choices(seconds=0.0)
    with pytest.raises(ConfigError, match=r"An overlap of 1"):
        Choices(overlap=1.0)


def test_sources_without_videos_are_refused_and_make_no_index(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no videos"):
        build(tmp_path / "i", tmp_path / "empty")
    with pytest.raises(DataError, match="is not an index"):
        build(tmp_path / "i", make_videos(tmp_path / "v", 1), new=False)
    with pytest.raises(OutputError, match="is a folder with other files"):
        build(tmp_path / "v", tmp_path / "v")
    with pytest.raises(OutputError, match="is a file"):
        build(tmp_path / "v" / "v0000.avi", tmp_path / "v")
    damaged = tmp_path / "clip_image.hdf5"
    damaged.write_bytes(b"damaged")
    with pytest.raises(FeatureError, match="cannot be opened"):
        build(tmp_path / "i", damaged)
    assert not (tmp_path / "i").exists()


def test_a_single_number_in_a_feature_file_is_reported_as_a_bad_video(tmp_path: Path) -> None:
    features = write_features(tmp_path / "clip_image.hdf5", a={"rows": rows(1)}, b={"rows": np.float16(1)})
    report = build(tmp_path / "i", features)
    assert report.added == 1
    ((video, reason),) = report.bad
    assert video.name == "b"
    assert "(frames, dim)" in reason or "shape" in reason


@pytest.mark.parametrize(
    ("about", "reason"),
    [
        ({"duration": 1e300}, "20 rows of 2 s, 40 s in all, but its duration is 1e+300 s"),
        ({"duration": 60.0}, "but its duration is 60 s"),
        ({"duration": 20.0}, "but its duration is 20 s"),
        ({"clip_len": 1e-9}, "has 1e-09 seconds per row"),
        ({"clip_len": 1e9, "duration": 2e10}, "has 1e+09 seconds per row"),
    ],
)
def test_rows_that_do_not_cover_the_duration_are_reported_as_a_bad_video(
    tmp_path: Path, about: dict[str, float], reason: str
) -> None:
    features = write_features(
        tmp_path / "clip_image.hdf5", a={"rows": rows(1), "duration": 38.1}, b={"rows": rows(2)} | about
    )
    report = build(tmp_path / "i", features)
    assert report.added == 1
    ((video, said),) = report.bad
    assert video.name == "b"
    assert reason in said


def test_a_part_that_was_damaged_is_extracted_again(clip: dict[str, Path], tmp_path: Path) -> None:
    videos, path = make_videos(tmp_path / "videos", 2), tmp_path / "i"
    build(path, videos, choices=HALF, weights=clip)
    (part, _) = (path / "features").iterdir()
    part.write_bytes(b"damaged")
    assert "missing or damaged" in findings(path).problems[0]
    (damaged,) = [video for video in Index.open(path).videos.values() if video.kept[0].file == part.stem]
    with changing(path) as writer:
        writer.remove({damaged.id})
        writer.commit()
    assert build(path, videos, choices=HALF, weights=clip).added == 1
    assert findings(path) == Findings((), (), (), 0, 0)


@pytest.mark.parametrize("processes", [1, 2])
def test_features_that_were_cached_are_not_extracted_again(
    clip: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    monkeypatch.setenv("MESM_CACHE", str(tmp_path / "cache"))
    (video,) = make_videos(tmp_path / "videos", 1).iterdir()
    located = Locator.load(weights=clip, clip_len=Fraction(1, 10), device="cpu")
    assert len(list(located.locate_many({video: ["a door"]}))) == 1
    report = build(
        tmp_path / "i", video, choices=HALF, weights=clip, options=Options(device="cpu", processes=processes)
    )
    assert (report.added, report.frames) == (1, 0)
