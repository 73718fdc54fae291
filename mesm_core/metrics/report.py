"""Metrics as the field writes them: percentages with two decimals, tables by length range, a summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mesm_core.metrics.moments import MAP_THRESHOLDS, MomentScores, score_moments

R1_THRESHOLDS = (0.3, *MAP_THRESHOLDS)
SCORE_R1_THRESHOLDS = tuple(round(0.3 + 0.05 * step, 2) for step in range(14))
LENGTH_RANGES: dict[str, tuple[float, float]] = {
    "short": (0, 10),
    "middle": (10, 30),
    "long": (30, 150),
}
SUPERLONG: dict[str, tuple[float, float]] = {"superlong": (150, 600)}

Table = dict[str, Any]


def moment_tables(
    predicted: Sequence[np.ndarray],
    truth: Sequence[np.ndarray],
    *,
    thresholds: Sequence[float] = R1_THRESHOLDS,
    ranges: Mapping[str, tuple[float, float]] = LENGTH_RANGES,
) -> Table:
    """Return ``brief`` (the summary keys of docs/evaluation.md) and a table for ``full`` and each length range.

    Args:
        predicted: (n, 3) rows [start s, end s, score] a query; truth: (m, 2) windows in seconds a query.
        thresholds: IoU thresholds of R1.
        ranges: name -> (shortest, longest] ground-truth window; a range without queries is None.
    """
    tables: Table = {"full": _table(score_moments(predicted, truth), thresholds)}
    for name, (shortest, longest) in ranges.items():
        kept = [_of_length(windows, shortest, longest) for windows in truth]
        rows = [row for row, windows in enumerate(kept) if len(windows)]
        tables[name] = None
        if rows:
            scores = score_moments([predicted[row] for row in rows], [kept[row] for row in rows])
            tables[name] = _table(scores, thresholds)
    return {"brief": _brief(tables)} | tables


def percent(fraction: float) -> float:
    """Return a fraction as a percentage with two decimals.

    >>> percent(0.61689)
    61.69
    """
    return round(100 * float(fraction), 2)


def _table(scores: MomentScores, thresholds: Sequence[float]) -> Table:
    ap = scores.average_precision.mean(axis=0)
    by_threshold = {f"{t:g}": percent(value) for t, value in zip(MAP_THRESHOLDS, ap, strict=True)}
    return {
        "MR-mIoU": percent(scores.best_iou.mean()),
        "MR-mAP": by_threshold | {"average": percent(ap.mean())},
        "MR-R1": {f"{t:g}": percent(scores.recall(t)) for t in thresholds},
        "queries": len(scores.best_iou),
    }


def _brief(tables: Mapping[str, Any]) -> dict[str, float | None]:
    full = tables["full"]
    brief: dict[str, float | None] = {
        f"MR-full-R1@{t}": full["MR-R1"][t] for t in ("0.1", "0.3", "0.5", "0.7") if t in full["MR-R1"]
    }
    brief |= {
        "MR-full-mIoU": full["MR-mIoU"],
        "MR-full-mAP": full["MR-mAP"]["average"],
        "MR-full-mAP@0.5": full["MR-mAP"]["0.5"],
        "MR-full-mAP@0.75": full["MR-mAP"]["0.75"],
    }
    for name, table in tables.items():
        if name != "full":
            brief[f"MR-{name}-mAP"] = None if table is None else table["MR-mAP"]["average"]
    return brief


def _of_length(windows: np.ndarray, shortest: float, longest: float) -> np.ndarray:
    windows = np.asarray(windows, float).reshape(-1, 2)
    length = windows[:, 1] - windows[:, 0]
    kept: np.ndarray = windows[(length > shortest) & (length <= longest)]
    return kept


def per_query_values(scores: MomentScores) -> dict[str, np.ndarray]:
    """Return the (Q,) values whose means are the main figures, by the keys of the summary."""
    return {
        "MR-full-R1@0.5": (scores.best_iou >= 0.5).astype(float),
        "MR-full-R1@0.7": (scores.best_iou >= 0.7).astype(float),
        "MR-full-mIoU": scores.best_iou,
        "MR-full-mAP": scores.average_precision.mean(axis=1),
    }
