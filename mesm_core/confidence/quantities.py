"""Quantities of an answer from which its confidence is computed. All are larger where an answer is more certain."""

from __future__ import annotations

import numpy as np

from mesm_core.metrics.moments import iou

NAMES = ("score", "margin", "agreement", "contrast", "saliency", "known")
"""The columns of ``answer_quantities``, in order."""
LEAST_SCORE = 1e-4
"""Scores have four decimals; their log-odds are computed from values between this and 1 minus this."""
LEAST_SALIENCY = -30.0


def answer_quantities(
    windows: np.ndarray, saliency: np.ndarray, *, start: float, seconds: float, known: float = 1.0
) -> np.ndarray:
    """Return the quantities (N, 6) float64 of the moments of an answer; row 0 is also that of the whole answer.

    For each moment: ``score``, the log-odds of its score; ``margin``, by how much these exceed those of the best other
    moment; ``agreement``, the mean IoU of all moments with it, weighted by their scores; ``contrast``, its mean
    saliency minus that of the other frames. For the whole answer, repeated in each row: ``saliency``, the logarithm of
    the sigmoid of the highest saliency, which training makes low for queries of other videos; ``known``.

    Args:
        windows: (N, 3) rows [start, end, score], the moments of all slots by falling score; N may be 0.
        saliency: (T,) one score per frame; T may be 1.
        start, seconds: the part of the video that the frames cover, in seconds of the video.
        known: share of the query's words that the text encoder has a vector for.

    >>> moments = np.array([[0.0, 4.0, 0.9], [2.0, 4.0, 0.5]])
    >>> answer_quantities(moments, np.array([1.0, 1.0, -1.0]), start=0, seconds=6).round(2).tolist()
    [[2.2, 2.2, 0.82, 2.0, -0.31, 1.0], [0.0, -2.2, 0.68, 1.0, -0.31, 1.0]]
    """
    windows = np.asarray(windows, np.float64).reshape(-1, 3)
    saliency = np.clip(np.nan_to_num(np.asarray(saliency, np.float64), nan=LEAST_SALIENCY), LEAST_SALIENCY, None)
    scores = np.clip(windows[:, 2], LEAST_SCORE, 1 - LEAST_SCORE)
    odds = np.log(scores) - np.log1p(-scores)
    overlap = iou(windows[:, None, :2], windows[None, :, :2])  # (N, N)
    np.fill_diagonal(overlap, 1)  # also for moments of zero length
    peak = -np.logaddexp(0, -saliency.max()) if len(saliency) else LEAST_SALIENCY
    columns = (
        odds,
        odds - _best_other(odds),
        overlap @ scores / scores.sum() if len(scores) else odds,
        _contrast(windows, saliency, start=start, seconds=seconds),
        np.full(len(windows), peak),
        np.full(len(windows), known),
    )
    return np.stack(columns, axis=1)


def _best_other(odds: np.ndarray) -> np.ndarray:
    """Return (N,) the highest log-odds of the other moments; with a single moment, those of the least score."""
    least = np.log(LEAST_SCORE) - np.log1p(-LEAST_SCORE)
    others = np.where(np.eye(len(odds), dtype=np.bool_), least, odds[None])
    best: np.ndarray = others.max(axis=1, initial=least)
    return best


def _contrast(windows: np.ndarray, saliency: np.ndarray, *, start: float, seconds: float) -> np.ndarray:
    """Return (N,) the mean saliency inside each moment minus that outside, 0 where no frame is outside.

    A moment between two frames is compared by the frame nearest to its middle.
    """
    if not len(windows) or not len(saliency):
        return np.zeros(len(windows))
    middles = start + (np.arange(len(saliency)) + 0.5) * seconds / len(saliency)  # (T,)
    inside = (middles >= windows[:, :1]) & (middles <= windows[:, 1:2])  # (N, T)
    nearest = np.abs(middles - windows[:, :2].mean(axis=1, keepdims=True)).argmin(axis=1)
    inside[np.arange(len(windows)), nearest] |= ~inside.any(axis=1)
    frames = inside.sum(axis=1)
    within = inside @ saliency / frames
    outside = ~inside @ saliency / np.maximum(len(saliency) - frames, 1)
    difference: np.ndarray = np.where(frames < len(saliency), within - outside, 0)
    return difference
