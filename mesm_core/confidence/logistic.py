"""Logistic regression with slopes that are never negative, so that its probability rises with every quantity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SHRINKAGE = 1e-3
"""Weight of the squared slopes, of quantities scaled to unit variance, beside the mean loss."""


@dataclass(frozen=True, slots=True)
class Logistic:
    """P = sigmoid(``intercept`` + ``slopes`` · quantities); each slope is at least 0."""

    intercept: float
    slopes: tuple[float, ...]

    def probabilities(self, quantities: np.ndarray) -> np.ndarray:
        """Return (n,) float64 probabilities of (n, K) quantities; each row's depends on that row only."""
        logits = self.intercept + (quantities * np.array(self.slopes)).sum(axis=1)
        chances: np.ndarray = np.exp(-np.logaddexp(0, -logits))
        return chances


def fit_logistic(quantities: np.ndarray, hits: np.ndarray, weights: np.ndarray) -> Logistic:
    """Return the regression of least weighted cross-entropy.

    Args:
        quantities: (n, K); hits: (n,) bool, what P is the probability of; weights: (n,) of the rows, above 0.
            A quantity that is the same in all rows gets the slope 0.
    """
    from scipy.optimize import minimize  # only fitting needs it, and it takes long to import

    share = weights / weights.sum()
    mean = share @ quantities
    spread = np.sqrt(share @ (quantities - mean) ** 2)
    varies = spread > 1e-9 * np.maximum(np.abs(mean), 1)
    scale = np.where(varies, spread, 1)
    scaled = np.where(varies, (quantities - mean) / scale, 0)
    sign = np.where(hits, 1.0, -1.0)

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        logits = values[0] + scaled @ values[1:]
        error = -sign * np.exp(-np.logaddexp(0, sign * logits)) * share
        total = share @ np.logaddexp(0, -sign * logits) + SHRINKAGE * values[1:] @ values[1:]
        return total, np.concatenate([[error.sum()], error @ scaled + 2 * SHRINKAGE * values[1:]])

    count = quantities.shape[1]
    found = minimize(
        loss, np.zeros(count + 1), jac=True, method="L-BFGS-B", bounds=[(None, None), *[(0, None)] * count]
    )
    slopes = np.where(varies, np.maximum(found.x[1:], 0) / scale, 0)
    return Logistic(float(found.x[0] - slopes @ mean), tuple(map(float, slopes)))
