"""Zero-shot: its functions on arrays, its accuracy on planted moments, and the retriever."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mesm_core import ZeroShotRetriever
from mesm_core.errors import ConfigError, DataError, FeatureError, TextError
from mesm_core.inference.answers import VideoQueries
from mesm_core.inference.retriever import predict_queries
from mesm_core.inference.zero_shot import (
    LONGEST_RUN,
    MOST_MOMENTS,
    candidate_spans,
    contrast,
    find_moments,
    merging_order,
    segment_edges,
    smoothed,
    standardised,
)
from mesm_core.text.clip import ClipTextTransformer
from mesm_core.text.clip_bpe import ClipTokenizer
from mesm_core.text.clip_joint import ClipSentences
from mesm_core.types import Query
from tests.planted_frames import Planting, plant, sliding_maximum, unit

DIM = 64


def invented_video(rng: np.random.Generator) -> tuple[np.ndarray, list[tuple[float, float]], float]:
    """Return three sentences' vectors, their windows and the duration of a video."""
    duration = float(rng.uniform(25, 60))
    starts = rng.uniform(0, 0.6 * duration, size=3)
    ends = np.minimum(starts + rng.uniform(5, 20, size=3), duration)
    return unit(rng.normal(size=(3, DIM))), [(float(s), float(e)) for s, e in zip(starts, ends, strict=True)], duration


def overlap(a: tuple[float, float], b: tuple[float, float]) -> float:
    return max(min(a[1], b[1]) - max(a[0], b[0]), 0) / (max(a[1], b[1]) - min(a[0], b[0]))


def test_planted_moments_are_found_better_than_with_a_sliding_window() -> None:
    rng = np.random.default_rng(0)
    ours, windows = [], []
    # Chance similarities are larger in 64 dimensions than in CLIP's 512, so what is planted is, too.
    planting = Planting(lean=(0.1, 0.3))
    for _ in range(150):
        vectors, truth, duration = invented_video(rng)
        frames = unit(plant(vectors, [[w] for w in truth], duration, rate=1, rng=rng, planting=planting))
        found, _ = find_moments(frames, vectors, duration)
        for column, window in enumerate(truth):
            slid = sliding_maximum(frames @ vectors[column], duration, list(np.arange(4, duration, 4)))
            ours.append(overlap((found[column][0, 0], found[column][0, 1]), window) >= 0.5)
            windows.append(overlap(slid, window) >= 0.5)
    assert np.mean(ours) > np.mean(windows) + 0.2, (np.mean(ours), np.mean(windows))
    assert np.mean(ours) > 0.55


def ward_by_hand(frames: np.ndarray) -> list[int]:
    """Return the order of merges by trying every pair of neighbours each time."""
    edges, order = list(range(len(frames) + 1)), []

    def spread(a: int, b: int) -> float:
        return float(((frames[a:b] - frames[a:b].mean(axis=0)) ** 2).sum())

    while len(edges) > 2:
        costs = [
            spread(a, c) - spread(a, b) - spread(b, c) for a, b, c in zip(edges, edges[1:], edges[2:], strict=False)
        ]
        order.append(edges.pop(int(np.argmin(costs)) + 1))
    return order


def test_segments_are_merged_by_wards_criterion() -> None:
    frames = np.random.default_rng(0).normal(size=(30, 3))
    assert merging_order(frames).tolist() == ward_by_hand(frames)
    assert merging_order(frames[:1]).tolist() == []


def test_a_shot_is_one_segment() -> None:
    frames = np.repeat(np.random.default_rng(0).normal(size=(4, 8)), [5, 9, 3, 7], axis=0)
    assert segment_edges(merging_order(frames), 4).tolist() == [0, 5, 14, 17, 24]


def test_contrast_is_a_correlation() -> None:
    series = np.random.default_rng(0).normal(size=40)
    spans = np.array([[3, 9], [0, 40], [10, 11], [39, 40]])
    for score, (start, end) in zip(contrast(series, spans), spans, strict=True):
        inside = (np.arange(40) >= start) & (np.arange(40) < end)
        expected = 0 if inside.all() else np.corrcoef(series, inside)[0, 1]
        assert score == pytest.approx(expected, abs=1e-9)


def test_standardising_removes_offset_and_scale() -> None:
    series = np.random.default_rng(0).normal(size=(30, 2))
    assert np.allclose(standardised(series * 0.01 + [0.2, 0.3]), standardised(series))
    assert standardised(np.full((9, 1), 0.25, np.float32)).tolist() == [[0]] * 9


def test_smoothing_keeps_constant_series() -> None:
    assert np.allclose(smoothed(np.ones((7, 2)), 2.0), 1)
    assert np.allclose(smoothed(np.eye(5), 0.0), np.eye(5))
    assert smoothed(np.ones((1, 1)), 30.0).tolist() == [[1]]


@pytest.mark.parametrize("seconds", [20.0, 500.0, 2000.0])
def test_candidates_of_long_videos_are_few_and_of_every_length(seconds: float) -> None:
    length = int(seconds)
    order = merging_order(np.random.default_rng(0).normal(size=(length, 2)))
    spans = candidate_spans(order, seconds)
    assert len(spans) <= 2 * LONGEST_RUN * length / 2.5 + LONGEST_RUN**2
    assert (spans == [0, length]).all(axis=1).any()
    lengths = spans[:, 1] - spans[:, 0]
    assert lengths.min() >= 1
    for wanted in np.geomspace(8, length, 6):
        assert np.abs(np.log(lengths / wanted)).min() < 0.3


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(1, 40),
    count=st.integers(1, 3),
    duration=st.floats(0.01, 1e5),
    kind=st.sampled_from(["noise", "same", "zero"]),
    seed=st.integers(0, 99),
)
def test_moments_are_inside_the_video(length: int, count: int, duration: float, kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames = unit(rng.normal(size=(length, 4))) if kind != "zero" else np.zeros((length, 4))
    frames = np.repeat(frames[:1], length, axis=0) if kind == "same" else frames
    windows, saliency = find_moments(frames.astype(np.float32), unit(rng.normal(size=(count, 4))), duration)
    assert len(windows) == len(saliency) == count
    for rows, scores in zip(windows, saliency, strict=True):
        assert 1 <= len(rows) <= MOST_MOMENTS
        assert ((rows[:, 0] >= 0) & (rows[:, 0] <= rows[:, 1]) & (rows[:, 1] <= duration)).all()
        assert ((rows[:, 2] >= 0) & (rows[:, 2] <= 1)).all()
        assert (np.diff(rows[:, 2]) <= 0).all()
        assert scores.shape == (length,)
        assert scores.dtype == np.float32
        assert np.isfinite(scores).all()


def retriever() -> ZeroShotRetriever:
    torch.manual_seed(0)
    model = ClipTextTransformer(vocabulary=49408, context=77, width=16, layers=1, heads=2).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    projection = torch.randn(16, DIM)
    return ZeroShotRetriever(
        ClipSentences(model=model, projection=projection, tokenizer=ClipTokenizer(), device=torch.device("cpu"))
    )


CLIP = retriever()
QUERIES = ["a person opens the door", "she laughs"]


def video(duration: float = 30.0) -> np.ndarray:
    vectors = CLIP.sentences.embed(QUERIES[:1])
    rng, planting = np.random.default_rng(0), Planting(lean=(0.6, 0.6), distractors=0.0)
    return plant(vectors, [[(3.0, 10.0)]], duration, rate=1, rng=rng, planting=planting)


def test_the_retriever_chooses_the_matching_file_and_has_the_trained_interface() -> None:
    frames, slowfast = video(), np.ones((29, 2304), np.float32)
    answers = CLIP.locate(frames, QUERIES, duration=30.0)
    assert [answer.query for answer in answers] == QUERIES
    assert overlap((answers[0].moments[0].start, answers[0].moments[0].end), (3, 10)) > 0.5
    for features in ([frames, slowfast], [slowfast, frames], [frames * 7], [frames.astype(np.float64)]):
        again = CLIP.locate(features, QUERIES, duration=30.0)
        assert [a.moments for a in again] == [a.moments for a in answers]
    alone = CLIP.locate(frames, QUERIES[:1], duration=30.0, independent=True)
    assert alone[0].moments == answers[0].moments
    together = CLIP.locate_many([VideoQueries(frames, QUERIES, 30.0), VideoQueries(frames, QUERIES[1:], 30.0)], nms=-1)
    assert [len(a) for a in together] == [2, 1]
    assert len(CLIP.locate(frames, QUERIES, duration=30.0, nms=0.1)[0].moments) < len(answers[0].moments)


def test_a_constant_video_gives_a_warning() -> None:
    (answer,) = CLIP.locate(np.ones((20, DIM)), QUERIES[:1], duration=20.0)
    assert [(m.start, m.end, m.score) for m in answer.moments] == [(0.0, 20.0, 0.0)]
    assert "whole video" in answer.warnings[0]


def test_further_queries_about_a_video_do_not_segment_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    one, two = (rng.normal(size=(40, DIM)).astype(np.float32) for _ in range(2))
    kept, fresh = retriever(), retriever()
    expected = [fresh.locate(frames, ["a dog"], duration=40.0)[0].windows for frames in (one, two)]
    kept.locate(one, ["a cat"], duration=40.0)
    kept.locate(two, ["a cat"], duration=40.0)
    monkeypatch.setattr("mesm_core.inference.zero_shot_retriever.spans_of", None)
    for frames, windows in zip((one.copy(), two), expected, strict=True):
        np.testing.assert_array_equal(kept.locate(frames, ["a dog"], duration=40.0)[0].windows, windows)
    with pytest.raises(TypeError):
        kept.locate(one, ["a dog"], duration=41.0)


def test_invalid_features_and_queries_are_refused() -> None:
    with pytest.raises(FeatureError, match=r"are 2304 and 12 wide; zero-shot needs CLIP image features, 64 wide"):
        CLIP.locate([np.ones((9, 2304)), np.ones((9, 12))], QUERIES, duration=9.0)
    with pytest.raises(FeatureError, match="NaN"):
        CLIP.locate(np.full((9, DIM), np.nan), QUERIES, duration=9.0)
    with pytest.raises(FeatureError, match="shape"):
        CLIP.locate(np.ones((0, DIM)), QUERIES, duration=9.0)
    with pytest.raises(TextError, match="empty"):
        CLIP.locate(video(), [" "], duration=9.0)
    with pytest.raises(TextError, match="No query"):
        CLIP.locate(video(), [], duration=9.0)
    with pytest.raises(DataError, match="positive"):
        CLIP.locate(video(), QUERIES, duration=0.0)
    with pytest.raises(ConfigError, match="nms"):
        CLIP.locate(video(), QUERIES, duration=9.0, nms=3)


def test_predictions_are_in_file_order_and_each_video_is_read_once() -> None:
    read: list[str] = []

    class Features:
        def require(self, vids: object, *, skippable: bool = True) -> None: ...

        def duration(self, vid: str) -> None: ...

        def raw(self, vid: str) -> list[np.ndarray]:
            read.append(vid)
            return [video()]

    queries = [Query(7, "b", QUERIES[0], 30.0), Query(3, "a", QUERIES[1], 30.0), Query(5, "b", QUERIES[1], 30.0)]
    done: list[int] = []
    found = predict_queries(CLIP, queries, Features(), progress=done.append)
    assert [(p.qid, p.vid, p.query) for p in found] == [(q.qid, q.vid, q.sentence) for q in queries]
    assert (read, done) == (["b", "a"], [2, 1])
