from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesm_core.metrics.bootstrap import interval, paired_p_value
from mesm_core.metrics.highlights import LEVELS, clip_scores, score_highlights
from mesm_core.metrics.moments import MAP_THRESHOLDS, MAX_WINDOWS, iou, score_moments
from mesm_core.metrics.nms import temporal_nms
from mesm_core.metrics.report import LENGTH_RANGES, SUPERLONG, moment_tables


def slow_average_precision(predicted: np.ndarray, truth: np.ndarray, threshold: float) -> float:
    """Average precision as VOC 2010 defines it, one prediction at a time."""
    ranked = sorted(predicted[:MAX_WINDOWS].tolist(), key=lambda row: -row[2])
    free, found, precisions = list(range(len(truth))), 0, []
    for rank, (start, end, _) in enumerate(ranked, start=1):
        overlaps = [(float(iou(np.array([start, end]), truth[t])), t) for t in free]
        best = max(overlaps, default=(-1.0, -1), key=lambda pair: pair[0])
        if best[0] >= threshold:
            free.remove(best[1])
            found += 1
        precisions.append((found / len(truth), found / rank))
    area, reached = 0.0, 0.0
    for recall, _ in precisions:
        if recall > reached:
            area += (recall - reached) * max(p for r, p in precisions if r >= recall)
            reached = recall
    return area


windows = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 15)), min_size=1, max_size=4)
ranked = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 15), st.integers(0, 5)), max_size=12)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(ranked, windows), min_size=1, max_size=4))
def test_against_a_slow_implementation(queries: list[tuple[list[tuple[int, int, int]], list[tuple[int, int]]]]) -> None:
    predicted = [np.array([(s, s + w, c / 5) for s, w, c in p], float).reshape(-1, 3) for p, _ in queries]
    truth = [np.array([(s, s + w) for s, w in t], float) for _, t in queries]
    scores = score_moments(predicted, truth)
    for row, (answers, targets) in enumerate(zip(predicted, truth, strict=True)):
        first = max((float(iou(answers[0, :2], t)) for t in targets), default=0.0) if len(answers) else 0.0
        assert scores.best_iou[row] == pytest.approx(first)
        want = [slow_average_precision(answers, targets, threshold) for threshold in MAP_THRESHOLDS]
        assert scores.average_precision[row] == pytest.approx(want)


def slow_highlight_ap(labels: np.ndarray, scores: np.ndarray) -> float:
    """The field's highlight AP, threshold by threshold."""
    if labels.all() or not labels.any():
        return float(labels.all())
    points = []
    for threshold in sorted(set(scores.tolist())):
        chosen = scores >= threshold
        points.append((labels[chosen].sum() / labels.sum(), labels[chosen].mean()))
    best, kept = 0.0, {}
    for recall, precision in points:
        best = max(best, precision)
        if recall > 0:
            kept[recall] = best
    return float(np.mean(list(kept.values())))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.lists(
            st.tuples(st.lists(st.integers(0, 4), min_size=3, max_size=3), st.integers(-2, 2)), min_size=1, max_size=9
        ),
        min_size=1,
        max_size=3,
    )
)
def test_highlights_against_a_slow_implementation(queries: list[list[tuple[list[int], int]]]) -> None:
    truth = [np.array([labels for labels, _ in clips]) for clips in queries]
    predicted = [np.array([float(score) for _, score in clips]) for clips in queries]
    scored = score_highlights(predicted, truth)
    for name, level in LEVELS.items():
        want = [
            slow_highlight_ap(labels[:, annotator] >= level, scores)
            for labels, scores in zip(truth, predicted, strict=True)
            for annotator in range(3)
        ]
        assert scored[name]["mAP"] == pytest.approx(np.mean(want))
        hits = [(labels[scores.argmax()] >= level).any() for labels, scores in zip(truth, predicted, strict=True)]
        assert scored[name]["Hit1"] == pytest.approx(np.mean(hits))


def test_highlight_lengths_that_differ() -> None:
    truth = [clip_scores(4.9, [0, 1, 2], [(4, 0, 0), (0, 0, 0), (4, 4, 4)])]
    assert truth[0].shape == (2, 3)
    late = score_highlights([np.array([0.1, 0.2, 0.9])], truth)["VeryGood"]
    assert late["Hit1"] == 0
    short = score_highlights([np.array([0.5])], truth)["VeryGood"]
    assert short == {"mAP": pytest.approx(1 / 3), "Hit1": 1.0}


def test_nms() -> None:
    windows = np.array([[0.0, 10, 0.5], [1, 10, 0.9], [20, 30, 0.1], [0, 5, 0.2]])
    assert temporal_nms(windows, threshold=-1).tolist() == windows.tolist()
    assert temporal_nms(windows, threshold=0.5).tolist() == [[1, 10, 0.9], [0, 5, 0.2], [20, 30, 0.1]]
    assert len(temporal_nms(windows, threshold=0.5, max_before=2)) == 1
    assert len(temporal_nms(windows, threshold=0.5, max_after=1)) == 1
    assert temporal_nms(np.zeros((0, 3)), threshold=0.5).shape == (0, 3)


def test_bootstrap() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=400)
    low, high = interval(values, seed=1)
    assert low < values.mean() < high
    assert (high - low) == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.15)
    assert interval(values, seed=1) == (low, high)
    assert paired_p_value(values, values, seed=0) == 1
    assert paired_p_value(values + 1, values, seed=0) < 0.01
    assert paired_p_value(values, rng.permutation(values), seed=0) > 0.5


def test_by_hand() -> None:
    truth = [np.array([[0.0, 10.0], [20.0, 30.0]])]
    both = score_moments([np.array([[20.0, 30.0, 0.9], [0.0, 10.0, 0.8]])], truth)
    assert both.average_precision.mean() == 1
    assert both.recall(0.7) == 1
    half = score_moments([np.array([[20.0, 30.0, 0.9], [20.0, 30.0, 0.8]])], truth)
    assert half.average_precision.mean() == pytest.approx(0.5)
    none = score_moments([np.zeros((0, 3))], truth)
    assert none.average_precision.sum() == 0
    assert none.best_iou.tolist() == [0]
    empty = score_moments([np.array([[5.0, 5.0, 1.0]])], [np.array([[5.0, 5.0]])])
    assert empty.best_iou.tolist() == [0]


def test_only_ten_windows_count() -> None:
    wrong = np.array([[90.0, 99.0, 1.0]] * 10)
    late = np.concatenate([wrong, [[0.0, 10.0, 2.0]]])
    assert score_moments([late], [np.array([[0.0, 10.0]])]).average_precision.sum() == 0


def test_ranges_follow_the_truth() -> None:
    truth = [np.array([[0.0, 10.0]]), np.array([[0.0, 10.5], [3.0, 4.0]]), np.array([[0.0, 200.0]])]
    predicted = [np.array([[0.0, 10.0, 1.0]])] * 3
    tables = moment_tables(predicted, truth, ranges=LENGTH_RANGES | SUPERLONG)
    assert tables["full"]["queries"] == 3
    assert tables["short"]["queries"] == 2
    assert tables["middle"]["queries"] == 1
    assert tables["long"] is None
    assert tables["superlong"]["queries"] == 1
    assert tables["brief"]["MR-long-mAP"] is None
    assert tables["brief"]["MR-full-R1@0.5"] == 66.67
