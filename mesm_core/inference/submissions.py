"""Scores submission files of any system against ground truth, without a model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mesm_core.confidence.report import kept_answers, reliability
from mesm_core.confidence.samples import RIGHT
from mesm_core.data.annotations import Annotations, query_id
from mesm_core.data.readers import read_split
from mesm_core.data.readers.json_lines import read_lines
from mesm_core.errors import DataError, listing
from mesm_core.inference.tables import metric_tables
from mesm_core.inputs import parse_json, shown, text_lines
from mesm_core.metrics.moments import R1_THRESHOLDS, Answers
from mesm_core.metrics.nms import temporal_nms
from mesm_core.metrics.report import LENGTH_RANGES
from mesm_core.types import CLIP_SECONDS, Query

# Features end slightly before or after the video, so saliency may have a few clips more or fewer than the truth.
FEW_CLIPS = 2
SHARE_OF_CLIPS = 0.25

Qid = int | str


@dataclass(frozen=True)
class Submission:
    """A system's answers by query id: windows (n, 3), saliency (clips,) or None, and confidence in [0, 1] or None."""

    path: Path
    windows: dict[Qid, np.ndarray]
    saliency: dict[Qid, np.ndarray | None]
    confidence: dict[Qid, float | None]


@dataclass(frozen=True)
class Scored:
    """A scored submission: its tables, the queries in order, their predicted windows after NMS, and warnings."""

    submission: Submission
    tables: dict[str, Any]
    queries: tuple[Query, ...]
    predicted: tuple[np.ndarray, ...]
    warnings: tuple[str, ...] = ()

    @cached_property
    def answers(self) -> Answers:
        """Predicted and true windows; per-query scores are computed lazily."""
        return Answers(self.predicted, [np.array(query.windows) for query in self.queries])


def read_submission(path: Path) -> Submission:
    """Return the answers of a .jsonl or .jsonl.gz file in Moment-DETR's format.

    Raises:
        DataError: the file is missing, damaged or cut short, a line is malformed, a window is inverted or not finite,
            scores are missing, a confidence is not in [0, 1], or a query id is repeated; the message names the line.
    """
    windows: dict[Qid, np.ndarray] = {}
    saliency: dict[Qid, np.ndarray | None] = {}
    confidence: dict[Qid, float | None] = {}
    for number, line in enumerate(text_lines(path, what="predictions"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        record = parse_json(line, where)
        if not isinstance(record, dict) or not {"qid", "pred_relevant_windows"} <= record.keys():
            raise DataError(f"{where}: a prediction needs 'qid' and 'pred_relevant_windows'.")
        qid, rows = query_id(record["qid"], where), record["pred_relevant_windows"]
        if qid in windows:
            raise DataError(f"{where}: query id {shown(qid)} is repeated.")
        windows[qid] = _windows(rows, where)
        saliency[qid] = _saliency(record.get("pred_saliency_scores"), where)
        confidence[qid] = _confidence(record.get("pred_confidence"), where)
    return Submission(path, windows, saliency, confidence)


def read_truth(
    path: Path | None, *, dataset: str | None = None, folder: Path | None = None, split: str = ""
) -> Annotations:
    """Return the ground truth: a Moment-DETR-style file, or a dataset's split.

    Raises:
        DataError: the ground truth is missing, malformed, or has queries without windows or ids.
    """
    truth = read_lines(path) if path is not None else read_split(dataset or "", folder or Path(), split)
    without_windows = [query.qid for query in truth.queries if not query.windows]
    if without_windows:
        raise DataError(
            f"{len(without_windows)} of {len(truth.queries)} queries of the ground truth have no windows: "
            f"{listing(without_windows)}."
        )
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
    """Return the tables of a submission: moments, highlights where truth and answers have saliency, and confidence.

    The confidence of an answer is tested as P(IoU of its first window >= 0.5): ``reliability``, and ``kept``, the R1
    and mIoU of the answers at or above each threshold.

    Args:
        nms: threshold of temporal NMS; -1 for none.
        allow_partial: score the queries that both have.

    Raises:
        DataError: query ids do not match (the message lists the differences), or an answer has far too many or too
            few saliency scores for its video.
    """
    queries = _matched(submission, truth, allow_partial=allow_partial)
    predicted = tuple(temporal_nms(submission.windows[_qid(q)], threshold=nms) for q in queries)
    answers = [submission.saliency[_qid(query)] for query in queries]
    warnings = _saliency_warnings(submission.path, queries, answers)
    tables = metric_tables(queries, predicted, answers, thresholds=thresholds, ranges=ranges)
    sure = [submission.confidence[_qid(query)] for query in queries]
    given = [chance for chance in sure if chance is not None]
    if given and len(given) < len(sure):
        missing = f"{len(sure) - len(given)} of {len(sure)} answers have no pred_confidence"
        warnings.append(f"{submission.path}: {missing}, so the confidence is not scored.")
    scored = Scored(submission, tables, queries, predicted, tuple(warnings))
    if len(given) == len(sure):
        tables["confidence"] = _confidence_table(np.array(given), scored.answers.scores.best_iou)
    return scored


def _confidence_table(chances: np.ndarray, overlaps: np.ndarray) -> dict[str, Any]:
    return {
        "reliability": reliability(chances, overlaps >= RIGHT, np.ones(len(chances))),
        "kept": kept_answers(chances, overlaps),
    }


def _saliency_warnings(path: Path, queries: Sequence[Query], answers: Sequence[np.ndarray | None]) -> list[str]:
    """Return warnings about saliency that is missing or does not have one score per clip of the truth.

    Raises:
        DataError: there are far too many or too few scores.
    """
    marked = [(query, answer) for query, answer in zip(queries, answers, strict=True) if query.highlights is not None]
    given = [(query, answer) for query, answer in marked if answer is not None]
    if not given:
        return []
    if len(given) < len(marked):
        missing = f"{len(marked) - len(given)} of {len(marked)} answers have no saliency"
        return [f"{path}: {missing}, so highlights are not scored."]
    padded = cut = 0
    for query, answer in given:
        clips, scores = int(query.duration / CLIP_SECONDS), len(answer)
        # A single score gives no ranking.
        too_few = scores < FEW_CLIPS and clips > scores + 1
        if too_few or abs(clips - scores) > max(FEW_CLIPS, SHARE_OF_CLIPS * clips):
            raise DataError(
                f"{path}: the answer to query {query.qid} has {scores} saliency scores for {clips} clips.",
                hint=f"pred_saliency_scores has one score for every {CLIP_SECONDS} seconds of the video.",
            )
        padded += scores < clips
        cut += scores > clips
    if padded or cut:
        return [
            f"{path}: saliency was padded with 0 in {padded} queries and cut in {cut}, "
            "to one score per clip, as Moment-DETR's evaluator does."
        ]
    return []


def _matched(submission: Submission, truth: Sequence[Query], *, allow_partial: bool) -> tuple[Query, ...]:
    wanted = {_qid(query) for query in truth}
    missing = [qid for qid in wanted if qid not in submission.windows]
    unknown = [qid for qid in submission.windows if qid not in wanted]
    both = tuple(query for query in truth if _qid(query) in submission.windows)
    if (missing or unknown) and not allow_partial:
        raise DataError(
            f"{submission.path} does not answer the queries of the ground truth.\n"
            f"  {len(missing)} without an answer: {listing(map(repr, sorted(missing, key=str))) or 'none'}\n"
            f"  {len(unknown)} not in the ground truth: {listing(map(repr, sorted(unknown, key=str))) or 'none'}",
            hint="Use --allow-partial to score the queries that both have.",
        )
    if not both:
        raise DataError(f"{submission.path} and the ground truth have no query in common.")
    return both


def _qid(query: Query) -> Qid:
    return -1 if query.qid is None else query.qid


def _windows(rows: Any, where: str) -> np.ndarray:
    if not isinstance(rows, list):
        raise DataError(f"{where}: windows must be rows of [start, end, score].")
    if any(isinstance(row, list) and len(row) == 2 for row in rows):
        raise DataError(f"{where}: windows must be rows of [start, end, score]; a score is missing.")
    numbers = [_numbers(row) for row in rows]
    if any(row is None or len(row) != 3 for row in numbers):
        raise DataError(f"{where}: windows must be rows of [start, end, score], three numbers each.")
    windows = np.array(numbers, float).reshape(-1, 3)
    if not np.isfinite(windows).all():
        raise DataError(f"{where}: a window or its score is not finite.")
    if (windows[:, 1] < windows[:, 0]).any():
        row = windows[windows[:, 1] < windows[:, 0]][0]
        raise DataError(f"{where}: window [{row[0]:g}, {row[1]:g}] ends before it starts.")
    return windows


def _saliency(scores: Any, where: str) -> np.ndarray | None:
    if scores is None:
        return None
    numbers = _numbers(scores)
    if numbers is None or not all(map(math.isfinite, numbers)):
        raise DataError(f"{where}: pred_saliency_scores must be a list of finite numbers.")
    return np.array(numbers)


def _confidence(value: Any, where: str) -> float | None:
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise DataError(f"{where}: pred_confidence must be a number in [0, 1], not {shown(value)}.")
    return float(value)


def _numbers(values: Any) -> list[float] | None:
    """Return the numbers of a JSON list, or None if it is not a list of numbers (true is not a number)."""
    if not isinstance(values, list) or not set(map(type, values)) <= {int, float}:
        return None
    try:
        return [float(value) for value in values]
    except OverflowError:
        return None
