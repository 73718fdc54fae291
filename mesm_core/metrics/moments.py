"""Moment retrieval: recall of the first window, mean IoU, and mean average precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

MAP_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
MAX_WINDOWS = 10
R1_THRESHOLDS = (0.3, *MAP_THRESHOLDS)
TESTED_R1 = (0.5, 0.7)
"""Thresholds of R1 for which intervals and tests are computed."""


@dataclass(frozen=True)
class MomentScores:
    """Scores of Q queries, as fractions.

    ``best_iou`` (Q,): IoU of each query's first predicted window with the true window that it overlaps most;
    ``average_precision`` (Q, len(MAP_THRESHOLDS)).
    """

    best_iou: np.ndarray
    average_precision: np.ndarray

    def recall(self, threshold: float) -> float:
        """Return R1@threshold."""
        return float((self.best_iou >= threshold).mean())


@dataclass(frozen=True)
class Answers:
    """The inputs of a metric: predicted and true windows of Q queries.

    ``predicted``: for each query, (n, 3) float rows [start s, end s, score] in the system's order;
    ``truth``: for each query, (m, 2) float windows in seconds, m >= 1; ``thresholds``: IoU thresholds of R1.
    """

    predicted: Sequence[np.ndarray]
    truth: Sequence[np.ndarray]
    thresholds: Sequence[float] = R1_THRESHOLDS

    @cached_property
    def scores(self) -> MomentScores:
        """IoU and average precision of every query, computed once."""
        return score_moments(self.predicted, self.truth)


def recall_of_first(answers: Answers) -> Mapping[str, float]:
    """Return, by threshold, the fraction of queries whose first window reaches that IoU."""
    return {f"{t:g}": answers.scores.recall(t) for t in answers.thresholds}


def first_hits(answers: Answers) -> Mapping[str, np.ndarray]:
    """Return, by threshold, a (Q,) array: 1 where the first window reaches that IoU, else 0."""
    return {f"{t:g}": (answers.scores.best_iou >= t).astype(float) for t in TESTED_R1}


def mean_iou(answers: Answers) -> Mapping[str, float]:
    """Return the mean of ``first_iou`` over queries."""
    return {"": float(answers.scores.best_iou.mean())}


def first_iou(answers: Answers) -> Mapping[str, np.ndarray]:
    """Return the (Q,) IoU of the first predicted window with the true window that it overlaps most."""
    return {"": answers.scores.best_iou}


def mean_average_precision(answers: Answers) -> Mapping[str, float]:
    """Return the mean average precision at each IoU threshold, and their average."""
    ap = answers.scores.average_precision.mean(axis=0)
    by_threshold = {f"{t:g}": float(value) for t, value in zip(MAP_THRESHOLDS, ap, strict=True)}
    return by_threshold | {"average": float(ap.mean())}


def average_precisions(answers: Answers) -> Mapping[str, np.ndarray]:
    """Return the (Q,) average precision, averaged over the IoU thresholds."""
    return {"average": answers.scores.average_precision.mean(axis=1)}


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the IoU of two broadcastable (..., 2) arrays of windows in seconds; 0 where both are empty.

    >>> iou(np.array([0.0, 4.0]), np.array([[2.0, 6.0], [4.0, 5.0]]))
    array([0.33333333, 0.        ])
    """
    inner = np.minimum(a[..., 1], b[..., 1]) - np.maximum(a[..., 0], b[..., 0])
    inner = np.maximum(inner, 0)
    union = (a[..., 1] - a[..., 0]) + (b[..., 1] - b[..., 0]) - inner
    overlap: np.ndarray = np.divide(inner, union, out=np.zeros_like(inner), where=union > 0)
    return overlap


def score_moments(predicted: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> MomentScores:
    """Return the scores of every query.

    Args:
        predicted: for each query, (n, 3) float rows [start, end, score] in the system's order.
        truth: for each query, (m, 2) float windows, m >= 1.

    >>> scores = score_moments([np.array([[0.0, 4.0, 0.9]])], [np.array([[0.0, 5.0]])])
    >>> scores.recall(0.7), scores.average_precision.mean().round(2)
    (1.0, np.float64(0.7))
    """
    windows, valid = _pad([np.asarray(p, float).reshape(-1, 3)[:MAX_WINDOWS] for p in predicted], 3)
    targets, real = _pad([np.asarray(t, float).reshape(-1, 2) for t in truth], 2)
    overlap = iou(windows[:, :, None, :2], targets[:, None])
    overlap[~(valid[:, :, None] & real[:, None, :])] = -1
    best = np.maximum(overlap[:, 0].max(axis=1), 0)
    order = np.argsort(np.where(valid, -windows[:, :, 2], np.inf), axis=1, kind="stable")
    overlap = np.take_along_axis(overlap, order[:, :, None], axis=1)
    valid = np.take_along_axis(valid, order, axis=1)
    hits = _assign(overlap, np.array(MAP_THRESHOLDS))
    return MomentScores(best, _average_precision(hits, valid, real.sum(axis=1)))


def _assign(overlap: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Match each prediction, in turn, with the unmatched window that it overlaps most.

    Args:
        overlap: (Q, P, M) IoU of predictions by falling score and windows, -1 at padding; thresholds: (K,).

    Returns:
        (Q, P, K) bool: whether the prediction found a window at each threshold.
    """
    queries, predictions, targets = overlap.shape
    free = np.ones((queries, len(thresholds), targets), np.bool_)
    hits = np.zeros((queries, predictions, len(thresholds)), np.bool_)
    for rank in range(predictions):
        candidate = np.where(free, overlap[:, rank, None, :], -1)
        target = candidate.argmax(axis=2)[..., None]
        hit = np.take_along_axis(candidate, target, axis=2)[..., 0] >= thresholds
        hits[:, rank] = hit
        taken = np.take_along_axis(free, target, axis=2) & ~hit[..., None]
        np.put_along_axis(free, target, taken, axis=2)
    return hits


def _average_precision(hits: np.ndarray, valid: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return (Q, K) interpolated all-point average precision (VOC 2010+).

    Args:
        hits: (Q, P, K) bool by falling score; valid: (Q, P) bool, True where there is a prediction;
        targets: (Q,) numbers of true windows.
    """
    found = hits.cumsum(axis=1)
    precision = found / np.maximum(valid.cumsum(axis=1), 1)[..., None]
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    area: np.ndarray = (precision * hits).sum(axis=1) / targets[:, None]
    return area


def _pad(arrays: Sequence[np.ndarray], width: int) -> tuple[np.ndarray, np.ndarray]:
    longest = max((len(array) for array in arrays), default=0)
    out = np.zeros((len(arrays), max(longest, 1), width))
    mask = np.zeros(out.shape[:2], np.bool_)
    for row, array in enumerate(arrays):
        out[row, : len(array)] = array
        mask[row, : len(array)] = True
    return out, mask
