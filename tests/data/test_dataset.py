from __future__ import annotations

import json
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesm_core.data.collate import draw_negatives
from mesm_core.data.dataset import read_ahead
from mesm_core.data.features import FeatureStore, mean_bins
from mesm_core.data.frames import draw_masked_words, frame_range, label_frames
from mesm_core.data.readers import read_split
from mesm_core.data.sampling import make_groups, train_batches
from mesm_core.errors import ConfigError, DataError, FeatureError
from mesm_core.types import Highlights, Query


def annotate(folder: Path, **changes: object) -> Path:
    video = {"timestamps": [[0, 50], [50, 100]], "sentences": ["He cuts.", "He eats."], "fps": 10.0, "num_frames": 100}
    (folder / "test.json").write_text(json.dumps({"v1": video | changes}))
    return folder


def test_tacos_annotations_are_repaired(tmp_path: Path) -> None:
    folder = annotate(tmp_path, timestamps=[[60, 50], [90, 150], [0, 10]], sentences=["a", "b", "c"])
    annotations = read_split("tacos", folder, "test")
    assert [(q.qid, q.sentence, q.windows[0]) for q in annotations.queries] == [
        (1, "b", (9.0, 10.0)),
        (2, "c", (0.0, 1.0)),
    ]
    assert annotations.repairs == {"inverted (dropped)": 1, "clamped to the video": 1}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"num_frames": 0}, "duration is 0"),
        ({"fps": 0}, "fps is 0"),
        ({"fps": "fast"}, "must be numbers"),
        ({"timestamps": [[0, 5]]}, "1 timestamps for 2 sentences"),
        ({"timestamps": [[0, 5], [1]]}, "sentence 2"),
        ({"timestamps": [[0, 5], [1, None]]}, "sentence 2"),
        ({"timestamps": "no"}, "must be lists"),
        ({"sentences": ["x", "  "]}, "sentence 2: the sentence is empty"),
    ],
)
def test_malformed_annotations_are_refused(tmp_path: Path, changes: dict[str, object], expected: str) -> None:
    with pytest.raises(DataError, match=expected) as caught:
        read_split("tacos", annotate(tmp_path, **changes), "test")
    assert "video v1" in str(caught.value)


def test_invalid_annotation_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No annotation file"):
        read_split("tacos", tmp_path, "test")
    (tmp_path / "test.json").write_text('{"v":\n {,}}')
    with pytest.raises(DataError, match="line 2, column 3"):
        read_split("tacos", tmp_path, "test")
    (tmp_path / "test.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(DataError, match="UTF-8"):
        read_split("tacos", tmp_path, "test")
    (tmp_path / "test.json").write_text("[]")
    with pytest.raises(DataError, match="found list"):
        read_split("tacos", tmp_path, "test")
    (tmp_path / "test.json").write_text("{}")
    with pytest.raises(DataError, match="no queries"):
        read_split("tacos", tmp_path, "test")


def test_unknown_datasets_and_splits_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'tacos'\?"):
        read_split("taco", Path(), "test")
    with pytest.raises(ConfigError, match=r"Did you mean 'test'\?"):
        read_split("tacos", Path(), "tests")


def write_features(path: Path, **videos: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        for name, frames in videos.items():
            file[name] = frames
    return path


def store(*paths: Path, dim: int = 3, max_frames: int = 10, **more: object) -> FeatureStore:
    return FeatureStore(paths, dim=dim, max_frames=max_frames, **more)


def test_features_are_normalised_concatenated_and_given_endpoints(tmp_path: Path) -> None:
    a = write_features(tmp_path / "a.hdf5", v=np.array([[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]], np.float16))
    b = write_features(tmp_path / "b.hdf5", v=np.array([[5.0], [-2.0]], np.float32))
    video = store(a, b).get("v")
    assert video.dtype == np.float32
    assert video == pytest.approx(np.array([[0.6, 0.8, 1, 0, 0.5], [0, 1, -1, 0.5, 1]]), abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(length=st.integers(1, 60), limit=st.integers(1, 40))
def test_mean_bins_match_the_definition(length: int, limit: int) -> None:
    video = np.random.default_rng(length).normal(size=(length, 2))
    got = mean_bins(video, limit)
    if length <= limit:
        assert got is video
        return
    edges = [min(int(np.round(i * length / limit)), length - 1) for i in range(limit + 1)]
    want = [video[s:e].mean(axis=0) if s < e else video[s] for s, e in pairwise(edges)]
    assert got == pytest.approx(np.array(want))


def test_long_videos_keep_their_first_frames_if_requested(tmp_path: Path) -> None:
    path = write_features(tmp_path / "a.hdf5", v=np.eye(3, dtype=np.float32))
    assert store(path, max_frames=2, shorten="first").get("v")[:, :3] == pytest.approx(np.eye(3)[:2])


def test_cached_features_are_the_same(tmp_path: Path) -> None:
    path = write_features(tmp_path / "a.hdf5", v=np.ones((4, 3), np.float32), w=np.ones((4, 3), np.float32))
    cached = store(path, cache_bytes=80)
    assert np.array_equal(cached.get("v"), cached.get("v"))
    assert list(cached._cache) == ["v"]
    assert np.array_equal(cached.get("w"), store(path).get("w"))


def test_a_wrong_feature_width_is_refused(tmp_path: Path) -> None:
    path = write_features(tmp_path / "a.hdf5", v=np.ones((4, 5), np.float32))
    with pytest.raises(FeatureError, match=r"are 5 wide, but model.video_dim is 3") as caught:
        store(path).get("v")
    assert "--set model.video_dim=5" in str(caught.value)
    with pytest.raises(FeatureError, match=r"5 \+ 5 = 10 wide"):
        store(path, path).get("v")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    frames = np.ones((4, 3), np.float32)
    frames[2, 1] = value
    with pytest.raises(FeatureError, match=r"Video 'v'.*NaN or infinity \(first in frame 2\)"):
        store(write_features(tmp_path / "a.hdf5", v=frames)).get("v")


@pytest.mark.parametrize("shape", [(3,), (0, 3), (2, 2, 3)])
def test_features_of_a_wrong_shape_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(FeatureError, match="shape"):
        store(write_features(tmp_path / "a.hdf5", v=np.ones(shape, np.float32))).get("v")


def test_missing_videos_are_listed_up_to_ten(tmp_path: Path) -> None:
    path = write_features(tmp_path / "a.hdf5", video1=np.ones((4, 3), np.float32))
    with pytest.raises(FeatureError, match="13 of 14 videos") as caught:
        store(path).require(["video1", *(f"v{i}" for i in range(13))])
    message = str(caught.value)
    assert "v9 … and 3 more (13 in all)" in message
    assert "--skip-missing" in message


def test_invalid_feature_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match="No feature file"):
        store(tmp_path / "none.hdf5")
    other = tmp_path / "other.hdf5"
    other.write_bytes(b"not hdf5")
    with pytest.raises(FeatureError, match="not an HDF5 file"):
        store(other)
    whole = write_features(tmp_path / "whole.hdf5", v=np.ones((400, 30), np.float32))
    whole.write_bytes(whole.read_bytes()[:-2000])
    with pytest.raises(FeatureError, match="truncated"):
        store(whole)
    written_over = write_features(tmp_path / "over.hdf5", v=np.ones((4, 3), np.float32), w=np.ones((4, 3), np.float32))
    opened = store(written_over)
    opened.get("v")
    written_over.write_bytes(b"")
    with pytest.raises(FeatureError, match="shorter than when it was opened"):
        opened.get("w")
    with h5py.File(tmp_path / "group.hdf5", "w") as file:
        file.create_group("v")
    with pytest.raises(FeatureError, match="is a group"):
        store(tmp_path / "group.hdf5").get("v")


def queries(sizes: list[int]) -> list[Query]:
    return [
        Query(None, f"v{video}", "a b", 20.0, ((float((7 * n) % 13), 15.0),))
        for video, size in enumerate(sizes)
        for n in range(size)
    ]


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(1, 25), min_size=2, max_size=8), batch_size=st.integers(2, 5), seed=st.integers(0, 9))
def test_groups_and_batches_cover_all_queries(sizes: list[int], batch_size: int, seed: int) -> None:
    listed = queries(sizes)
    rng = np.random.default_rng(seed)
    groups = make_groups(listed, max_size=10, rng=rng)
    assert sorted(index for group in groups for index in group) == list(range(len(listed)))
    for group in groups:
        assert len(group) <= 10
        assert len({listed[i].vid for i in group}) == 1
        assert [listed[i].start for i in group] == sorted(listed[i].start for i in group)
    videos = [listed[group[0]].vid for group in groups]
    batches = train_batches(groups, videos, batch_size=batch_size, rng=rng)
    dealt = [group for batch in batches for group in batch]
    assert len(dealt) == len(set(dealt))
    for batch in batches:
        assert 2 <= len(batch) <= max(batch_size, len(sizes))
        vids = [listed[group[0]].vid for group in batch]
        assert len(vids) == len(set(vids))


def test_evaluation_groups_are_deterministic() -> None:
    listed = queries([23, 4])
    assert make_groups(listed, max_size=10, rng=None) == make_groups(listed, max_size=10, rng=None)
    assert [len(g) for g in make_groups(listed, max_size=10, rng=None)] == [10, 10, 3, 4]
    assert [len(g) for g in make_groups(listed, max_size=-1, rng=None)] == [23, 4]


def test_training_needs_two_videos() -> None:
    groups = make_groups(queries([30]), max_size=10, rng=None)
    rng = np.random.default_rng(0)
    with pytest.raises(DataError, match="two videos"):
        train_batches(groups, ["v0"] * 3, batch_size=3, rng=rng)
    with pytest.raises(DataError, match="batch_size"):
        train_batches(groups, ["v0", "v1", "v2"], batch_size=1, rng=rng)


@given(st.floats(0, 50), st.floats(0, 50), st.integers(1, 200), st.sampled_from([-1.0, 0.17, 1.0, 2.0]))
def test_frame_ranges_are_inside_the_video(a: float, b: float, frames: int, clip_len: float) -> None:
    start, end = sorted((a, b))
    first, last = frame_range((start, end), duration=50.0, frames=frames, clip_len=clip_len)
    assert 0 <= first <= last < frames


@given(st.integers(1, 12), st.data())
def test_drawn_frames_are_positive_and_negative(frames: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, frames - 1))
    last = data.draw(st.integers(first, frames - 1))
    query = Query(1, "v", "a", float(frames), ((first + 0.1, last + 0.2),))
    labels = label_frames(query, frames=frames, clip_len=-1, rng=np.random.default_rng(0))
    assert labels.inside.tolist() == list(range(first, last + 1))
    assert np.isin(labels.positive, labels.inside).all()
    assert labels.contrast == (last - first + 1 < frames)
    if labels.contrast:
        assert ((labels.negative < first) | (labels.negative > last)).all()
    if last > first:
        assert labels.positive[0] != labels.positive[1]


def test_highlight_labels() -> None:
    highlights = Highlights(clips=(1, 2, 5), scores=((1, 1, 1), (4, 4, 3), (0, 1, 1)))
    query = Query(1, "v", "a", 10.0, ((2.0, 6.0),), highlights=highlights)
    labels = label_frames(query, frames=5, clip_len=2, rng=np.random.default_rng(0))
    assert labels.saliency.tolist() == [0, 3, 11, 0, 2]
    assert labels.inside.tolist() == [1, 2, 4]
    assert (labels.positive[0], labels.negative[0]) == (2, 4)
    assert labels.positive[1] in (1, 2, 4)
    assert labels.negative[1] in (0, 3)
    everything = Highlights(clips=(0, 1), scores=((1,), (3,)))
    labels = label_frames(replace(query, highlights=everything), frames=2, clip_len=2, rng=np.random.default_rng(0))
    assert labels.positive.tolist() == [1, 1]
    assert labels.negative.tolist() == [0, 0]


@given(st.lists(st.integers(0, 2), min_size=1, max_size=16))
def test_a_third_of_the_words_is_masked(weights: list[int]) -> None:
    array = np.array(weights)
    masked = draw_masked_words(array, np.random.default_rng(1))
    wanted = 0 if len(weights) == 1 else min(max(len(weights) // 3, 1), int((array > 0).sum()))
    assert masked.sum() == wanted
    assert (array[masked] > 0).all()


def test_negatives_are_drawn_uniformly_from_other_groups() -> None:
    group = np.repeat([0, 1, 2], [2, 1, 3])
    rng = np.random.default_rng(0)
    drawn = np.stack([draw_negatives(group, rng) for _ in range(3000)])
    assert (group[drawn] != group).all()
    share = np.bincount(drawn[:, 2], minlength=6) / 3000
    assert share == pytest.approx([0.2, 0.2, 0, 0.2, 0.2, 0.2], abs=0.04)


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_read_ahead_raises_errors_of_its_threads(threads: int) -> None:
    def make(value: int) -> int:
        if value == 2:
            raise DataError("bad")
        return value

    seen = []
    with pytest.raises(DataError, match="bad"):
        for value in read_ahead(make, range(5), threads=threads):
            seen.append(value)
    assert seen == [0, 1]


@pytest.mark.parametrize("threads", [1, 2, 3, 20])
def test_batches_come_in_order_from_any_number_of_threads(threads: int) -> None:
    def make(value: int) -> int:
        time.sleep(0.001 * (value % 3))  # later batches are ready before earlier ones
        return value

    assert list(read_ahead(make, range(12), threads=threads)) == list(range(12))
    assert list(read_ahead(make, [], threads=threads)) == []
