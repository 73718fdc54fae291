"""Recall in a collection: against slow loops over ranks, and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from mesm_core.metrics.corpus import corpus_recall, moment_rank, video_rank


def slow_recall(found, truth, depth: int, threshold: float) -> float:
    hits = 0
    for results, (video, windows) in zip(found, truth, strict=True):
        hit = False
        for name, start, end in results[:depth]:
            for low, high in windows:
                inner = max(min(end, high) - max(start, low), 0)
                hit |= name == video and inner / ((end - start) + (high - low) - inner) >= threshold
        hits += hit
    return 100 * hits / len(found)


def test_recall_equals_a_loop_over_results() -> None:
    rng = np.random.default_rng(0)
    found, truth = [], []
    for _ in range(40):
        starts = rng.uniform(0, 20, 12)
        results = [(str(rng.integers(4)), float(s), float(s + rng.uniform(1, 10))) for s in starts]
        found.append(results[: rng.integers(0, 13)])
        truth.append((str(rng.integers(4)), [(3.0, 9.0), (10.0, 18.0)][: rng.integers(1, 3)]))
    figures = corpus_recall(found, truth)
    for depth in (1, 10):
        for threshold in (0.5, 0.7):
            assert figures[f"R{depth}@{threshold}"] == pytest.approx(slow_recall(found, truth, depth, threshold))
        videos = [len({n for n, *_ in r[: _first(r, v)]}) < depth and v in [n for n, *_ in r]
                  for r, (v, _) in zip(found, truth, strict=True)]  # fmt: skip
        assert figures[f"VR@{depth}"] == pytest.approx(100 * np.mean(videos))


def _first(results, video: str) -> int:
    names = [name for name, *_ in results]
    return names.index(video) if video in names else len(names)


def test_other_results_count_for_videos_only() -> None:
    truth = [("b", [(0.0, 4.0)])]
    figures = corpus_recall([[("a", 0.0, 4.0)]], truth, others=[[("a", 0.0, 4.0), ("b", 0.0, 4.0)]])
    assert (figures["VR@1"], figures["VR@10"], figures["R10@0.5"]) == (0, 100, 0)


def test_ranks_count_videos_once_and_results_each() -> None:
    found = [("a", 0.0, 4.0), ("a", 5.0, 6.0), ("b", 0.0, 4.0), ("b", 8.0, 12.0)]
    assert [video_rank(found, name) for name in "abc"] == [1, 2, float("inf")]
    assert moment_rank(found, "b", [(8.0, 12.0)], 0.7) == 4
    assert moment_rank(found, "b", [(0.0, 4.0), (8.0, 12.0)], 1.0) == 3
    assert moment_rank(found, "b", [(20.0, 24.0)], 0.5) == moment_rank([], "b", [(0.0, 1.0)], 0.5) == float("inf")
