"""Uncertainty of metrics: bootstrap intervals over queries, and a paired test between two systems."""

from __future__ import annotations

import numpy as np

DRAWS = 2000


def interval(values: np.ndarray, *, seed: int, draws: int = DRAWS) -> tuple[float, float]:
    """Return the 95% percentile-bootstrap interval of the mean of (Q,) per-query values.

    >>> interval(np.ones(5), seed=0)
    (1.0, 1.0)
    """
    means = _means(values, seed=seed, draws=draws)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def paired_p_value(a: np.ndarray, b: np.ndarray, *, seed: int, draws: int = DRAWS) -> float:
    """Return the two-sided paired-bootstrap p-value of "the means of a and b are the same".

    The differences are shifted to a mean of zero and resampled. The p-value is the fraction of resampled means that are
    at least as far from zero as the observed one (Efron and Tibshirani 1993, algorithm 16.2).

    Args:
        a, b: (Q,) values of the same queries under two systems.
    """
    difference = a - b
    observed = abs(difference.mean())
    means = _means(difference - difference.mean(), seed=seed, draws=draws)
    return float((1 + (np.abs(means) >= observed - 1e-12).sum()) / (draws + 1))


def _means(values: np.ndarray, *, seed: int, draws: int) -> np.ndarray:
    # With the number of times that each query is drawn, all means are one matrix product.
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), size=draws)
    means: np.ndarray = counts @ values / len(values)
    return means
