"""Score submission files of any system against ground truth, without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mesm_core.data.annotations import Annotations, is_number, query_id, read_split
from mesm_core.data.moment_lines import read_lines
from mesm_core.errors import DataError, listing
from mesm_core.inference.tables import metric_tables
from mesm_core.inputs import parse_json, shown, text_lines
from mesm_core.metrics.moments import MomentScores, score_moments
from mesm_core.metrics.nms import temporal_nms
from mesm_core.metrics.report import LENGTH_RANGES, R1_THRESHOLDS
from mesm_core.types import Query

Qid = int | str


@dataclass(frozen=True)
class Submission:
    """A system's answers by query id: windows (n, 3), and saliency (clips,) or None."""

    path: Path
    windows: dict[Qid, np.ndarray]
    saliency: dict[Qid, np.ndarray | None]


@dataclass(frozen=True)
class Scored:
    """A submission's tables, the queries in their order, and the windows that were scored."""

    submission: Submission
    tables: dict[str, Any]
    queries: tuple[Query, ...]
    predicted: tuple[np.ndarray, ...]

    @cached_property
    def moments(self) -> MomentScores:
        """Per-query scores, computed when they are asked for."""
        return score_moments(self.predicted, [np.array(query.windows) for query in self.queries])


def read_submission(path: Path) -> Submission:
    """Return the answers of a .jsonl or .jsonl.gz file in Moment-DETR's format.

    Raises:
        DataError: the file is missing, damaged or cut short, a line is malformed, a window is inverted or not finite,
            scores are missing, or a query id comes twice; the message names the line.
    """
    windows: dict[Qid, np.ndarray] = {}
    saliency: dict[Qid, np.ndarray | None] = {}
    for number, line in enumerate(text_lines(path, what="predictions"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        record = parse_json(line, where)
        if not isinstance(record, dict) or not {"qid", "pred_relevant_windows"} <= record.keys():
            raise DataError(f"{where}: a prediction has 'qid' and 'pred_relevant_windows'.")
        qid, rows = query_id(record["qid"], where), record["pred_relevant_windows"]
        if qid in windows:
            raise DataError(f"{where}: query id {shown(qid)} comes twice.")
        windows[qid] = _windows(rows, where)
        saliency[qid] = _saliency(record.get("pred_saliency_scores"), where)
    return Submission(path, windows, saliency)


def read_truth(
    path: Path | None, *, dataset: str | None = None, folder: Path | None = None, split: str = ""
) -> Annotations:
    """Return the ground truth: a Moment-DETR-style file, or a dataset's split.

    Raises:
        DataError: it is missing, malformed, or has queries without windows.
    """
    truth = read_lines(path) if path is not None else read_split(dataset or "", folder or Path(), split)
    bare = [query.qid for query in truth.queries if not query.windows]
    if bare:
        raise DataError(f"{len(bare)} of {len(truth.queries)} queries of the truth have no windows: {listing(bare)}.")
    if any(query.qid is None for query in truth.queries):
        raise DataError("Queries of a training split have no ids, so predictions cannot be matched with them.")
    return truth


def score_submission(
    submission: Submission,
    truth: Sequence[Query],
    *,
    thresholds: Sequence[float] = R1_THRESHOLDS,
    ranges: Mapping[str, tuple[float, float]] = LENGTH_RANGES,
    nms: float = -1,
    allow_partial: bool = False,
) -> Scored:
    """Return the tables of a submission: moments, and highlights where truth and answers have saliency.

    Args:
        nms: threshold of temporal NMS; -1 for none.
        allow_partial: score the queries that both sides have.

    Raises:
        DataError: query ids do not match; the message lists both sides.
    """
    queries = _matched(submission, truth, allow_partial=allow_partial)
    predicted = tuple(temporal_nms(submission.windows[_qid(q)], threshold=nms) for q in queries)
    answers = [submission.saliency[_qid(query)] for query in queries]
    tables = metric_tables(queries, predicted, answers, thresholds=thresholds, ranges=ranges)
    return Scored(submission, tables, queries, predicted)


def _matched(submission: Submission, truth: Sequence[Query], *, allow_partial: bool) -> tuple[Query, ...]:
    wanted = {_qid(query) for query in truth}
    missing = [qid for qid in wanted if qid not in submission.windows]
    unknown = [qid for qid in submission.windows if qid not in wanted]
    both = tuple(query for query in truth if _qid(query) in submission.windows)
    if (missing or unknown) and not allow_partial:
        raise DataError(
            f"{submission.path} does not answer the truth's queries.\n"
            f"  {len(missing)} without an answer: {listing(sorted(missing, key=str)) or 'none'}\n"
            f"  {len(unknown)} that the truth does not have: {listing(sorted(unknown, key=str)) or 'none'}",
            hint="--allow-partial scores the queries that both have.",
        )
    if not both:
        raise DataError(f"{submission.path} and the truth have no query in common.")
    return both


def _qid(query: Query) -> Qid:
    return -1 if query.qid is None else query.qid


def _windows(rows: Any, where: str) -> np.ndarray:
    try:
        if any(len(row) != 3 for row in rows):
            raise DataError(f"{where}: windows are rows of [start, end, score]; a score is missing.")
        windows = np.array(rows, float).reshape(-1, 3)
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{where}: windows are rows of [start, end, score].") from None
    if not np.isfinite(windows).all():
        raise DataError(f"{where}: a window or its score is not finite.")
    if (windows[:, 1] < windows[:, 0]).any():
        row = windows[windows[:, 1] < windows[:, 0]][0]
        raise DataError(f"{where}: window [{row[0]:g}, {row[1]:g}] ends before it starts.")
    return windows


def _saliency(scores: Any, where: str) -> np.ndarray | None:
    if scores is None:
        return None
    if not isinstance(scores, list) or not all(map(is_number, scores)):
        raise DataError(f"{where}: pred_saliency_scores must be a list of finite numbers.")
    return np.array(scores, float)
