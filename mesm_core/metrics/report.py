"""Metric tables in the usual format: percentages with two decimals, by range of moment length, with a summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mesm_core.metrics.moments import R1_THRESHOLDS, Answers
from mesm_core.metrics.table import METRICS, labelled

SCORE_R1_THRESHOLDS = tuple(round(0.3 + 0.05 * step, 2) for step in range(14))
LENGTH_RANGES: dict[str, tuple[float, float]] = {
    "short": (0, 10),
    "middle": (10, 30),
    "long": (30, 150),
}
SUPERLONG: dict[str, tuple[float, float]] = {"superlong": (150, 600)}
FULL = "full"

Table = dict[str, Any]


def moment_tables(
    predicted: Sequence[np.ndarray],
    truth: Sequence[np.ndarray],
    *,
    thresholds: Sequence[float] = R1_THRESHOLDS,
    ranges: Mapping[str, tuple[float, float]] = LENGTH_RANGES,
) -> Table:
    """Return ``brief`` (the summary of docs/evaluation.md), and a table for ``full`` and for each length range.

    Args:
        predicted: for each query, (n, 3) rows [start s, end s, score].
        truth: for each query, (m, 2) windows in seconds.
        thresholds: IoU thresholds of R1.
        ranges: name -> lengths (shortest, longest] of true windows; the table of a range without queries is None.
    """
    tables: Table = {FULL: _table(Answers(predicted, truth, thresholds))}
    for name, (shortest, longest) in ranges.items():
        kept = [_of_length(windows, shortest, longest) for windows in truth]
        rows = [row for row, windows in enumerate(kept) if len(windows)]
        tables[name] = None
        if rows:
            tables[name] = _table(Answers([predicted[row] for row in rows], [kept[row] for row in rows], thresholds))
    return {"brief": _brief(tables)} | tables


def rows_by_length(tables: Mapping[str, Table | None]) -> tuple[list[str], list[list[Any]]]:
    """Return a table with one row for each part of the queries: all of them (``full``), and each length range.

    Args:
        tables: as ``moment_tables`` returns them; ``brief`` is left out.

    Returns:
        The names of the figures, and rows (part, number of queries, figures in %). Figures are None in a range
        without queries.
    """
    full = tables[FULL]
    assert full is not None  # of all queries
    columns = [
        (name, label)
        for name, metric in METRICS.items()
        for label in metric.rows
        if label in _labelled_figures(full, name)
    ]
    rows: list[list[Any]] = []
    for part, table in tables.items():
        if part == "brief":
            continue
        figures = [None if table is None else _labelled_figures(table, name)[label] for name, label in columns]
        rows.append([part, 0 if table is None else table["queries"], *figures])
    return [labelled(name, label) for name, label in columns], rows


def percent(fraction: float) -> float:
    """Return a fraction as a percentage with two decimals.

    >>> percent(0.61689)
    61.69
    """
    return round(100 * float(fraction), 2)


def _table(answers: Answers) -> Table:
    table: Table = {}
    for name, metric in METRICS.items():
        figures = {label: percent(value) for label, value in metric.function(answers).items()}
        table[f"MR-{name}"] = figures.get("", figures)
    return table | {"queries": len(answers.predicted)}


def _brief(tables: Mapping[str, Any]) -> dict[str, float | None]:
    brief: dict[str, float | None] = {}
    for name, metric in METRICS.items():
        brief |= _figures(tables[FULL], FULL, name, metric.summary)
    for part, table in tables.items():
        if part != FULL:
            for name, metric in METRICS.items():
                brief |= _figures(table, part, name, metric.by_length)
    return brief


def _figures(table: Table | None, part: str, name: str, labels: Sequence[str]) -> dict[str, float | None]:
    """Return a metric's values for a part of the queries, by summary key; None if that part has no queries."""
    keys = {label: f"MR-{part}-{labelled(name, label)}" for label in labels}
    if table is None:
        return dict.fromkeys(keys.values())
    figures = _labelled_figures(table, name)
    return {key: figures[label] for label, key in keys.items() if label in figures}


def _labelled_figures(table: Table, name: str) -> dict[str, float]:
    """Return a metric's figures by label."""
    given = table[f"MR-{name}"]
    return given if isinstance(given, dict) else {"": given}


def _of_length(windows: np.ndarray, shortest: float, longest: float) -> np.ndarray:
    windows = np.asarray(windows, float).reshape(-1, 2)
    length = windows[:, 1] - windows[:, 0]
    kept: np.ndarray = windows[(length > shortest) & (length <= longest)]
    return kept
