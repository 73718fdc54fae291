"""Writes the predictions and metrics of an evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mesm_core.files import together, write_atomically
from mesm_core.inference.evaluate import Evaluation, write_predictions
from mesm_core.inference.scoring import Job
from mesm_core.places import is_stream


def write_evaluation(
    evaluation: Evaluation,
    job: Job,
    checkpoint: Path,
    path: Path,
    *,
    confidence: dict[str, Any] | None = None,
    overwrite: bool,
) -> dict[str, Any]:
    """Write predictions to ``path`` and metrics beside it; return the tables with their provenance.

    If ``path`` is a device or a pipe, the metrics are not written.

    Args:
        confidence: the report of a ``ConfidenceTest``, if it was asked for.

    Raises:
        OutputError: a file exists and ``overwrite`` is off, or writing fails; no file is written then.
    """
    tables = {
        "checkpoint": str(checkpoint),
        "epoch": job.epoch,
        "dataset": job.config.dataset.name,
        "split": job.split,
        "queries": len(job.dataset),
        "window": job.window,
        "queries_in_windows": len(job.windowed),
        "predictions": str(path),
        **(evaluation.metrics or {}),
        **({} if confidence is None else {"confidence": confidence}),
    }
    with together():
        write_predictions(path, evaluation.predictions, overwrite=overwrite)
        for metrics in evaluation_files(path)[1:]:
            write_atomically(metrics, (json.dumps(tables, indent=2) + "\n").encode(), overwrite=overwrite)
    return tables


def evaluation_files(path: Path) -> list[Path]:
    """Return the files that ``write_evaluation`` writes: ``path``, and the metrics beside it unless it is a stream."""
    return [path] if is_stream(path) else [path, path.with_suffix(".metrics.json")]
