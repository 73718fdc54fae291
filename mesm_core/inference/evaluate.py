"""Run a model over a split and score its answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mesm_core.data.dataset import MomentDataset
from mesm_core.data.files import replacing
from mesm_core.errors import DataError
from mesm_core.inference.decode import Decoding, decode
from mesm_core.metrics.report import moment_tables
from mesm_core.model.mesm import Mesm
from mesm_core.types import Prediction

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Evaluation:
    """A split's predictions, in file order, and its metric tables."""

    predictions: list[Prediction]
    metrics: dict[str, Any]

    @property
    def brief(self) -> dict[str, float | None]:
        """The summary keys of evaluation.md."""
        brief: dict[str, float | None] = self.metrics["brief"]
        return brief


def predict_split(
    model: Mesm,
    dataset: MomentDataset,
    *,
    batch_size: int,
    device: torch.device,
    decoding: Decoding,
    progress: Progress | None = None,
) -> list[Prediction]:
    """Return one prediction a query, in file order; the model is left in evaluation mode.

    Args:
        progress: called with the number of queries that each batch answered.
    """
    model.eval()
    plan = dataset.eval_plan(batch_size=batch_size)
    order = [index for batch in plan for group in batch for index in group]
    answers: list[Prediction] = []
    with torch.inference_mode():
        for batch in dataset.batches(plan):
            moved = batch.to(device)
            answers += decode(model(moved.inputs), moved, decoding)
            if progress is not None:
                progress(len(batch.queries))
    return [prediction for _, prediction in sorted(zip(order, answers, strict=True), key=lambda pair: pair[0])]


def evaluate(
    model: Mesm,
    dataset: MomentDataset,
    *,
    batch_size: int,
    device: torch.device,
    decoding: Decoding,
    thresholds: Sequence[float],
    ranges: Mapping[str, tuple[float, float]],
    progress: Progress | None = None,
) -> Evaluation:
    """Return the split's predictions and metrics; neither depends on the batch size.

    Raises:
        DataError: the split has queries without ground truth.
    """
    bare = sum(not query.windows for query in dataset.queries)
    if bare:
        raise DataError(
            f"{bare} of {len(dataset)} queries have no ground-truth windows, so the split cannot be scored."
        )
    ordered = predict_split(model, dataset, batch_size=batch_size, device=device, decoding=decoding, progress=progress)
    metrics = moment_tables(
        [prediction.windows for prediction in ordered],
        [np.array(query.windows) for query in dataset.queries],
        thresholds=thresholds,
        ranges=ranges,
    )
    return Evaluation(ordered, metrics)


def write_predictions(path: Path, lines: Iterable[Prediction], *, overwrite: bool) -> None:
    """Write one JSON object a prediction, in the field's submission format.

    Raises:
        OutputError: the file exists and ``overwrite`` is off.
    """
    with replacing(path, overwrite=overwrite) as temporary, temporary.open("w", encoding="utf-8") as file:
        for prediction in lines:
            file.write(json.dumps(prediction.as_json(), ensure_ascii=False) + "\n")
