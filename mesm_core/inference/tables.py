"""Metric tables of predictions against ground truth: moments, and highlights if both have saliency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mesm_core.metrics.highlights import clip_scores, score_highlights
from mesm_core.metrics.report import moment_tables, percent
from mesm_core.types import Query


def metric_tables(
    queries: Sequence[Query],
    windows: Sequence[np.ndarray],
    saliency: Sequence[np.ndarray | None],
    *,
    thresholds: Sequence[float],
    ranges: Mapping[str, tuple[float, float]],
) -> dict[str, Any]:
    """Return the tables of docs/evaluation.md.

    Args:
        queries: with ground-truth windows, and highlights if they are known.
        windows: (n, 3) rows [start, end, score] per query; saliency: one score per clip of two seconds, or None.
        thresholds, ranges: as for ``moment_tables``.
    """
    truth = [np.array(query.windows) for query in queries]
    tables = moment_tables(windows, truth, thresholds=thresholds, ranges=ranges)
    marked = [
        (answer, query.duration, query.highlights)
        for query, answer in zip(queries, saliency, strict=True)
        if query.highlights is not None
    ]
    scores = [answer for answer, _, _ in marked if answer is not None]
    if not marked or len(scores) < len(marked):
        return tables
    clips = [clip_scores(duration, marks.clips, marks.scores) for _, duration, marks in marked]
    for level, found in score_highlights(scores, clips).items():
        table = {f"HL-{name}": percent(value) for name, value in found.items()}
        tables[f"HL-min-{level}"] = table
        tables["brief"] |= {f"HL-min-{level}-{key.removeprefix('HL-')}": value for key, value in table.items()}
    return tables
