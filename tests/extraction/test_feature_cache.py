"""The feature cache, notes about files, and the backbones that a checkpoint needs."""

from __future__ import annotations

import json
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mesm_core.caches import FileNotes, identity_of
from mesm_core.config.load import load_config
from mesm_core.errors import ConfigError, FeatureError
from mesm_core.extraction.cache import FeatureCache, default_cache
from mesm_core.extraction.cached import CachedExtraction, Featured
from mesm_core.extraction.pipeline import Failed, Frames
from mesm_core.extraction.recipe import Recipe, recipe_of
from mesm_core.extraction.sources import VideoFile
from tests.extraction.made import make_videos
from tests.video.made import aged

FEATURES = np.ones((10, 256), np.float16)
ABOUT = {"duration": 5.0, "warning": ""}
PIXELS = Recipe(("pixels",), Fraction(1, 10), weights=(None,))


def names(cache: FeatureCache) -> set[str]:
    return {entry.path.stem for entry in cache.entries()}


def test_least_recently_used_features_are_removed_first(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, limit=10**9)
    for number, key in enumerate("abc"):
        cache.write(key, FEATURES, ABOUT)
        os.utime(tmp_path / f"{key}.npz", (number, number))
    one = cache.entries()[0].size
    assert cache.read("a") is not None  # used again, so it stays
    small = FeatureCache(tmp_path, limit=3 * one)
    small.write("d", FEATURES, ABOUT)
    assert names(small) == {"a", "c", "d"}
    FeatureCache(tmp_path, limit=0).trim()
    assert not names(cache)


def test_damaged_features_are_treated_as_absent(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, limit=10**9)
    cache.write("a", FEATURES, ABOUT)
    whole = (tmp_path / "a.npz").read_bytes()
    for content in (b"", whole[:100], whole[: len(whole) // 2], b"PK" + whole[2:200] + whole[300:]):
        (tmp_path / "a.npz").write_bytes(content)
        assert cache.read("a") is None
    for features, about in (
        (FEATURES * np.nan, ABOUT),
        (FEATURES[0], ABOUT),
        (FEATURES, {"duration": "x"}),
        (FEATURES, {}),
        (FEATURES, {"duration": 0}),
    ):
        cache.write("b", features, about)
        assert cache.read("b") is None


@pytest.mark.parametrize("text", ["x", "-1", "nan", "inf"])
def test_a_limit_that_is_not_a_number_of_gb_is_refused(
    text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MESM_CACHE", str(tmp_path))
    monkeypatch.setenv("MESM_CACHE_GB", text)
    with pytest.raises(ConfigError, match="MESM_CACHE_GB"):
        default_cache()
    monkeypatch.setenv("MESM_CACHE_GB", "0.5")
    assert default_cache().limit == 500_000_000


def test_notes_about_changed_files_are_ignored(tmp_path: Path) -> None:
    notes, file = FileNotes(tmp_path / "notes"), tmp_path / "file"
    file.write_text("one")
    assert identity_of(file) is None  # it may be changed again in the same tick of the clock
    aged(file)
    notes.put(file, "hash", "abc", seen=identity_of(file))
    assert notes.get(file, "hash") == "abc"
    assert notes.get(file, "other") is None
    seen = identity_of(file)
    file.write_text("two")
    notes.put(file, "hash", "wrong", seen=seen)
    assert notes.get(file, "hash") is None
    aged(file)
    notes.put(file, "hash", "def", seen=identity_of(file))
    (note,) = (tmp_path / "notes").iterdir()
    for text in ("", "[]", "{", json.dumps({"file": 1}), "\udce9".encode("utf-8", "surrogateescape").decode("latin1")):
        note.write_text(text)
        assert notes.get(file, "hash") is None


def extraction(tmp_path: Path, recipe: Recipe = PIXELS, **changes: Any) -> CachedExtraction:
    given: dict[str, Any] = {
        "weights": {},
        "device": "cpu",
        "precision": None,
        "cache": FeatureCache(tmp_path / "cache", limit=10**9),
        "notes": FileNotes(tmp_path / "notes"),
    }
    return CachedExtraction(recipe, **(given | changes))


def test_features_are_in_order_and_only_missing_videos_are_decoded(tmp_path: Path) -> None:
    folder = make_videos(tmp_path / "videos", 4)
    (folder / "v0001.avi").write_bytes(b"no video")
    videos = [VideoFile(path.stem, path) for path in sorted(folder.iterdir())]
    first = [event for event in extraction(tmp_path).run(videos[:1]) if not isinstance(event, Frames)]
    assert isinstance(first[0], Featured)
    found = [event for event in extraction(tmp_path).run(videos[::-1]) if not isinstance(event, Frames)]
    assert [event.video.name for event in found] == ["v0003", "v0002", "v0001", "v0000"]
    assert [isinstance(event, Failed) for event in found] == [False, False, True, False]
    assert [event.cached for event in found if isinstance(event, Featured)] == [False, False, True]
    again = list(extraction(tmp_path).run(videos))
    kept = [event for event in again if isinstance(event, Featured)]
    assert all(event.cached for event in kept)
    assert np.array_equal(kept[0].features[0], first[0].features[0])


def test_features_are_returned_if_the_cache_cannot_be_written(tmp_path: Path) -> None:
    folder = make_videos(tmp_path / "videos", 1)
    (tmp_path / "cache").write_text("no folder")
    (found,) = [
        e for e in extraction(tmp_path).run([VideoFile("v0000", folder / "v0000.avi")]) if isinstance(e, Featured)
    ]
    assert len(found.features[0]) == 2
    assert "could not be written" in found.cache_error


def test_weights_that_differ_from_training_are_refused(tmp_path: Path) -> None:
    recipe = Recipe(("pixels",), Fraction(1), weights=("0" * 32,))
    with pytest.raises(FeatureError, match=r"The weights of pixels .* differ .* \(000000000000\)"):
        list(extraction(tmp_path, recipe).run([]))


MADE = {"backbone": "pixels", "weights": "abc", "clip_len": 1 / 3, "interpolation": "bicubic"}


def test_recorded_feature_settings_determine_the_recipe() -> None:
    config = load_config("tacos", overrides=["model.video_dim=256"])
    found = recipe_of(config, {"files": ["mine.hdf5"], "origins": [MADE]}, source="best.pt")
    assert found == Recipe(("pixels",), Fraction(1, 3), "bicubic", ("abc",))


@pytest.mark.parametrize(
    ("preset", "clip_len"), [("charades", 1), ("qvhighlights", 2), ("tacos-clip-slowfast", 2), ("charades-cd", 1)]
)
def test_presets_determine_the_recipe_of_published_and_older_checkpoints(preset: str, clip_len: int) -> None:
    found = recipe_of(load_config(preset), {}, source="model.ckpt")
    assert found == Recipe(("clip-b32", "slowfast-r50"), Fraction(clip_len), weights=(None, None))


@pytest.mark.parametrize(
    ("preset", "settings", "statistics", "message"),
    [
        ("tacos", [], {}, r"(?s)published.*c3d\.hdf5 \(4096 wide\).*mesm predict CKPT --features"),
        ("charades-vgg-glove", [], {}, r"(?s)published.*vgg\.hdf5 \(4096 wide, rows of 0\.17 s\)"),
        ("charades", [], {"files": ["a.h5"]}, r"does not record which backbone made the features in a\.h5"),
        ("charades", ["model.video_dim=100"], {}, r"100 wide, not as wide as those of clip-b32 \(512\)"),
        ("charades", ["model.video_dim=256"], {"files": ["a"], "origins": [MADE]}, "rows of 0.333333 s, but .* is 1"),
        ("charades", [], {"files": ["a"], "origins": [{"backbone": "i3d"}]}, "'i3d', which mesm does not extract"),
        (
            "tacos",
            ["model.video_dim=512"],
            {"files": ["a", "b"], "origins": [MADE, MADE | {"clip_len": 2.0}]},
            "feature files with clip_len .* and clip_len 2.0",
        ),
        (
            "tacos",
            ["model.video_dim=256"],
            {"files": ["a"], "origins": [{"backbone": "pixels"}]},
            "does not record how many seconds a row",
        ),
    ],
)
def test_features_that_cannot_be_extracted_are_refused(
    preset: str, settings: list[str], statistics: dict[str, Any], message: str
) -> None:
    with pytest.raises(FeatureError, match=message):
        recipe_of(load_config(preset, overrides=settings), statistics, source="best.pt")
