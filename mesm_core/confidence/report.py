"""Measures of confidence: separation from negatives, reliability, and what is kept above a threshold. Fractions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mesm_core.confidence.samples import IN_DOMAIN, OUT_OF_DOMAIN, REAL, RIGHT, Samples

BINS = 10
KEPT = 0.95
"""Share of the real queries that are kept where the rejection of negatives is measured."""
THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(20))


def confidence_report(samples: Samples, answers: np.ndarray, moments: Sequence[np.ndarray]) -> dict[str, Any]:
    """Return the report of a half as JSON-able values.

    Args:
        answers: (Q,) P(there is an answer); moments: for each answer, (N,) P(IoU >= 0.5) of its moments.

    Returns:
        ``questions``: their number by kind; for each kind of negative ``auroc`` and ``rejected_at_95``, by the
        confidence that there is an answer; the ``reliability`` of ``answers``, of ``moments`` (all of them, with the
        weight of an answer divided among its moments) and of the ``first`` moments; ``kept``: as ``kept_answers``.
    """
    real = samples.are(REAL)
    separation = {
        kind: {
            "auroc": auroc(answers[real], answers[samples.are(kind)]),
            "rejected_at_95": rejected(answers[real], answers[samples.are(kind)]),
        }
        for kind in (IN_DOMAIN, OUT_OF_DOMAIN)
    }
    right = np.concatenate([sample.overlaps >= RIGHT for sample in samples.samples])
    shares = np.concatenate([np.full(len(m), w / len(m)) for m, w in zip(moments, samples.weights, strict=True)])
    first = np.array([chances[0] for chances in moments])
    return {
        "questions": samples.counts,
        **separation,
        "answers": reliability(answers, real, samples.weights),
        "moments": reliability(np.concatenate(moments), right, shares),
        "first": reliability(first, samples.best_overlaps >= RIGHT, samples.weights),
        "kept": kept_answers(first[real], samples.best_overlaps[real]),
    }


def auroc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Return the probability that a positive has a higher value than a negative; ties count one half.

    >>> auroc(np.array([0.9, 0.5]), np.array([0.5, 0.1]))
    0.875
    """
    from scipy.stats import rankdata  # takes long to import

    ranks = rankdata(np.concatenate([positive, negative]))[: len(positive)]
    return float((ranks.sum() - len(positive) * (len(positive) + 1) / 2) / (len(positive) * len(negative)))


def rejected(positive: np.ndarray, negative: np.ndarray, *, kept: float = KEPT) -> float:
    """Return the share of negatives below the highest threshold that keeps at least ``kept`` of the positives.

    >>> rejected(np.array([0.9, 0.8, 0.7, 0.6]), np.array([0.65, 0.1]), kept=0.75)
    1.0
    """
    threshold = np.sort(positive)[int((1 - kept) * len(positive) + 1e-9)]
    return float((negative < threshold).mean())


def reliability(chances: np.ndarray, hits: np.ndarray, weights: np.ndarray, *, bins: int = BINS) -> dict[str, Any]:
    """Return the expected calibration error, and a table of bins of equal width.

    Args:
        chances: (n,) probabilities; hits: (n,) bool, what came true; weights: (n,), above 0.

    Returns:
        ``ece``; ``bins``: rows [lowest, highest, mean probability, share of hits, share of the weight, count]. Empty
        bins are left out.
    """
    share = weights / weights.sum()
    place = np.minimum((chances * bins).astype(int), bins - 1)
    rows, error = [], 0.0
    for number in range(bins):
        inside = place == number
        if inside.any():
            part = share[inside].sum()
            mean, came_true = (share[inside] @ values[inside] / part for values in (chances, hits))
            rows.append([number / bins, (number + 1) / bins, mean, came_true, part, int(inside.sum())])
            error += part * abs(mean - came_true)
    return {"ece": float(error), "bins": [[float(value) for value in row[:-1]] + [row[-1]] for row in rows]}


def kept_answers(chances: np.ndarray, overlaps: np.ndarray) -> list[dict[str, float]]:
    """Return the share of answers at or above each threshold, and their R1@0.5 and mIoU; without those that keep none.

    Args:
        chances: (n,) confidence of the first moments of real queries; overlaps: (n,) their IoU.

    >>> kept_answers(np.array([0.2, 0.8]), np.array([0.0, 0.7]))[-1]
    {'threshold': 0.8, 'kept': 0.5, 'R1': 1.0, 'mIoU': 0.7}
    """
    rows = []
    for threshold in THRESHOLDS:
        kept = overlaps[chances >= threshold]
        if len(kept):
            shares = {"kept": len(kept) / len(overlaps), "R1": (kept >= RIGHT).mean(), "mIoU": kept.mean()}
            rows.append({"threshold": threshold} | {name: round(float(value), 6) for name, value in shares.items()})
    return rows
