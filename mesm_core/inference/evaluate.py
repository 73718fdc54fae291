"""Runs a model over a split and scores its predictions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mesm_core.data.dataset import MomentDataset
from mesm_core.data.shortening import Shortening
from mesm_core.decode import Decoded, Decoding
from mesm_core.devices import pinned
from mesm_core.files import text_output
from mesm_core.inference.tables import metric_tables
from mesm_core.metrics.nms import temporal_nms
from mesm_core.model.mesm import Mesm
from mesm_core.processes import ALONE, Team
from mesm_core.types import CLIP_SECONDS, Batch, Prediction, Query

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Evaluation:
    """A split's predictions, in file order, and its metric tables, or None if its ground truth is unknown."""

    predictions: list[Prediction]
    metrics: dict[str, Any] | None

    @property
    def brief(self) -> dict[str, float | None]:
        """The summary keys of docs/evaluation.md."""
        brief: dict[str, float | None] = {} if self.metrics is None else self.metrics["brief"]
        return brief


def predict_split(
    model: Mesm,
    dataset: MomentDataset,
    *,
    batch_size: int,
    device: torch.device,
    decoding: Decoding,
    shortening: Shortening | None = None,
    known: Mapping[int, Prediction] | None = None,
    progress: Progress | None = None,
    team: Team = ALONE,
) -> list[Prediction]:
    """Return one prediction per query, in file order; the model is left in evaluation mode.

    Args:
        shortening: how the features of long videos were shortened; default: no video was cut.
        known: existing predictions by query index; the model does not predict these queries.
        progress: called with the number of queries of each batch.
        team: processes that share the work; each process gets all predictions.
    """
    model.eval()
    known = known or {}
    unknown = [
        [kept for group in batch if (kept := tuple(index for index in group if index not in known))]
        for batch in dataset.eval_plan(batch_size=batch_size)
    ]
    plan = team.share([batch for batch in unknown if batch])
    order = [index for batch in plan for group in batch for index in group]
    answers: list[Prediction] = []

    def answer(batch: Batch, decoded: Decoded) -> None:
        answers.extend(decoded.predictions(batch, seen=seen_seconds(dataset, batch.queries, shortening)))
        if progress is not None:
            progress(len(batch.queries))

    with torch.inference_mode():
        before: tuple[Batch, Decoded] | None = None
        for batch in dataset.batches(plan, pack=pinned if device.type == "cuda" else None):
            decoded = Decoded(model(batch.to(device).inputs), decoding)
            # On CUDA the device computes this batch while the host decodes the one before.
            if before is not None:
                answer(*before)
            before = batch, decoded
        if before is not None:
            answer(*before)
    gathered = [pair for pairs in team.gather(list(zip(order, answers, strict=True))) for pair in pairs]
    return [prediction for _, prediction in sorted([*gathered, *known.items()], key=lambda pair: pair[0])]


def evaluate(
    model: Mesm,
    dataset: MomentDataset,
    *,
    batch_size: int,
    device: torch.device,
    decoding: Decoding,
    thresholds: Sequence[float],
    ranges: Mapping[str, tuple[float, float]],
    shortening: Shortening | None = None,
    nms: float = -1,
    truth: Sequence[Query] | None = None,
    known: Mapping[int, Prediction] | None = None,
    progress: Progress | None = None,
    team: Team = ALONE,
) -> Evaluation:
    """Return the split's predictions and metrics; neither depends on the batch size.

    Args:
        shortening: how the features of long videos were shortened; default: no video was cut.
        nms: IoU threshold of temporal NMS; -1 for none.
        truth: the split's queries with ground-truth windows, in the same order; default: those of the dataset. There
            are no metrics if a query has no windows.
        known: existing predictions, as for ``predict_split``.
    """
    ordered = predict_split(
        model,
        dataset,
        batch_size=batch_size,
        device=device,
        decoding=decoding,
        shortening=shortening,
        known=known,
        progress=progress,
        team=team,
    )
    return score_predictions(
        ordered,
        dataset.queries if truth is None else truth,
        clip_len=decoding.clip_len,
        thresholds=thresholds,
        ranges=ranges,
        nms=nms,
    )


def score_predictions(
    predictions: Sequence[Prediction],
    truth: Sequence[Query],
    *,
    clip_len: float,
    thresholds: Sequence[float],
    ranges: Mapping[str, tuple[float, float]],
    nms: float = -1,
) -> Evaluation:
    """Return the predictions of any retriever with their metrics.

    Args:
        predictions: one per query, in the order of ``truth``; there are no metrics if a query has no windows.
        clip_len: seconds per saliency score, or -1; highlights are scored only for clips of two seconds.
        thresholds, ranges: as for ``metric_tables``; nms: threshold of temporal NMS; -1 for none.
    """
    kept = [replace(p, windows=temporal_nms(p.windows, threshold=nms)) for p in predictions]
    if not all(query.windows for query in truth):
        return Evaluation(kept, None)
    metrics = metric_tables(
        truth,
        [prediction.windows for prediction in kept],
        [prediction.saliency if clip_len == CLIP_SECONDS else None for prediction in kept],
        thresholds=thresholds,
        ranges=ranges,
    )
    return Evaluation(kept, metrics)


def seen_seconds(dataset: MomentDataset, queries: Sequence[Query], shortening: Shortening | None) -> list[float]:
    """Return the seconds, from the start of its video, that the frames of each query cover."""
    if shortening is None or shortening.shorten != "first":
        return [query.duration for query in queries]
    return [shortening.seen(dataset.features.stored_length(query.vid), query.duration) for query in queries]


def predictions_name(split: str) -> str:
    """Return the file name of a split's predictions; the split may be the path of a JSON-lines file.

    >>> predictions_name("val"), predictions_name("/data/val.jsonl")
    ('val.jsonl', 'val.jsonl')
    """
    return Path(split).name.removesuffix(".jsonl") + ".jsonl"


def write_predictions(path: Path, lines: Iterable[Prediction], *, overwrite: bool) -> None:
    """Write one JSON object per prediction, in Moment-DETR's submission format.

    Raises:
        OutputError: the file exists and ``overwrite`` is off.
    """
    with text_output(path, overwrite=overwrite) as file:
        for prediction in lines:
            file.write(json.dumps(prediction.as_json(), ensure_ascii=False) + "\n")
