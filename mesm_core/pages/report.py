"""Writes an evaluation as a page: tables, charts of recall, and the best and worst predictions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mesm_core.data.splits import split_labels
from mesm_core.errors import count
from mesm_core.files import write_atomically
from mesm_core.inference.evaluate import Evaluation
from mesm_core.metrics.moments import score_moments
from mesm_core.metrics.report import rows_by_length
from mesm_core.pages.confidence import confidence_section
from mesm_core.pages.page import axis, bars, cards, clock, lane, page, paragraph, saliency_lane, section, stats, table
from mesm_core.types import Query

if TYPE_CHECKING:  # Jinja2 is loaded when a page is written
    from markupsafe import Markup

SHOWN = 8
THRESHOLD = 0.5
PARTS = 5


def write_report(
    path: Path, evaluation: Evaluation, queries: Sequence[Query], tables: dict[str, Any], *, overwrite: bool = False
) -> None:
    """Write the report of an evaluation.

    Args:
        queries: with their windows, in the order of the predictions.
        tables: as ``write_evaluation`` returns them.

    Raises:
        OutputError: the file exists and ``overwrite`` is off.
    """
    truth = [np.array(query.windows) for query in queries]
    iou = score_moments([prediction.windows for prediction in evaluation.predictions], truth).best_iou
    order = np.argsort(iou, kind="stable")
    label = split_labels([tables["split"]])[tables["split"]]
    subtitle = f"{tables['checkpoint']}, epoch {tables['epoch']}: {count(len(queries), 'query')} of {label}"
    body = [
        section("Summary", *_summary(evaluation.brief)),
        section("By length of the moment", _lengths(tables)),
        *([confidence_section(tables["confidence"])] if "confidence" in tables else []),
        cards([_histogram(iou), _by_length(iou, queries), _by_position(iou, queries)]),
        section(f"Worst {min(SHOWN, len(queries))}", *_answers(evaluation, queries, iou, order[:SHOWN])),
        section(f"Best {min(SHOWN, len(queries))}", *_answers(evaluation, queries, iou, order[::-1][:SHOWN])),
        section("All thresholds", *_thresholds(tables)),
    ]
    content = page(f"{tables['dataset']} {label}", subtitle, body)
    write_atomically(path, content.encode(), overwrite=overwrite)


def _summary(brief: dict[str, float | None]) -> list[Markup]:
    moments = [(key.removeprefix("MR-full-"), value) for key, value in brief.items() if key.startswith("MR-full")]
    highlights = [(key, value) for key, value in brief.items() if key.startswith("HL-")]
    return [stats(moments), *([paragraph("Highlights"), stats(highlights)] if highlights else [])]


def _scores(tables: dict[str, Any]) -> dict[str, Any]:
    """Return the tables of all queries and of the length ranges that have queries."""
    return {name: value for name, value in tables.items() if isinstance(value, dict) and "queries" in value}


def _lengths(tables: dict[str, Any]) -> Markup:
    columns, rows = rows_by_length(_scores(tables))
    return table(["moments", "queries", *columns], rows)


def _thresholds(tables: dict[str, Any]) -> list[Markup]:
    """Return a table for each metric that has several figures, with a row for each length range."""
    scored = _scores(tables)
    several = [key for key, value in scored["full"].items() if isinstance(value, dict)]
    return [
        table([key.removeprefix("MR-"), *scored["full"][key]], [[name, *s[key].values()] for name, s in scored.items()])
        for key in several
    ]


def _histogram(iou: np.ndarray) -> Markup:
    counts = np.histogram(iou, bins=np.linspace(0, 1, 11))[0]
    rows = [(f".{i}" if i else "0", float(count), str(count)) for i, count in enumerate(counts)]
    return section("IoU of the first answer", bars(rows), paragraph("Queries by IoU, in steps of 0.1."), level=3)


def _recall(iou: np.ndarray, groups: Sequence[tuple[str, np.ndarray]]) -> Markup:
    rows: list[tuple[str, float | None, str]] = []
    for label, member in groups:
        share = 100 * float((iou[member] >= THRESHOLD).mean()) if member.any() else None
        rows.append((label, share, "–" if share is None else f"{share:.0f}"))
    return bars(rows, top=100)


def _by_length(iou: np.ndarray, queries: Sequence[Query]) -> Markup:
    lengths = np.array([query.windows[0][1] - query.windows[0][0] for query in queries])
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, PARTS + 1)))
    part = np.clip(np.searchsorted(edges, lengths, side="right") - 1, 0, max(len(edges) - 2, 0))
    groups = [(f"{a:.3g}–{b:.3g} s", part == n) for n, (a, b) in enumerate(pairwise(edges))]
    chart = _recall(iou, groups or [(f"{lengths[0]:.3g} s", np.ones(len(lengths), bool))])
    return section(f"R1@{THRESHOLD} by length", chart, paragraph("Equal shares of the queries."), level=3)


def _by_position(iou: np.ndarray, queries: Sequence[Query]) -> Markup:
    middles = np.array([sum(query.windows[0]) / 2 / query.duration for query in queries])
    part = np.clip((middles * PARTS).astype(int), 0, PARTS - 1)
    groups = [(f"{100 * n // PARTS}–{100 * (n + 1) // PARTS}%", part == n) for n in range(PARTS)]
    text = paragraph("Where the moment's middle lies in the video.")
    return section(f"R1@{THRESHOLD} by position", _recall(iou, groups), text, level=3)


def _answers(evaluation: Evaluation, queries: Sequence[Query], iou: np.ndarray, rows: np.ndarray) -> list[Markup]:
    parts = []
    for row in rows.tolist():
        query, prediction = queries[row], evaluation.predictions[row]
        windows = [(s, e, f"truth {clock(s)} – {clock(e)}") for s, e in query.windows]
        first = [(s, e, f"{clock(s)} – {clock(e)}, score {p:.2f}") for s, e, p in prediction.windows[:1].tolist()]
        others = [(s, e, f"{clock(s)} – {clock(e)}, score {p:.2f}") for s, e, p in prediction.windows[1:5].tolist()]
        lanes = [
            lane("truth", windows, duration=query.duration, colour=1),
            lane("first", first, duration=query.duration, colour=0),
            lane("next four", others, duration=query.duration, colour=5),
            saliency_lane(prediction.saliency),
            axis(query.duration),
        ]
        about = paragraph(f"{query.vid}, IoU {iou[row]:.2f}")
        parts.append(section(query.sentence, about, *lanes, level=3))
    return [cards(parts)]
