"""Permutation tests between two groups of runs, e.g. two methods that were trained with several seeds each."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np

MOST_SPLITS = 20_000
"""Number of permutations up to which all of them are tried; otherwise this many are drawn."""
_TIE = 1e-12


@dataclass(frozen=True)
class Permutation:
    """The result of a permutation test.

    ``p``: two-sided p-value; ``tried``: number of permutations, the observed one included; ``smallest``: the smallest
    p-value that the test can give with this number of runs or videos; ``exact``: whether all permutations were tried.
    """

    p: float
    tried: int
    smallest: float
    exact: bool


def permute_runs(a: np.ndarray, b: np.ndarray, *, seed: int) -> Permutation:
    """Test "the runs of a and b come from the same distribution" by exchanging runs between the groups.

    The statistic is the absolute difference of the means. It shows whether the difference exceeds that between seeds,
    on the same queries. With few runs the test is coarse: 3 and 3 runs have 20 splits, so p is at least 0.1.

    Args:
        a, b: (n,) and (m,) values of a metric, one for each run.
        seed: of the drawn splits, if there are more than ``MOST_SPLITS``.

    >>> permute_runs(np.array([1.0, 2.0, 3.0]), np.array([7.0, 8.0, 9.0]), seed=0)
    Permutation(p=0.1, tried=20, smallest=0.1, exact=True)
    """
    values, first, size = np.concatenate([a, b]), len(a), len(a) + len(b)
    splits = comb(size, first)
    # If the groups have the same size, the mirrored split has the same absolute difference.
    smallest = (2 if first == len(b) else 1) / splits
    exact = splits <= MOST_SPLITS
    if exact:
        chosen = np.array(list(combinations(range(size), first)))
    else:
        order = np.random.default_rng(seed).permuted(np.tile(np.arange(size), (MOST_SPLITS - 1, 1)), axis=1)
        chosen = np.concatenate([np.arange(first)[None], order[:, :first]])
        smallest = max(smallest, 1 / MOST_SPLITS)
    sums = values[chosen].sum(axis=1)
    differences = sums / first - (values.sum() - sums) / len(b)
    return _result(differences, observed=a.mean() - b.mean(), smallest=smallest, exact=exact)


def permute_videos(a: np.ndarray, b: np.ndarray, videos: np.ndarray, *, seed: int) -> Permutation:
    """Test "a and b answer equally well" by exchanging the two groups' answers about whole videos.

    The statistic is the absolute mean of the queries' differences. It shows whether the difference holds for other
    videos, with these runs: queries about a video are exchanged together, since they are not independent.

    Args:
        a, b: (Q,) values of the queries, averaged over the runs of a group.
        videos: (Q,) number of each query's video.
        seed: of the drawn exchanges, if there are more than ``MOST_SPLITS``.

    >>> videos = np.arange(8)
    >>> permute_videos(np.ones(8), np.zeros(8), videos, seed=0)
    Permutation(p=0.0078125, tried=256, smallest=0.0078125, exact=True)
    """
    sums = np.bincount(videos, weights=a - b)
    exact = len(sums) < MOST_SPLITS.bit_length()
    if exact:
        exchanged = np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1
        differences = sums.sum() - 2 * exchanged @ sums
    else:
        rng = np.random.default_rng(seed)
        drawn = [sums.sum() - 2 * rng.integers(0, 2, size=len(sums)) @ sums for _ in range(MOST_SPLITS - 1)]
        differences = np.array([sums.sum(), *drawn])
    smallest = (2 if exact else 1) / len(differences)
    return _result(differences / len(a), observed=sums.sum() / len(a), smallest=smallest, exact=exact)


def _result(differences: np.ndarray, *, observed: float, smallest: float, exact: bool) -> Permutation:
    """Return the share of differences at least as large as the observed one, which is among them."""
    extreme = int((np.abs(differences) >= abs(observed) - _TIE).sum())
    return Permutation(extreme / len(differences), len(differences), smallest, exact)
