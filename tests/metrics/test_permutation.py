"""Permutation tests between groups of runs."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from mesm_core.metrics.permutation import MOST_SPLITS, permute_runs, permute_videos


def test_three_and_three_runs_have_twenty_splits() -> None:
    apart = permute_runs(np.array([3.0, 3.1, 3.2]), np.array([1.0, 1.1, 1.2]), seed=0)
    assert (apart.tried, apart.p, apart.smallest, apart.exact) == (20, 0.1, 0.1, True)


def test_groups_of_different_size_reach_one_split() -> None:
    apart = permute_runs(np.array([3.0, 3.1, 3.3]), np.array([1.0, 1.1]), seed=0)
    assert (apart.tried, apart.p, apart.smallest) == (10, 0.1, 0.1)


def test_runs_that_do_not_differ_have_a_p_value_of_one() -> None:
    assert permute_runs(np.array([1.0, 2.0]), np.array([2.0, 1.0]), seed=0).p == 1
    assert permute_runs(np.ones(3), np.ones(4), seed=0).p == 1


def test_drawn_splits_agree_with_all_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(0.8, 1, 7), rng.normal(0, 1, 7)  # 3432 splits
    whole = permute_runs(a, b, seed=0)
    monkeypatch.setattr("mesm_core.metrics.permutation.MOST_SPLITS", 3000)
    drawn = permute_runs(a, b, seed=0)
    assert (whole.exact, drawn.exact, drawn.tried) == (True, False, 3000)
    assert drawn.p == pytest.approx(whole.p, abs=0.03)
    assert drawn == permute_runs(a, b, seed=0)


def test_videos_are_exchanged_as_a_whole() -> None:
    """With few videos the p-value is the share of all sign changes of the videos' sums."""
    rng = np.random.default_rng(1)
    videos = np.array([0, 0, 0, 1, 2, 2, 3])
    a, b = rng.random(7), rng.random(7)
    sums = [(a - b)[videos == video].sum() for video in range(4)]
    means = [abs(np.dot(signs, sums)) for signs in product([1, -1], repeat=4)]
    expected = np.mean([mean >= means[0] - 1e-12 for mean in means])
    found = permute_videos(a, b, videos, seed=0)
    assert (found.p, found.tried, found.exact) == (expected, 16, True)


def test_queries_about_one_video_are_no_evidence_for_others() -> None:
    """A hundred queries about two videos are two observations."""
    a, b = np.ones(100), np.zeros(100)
    assert permute_videos(a, b, np.arange(100) % 2, seed=0).p == 0.5
    apart = permute_videos(a, b, np.arange(100), seed=0)
    assert apart.p == apart.smallest == 1 / MOST_SPLITS


@pytest.mark.parametrize("groups", [(3, 3), (4, 2)])
def test_p_values_of_equal_groups_are_uniform(groups: tuple[int, int]) -> None:
    """Of tests whose groups do not differ, a share of at most p has a p-value up to p."""
    rng = np.random.default_rng(5)
    ps = np.array([permute_runs(rng.normal(size=groups[0]), rng.normal(size=groups[1]), seed=0).p for _ in range(600)])
    for level in (0.1, 0.2, 0.5):
        assert (ps <= level).mean() <= level + 3 * np.sqrt(level * (1 - level) / len(ps))
