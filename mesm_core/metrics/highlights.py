"""Highlight detection: HIT@1 and mean average precision of saliency, at three levels (docs/evaluation.md)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mesm_core.types import CLIP_SECONDS

LEVELS = {"Fair": 2, "Good": 3, "VeryGood": 4}


def clip_scores(duration: float, clips: Sequence[int], scores: Sequence[Sequence[float]]) -> np.ndarray:
    """Return (⌊duration / 2⌋, annotators) scores, 0 outside the relevant clips.

    >>> clip_scores(6.0, [1], [(4, 2, 0)]).tolist()
    [[0.0, 0.0, 0.0], [4.0, 2.0, 0.0], [0.0, 0.0, 0.0]]
    """
    full = np.zeros((int(duration / CLIP_SECONDS), len(scores[0]) if scores else 0))
    inside = [row for row, clip in enumerate(clips) if clip < len(full)]
    full[[clips[row] for row in inside]] = [scores[row] for row in inside]
    return full


@dataclass(frozen=True)
class Clips:
    """The inputs of a highlight metric.

    ``predicted`` (Q, T): scores of a system, cut or padded with 0 to the number of annotated clips; ``labels``
    (Q, T, A): scores of the annotators; ``valid`` (Q, T) bool; ``top`` (Q, A): the annotators' scores of the clip that
    the system scores highest.
    """

    predicted: np.ndarray
    labels: np.ndarray
    valid: np.ndarray
    top: np.ndarray


def mean_average_precision(clips: Clips, level: int) -> float:
    """Return the mean AP of retrieving the clips scored ``level`` or higher, over queries and annotators."""
    return float(average_precision(clips.predicted, clips.labels >= level, clips.valid).mean())


def hit_at_1(clips: Clips, level: int) -> float:
    """Return the fraction of queries whose top clip at least one annotator scores ``level`` or higher."""
    return float((clips.top >= level).any(axis=1).mean())


HIGHLIGHT_METRICS: dict[str, Callable[[Clips, int], float]] = {"mAP": mean_average_precision, "Hit1": hit_at_1}
"""Name -> function that returns a fraction; one line adds a metric."""


def score_highlights(predicted: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> dict[str, dict[str, float]]:
    """Return ``{"Fair": {"mAP": …, "Hit1": …}, …}`` as fractions.

    Args:
        predicted: for each query, (clips,) scores; truth: for each query, (clips, annotators) scores from 0 to 4.

    >>> score_highlights([np.array([0.1, 0.9])], [np.array([[0, 0, 0], [4, 1, 2]])])["VeryGood"]
    {'mAP': 0.3333333333333333, 'Hit1': 1.0}
    """
    clips = _padded(predicted, truth)
    return {
        level: {name: metric(clips, least) for name, metric in HIGHLIGHT_METRICS.items()}
        for level, least in LEVELS.items()
    }


def _padded(predicted: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> Clips:
    annotators = max((t.shape[1] for t in truth), default=0)
    longest = max((len(t) for t in truth), default=0)
    scored = np.full((len(truth), longest), -np.inf)
    labels = np.zeros((len(truth), longest, annotators))
    valid = np.zeros((len(truth), longest), np.bool_)
    top = np.zeros((len(truth), annotators))
    for row, (scores, clips) in enumerate(zip(predicted, truth, strict=True)):
        # Longer predictions are cut, shorter ones padded with 0.
        scored[row, : len(clips)] = 0
        scored[row, : min(len(scores), len(clips))] = scores[: len(clips)]
        labels[row, : len(clips)] = clips
        valid[row, : len(clips)] = True
        first = int(np.argmax(scores)) if len(scores) else len(clips)
        if first < len(clips):
            top[row] = clips[first]
    return Clips(scored, labels, valid, top)


def average_precision(scores: np.ndarray, positive: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Return the (Q, A) AP: interpolated precision, averaged over the distinct recall points.

    Clips with equal scores share a threshold. The AP is 0 without positive clips, and 1 if all clips are positive.

    Args:
        scores: (Q, T); positive: (Q, T, A) bool; valid: (Q, T) bool, valid clips before padding.
    """
    order = np.argsort(np.where(valid, -scores, np.inf), axis=1, kind="stable")
    scores = np.take_along_axis(scores, order, axis=1)
    valid = np.take_along_axis(valid, order, axis=1)
    hits = np.take_along_axis(positive, order[..., None], axis=1) & valid[..., None]
    # A threshold ends at the last of its equal scores.
    ends = valid.copy()
    ends[:, :-1] &= (scores[:, :-1] != scores[:, 1:]) | ~valid[:, 1:]
    found = hits.cumsum(axis=1)
    precision = np.where(ends[..., None], found / np.arange(1, scores.shape[1] + 1)[None, :, None], 0)
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    reached = np.maximum.accumulate(np.where(ends[..., None], found, 0), axis=1)
    before = np.concatenate([np.zeros_like(reached[:, :1]), reached[:, :-1]], axis=1)
    points = ends[..., None] & (reached > before)
    area = (precision * points).sum(axis=1) / np.maximum(points.sum(axis=1), 1)
    everything = hits.sum(axis=1) == valid.sum(axis=1)[:, None]
    result: np.ndarray = np.where(everything, 1.0, area)
    return result
