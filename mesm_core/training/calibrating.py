"""The last step of a run: the calibration of the best checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from mesm_core.build import build_trained
from mesm_core.build.training import TrainingParts
from mesm_core.checkpoint import load_checkpoint, save_checkpoint, weights_hash
from mesm_core.errors import CheckpointError, DataError
from mesm_core.inference.calibrating import Examinee, calibrate, halves_to_ask, question_count
from mesm_core.inference.calibration_job import data_name
from mesm_core.processes import Team
from mesm_core.training.directory import BEST
from mesm_core.training.events import Busy, Calibrated


def calibrate_best(
    parts: TrainingParts,
    directory: Path,
    *,
    device: torch.device,
    team: Team,
    check_stop: Callable[[int], None],
) -> Iterator[Busy | Calibrated]:
    """Fit the calibration of ``best.pt`` on the splits that chose it, and store it there.

    Until it is stored, ``best.pt`` stays as it is. Nothing happens if it has a calibration of its weights already.

    Args:
        check_stop: called after each batch; an exception that it raises ends the calibration.
    """
    best = directory / BEST
    if not parts.eval_data:
        yield Calibrated(None, "the run has no evaluation split")
        return
    try:
        # The main process may be the only one that sees the folder.
        checkpoint = team.from_main(lambda: load_checkpoint(best) if best.is_file() else None)
    except CheckpointError as error:
        yield Calibrated(None, error.message)
        return
    if checkpoint is None:
        return
    weights = weights_hash(checkpoint.model)
    if checkpoint.calibration.get("model") == weights:
        return
    queries = [query for data in parts.eval_data.values() for query in data.queries]
    try:
        halves = halves_to_ask(queries)
    except DataError as error:
        yield Calibrated(None, error.message)
        return
    yield Busy("Calibrating", 0, question_count(halves))
    model = build_trained(parts.config, checkpoint.model, parts.text).to(device)
    features = next(iter(parts.eval_data.values())).features
    data = data_name(parts.config, tuple(parts.eval_data))
    examinee = Examinee(model, parts.config, parts.text, features, device)
    calibration = calibrate(examinee, queries, weights=weights, data=data, progress=check_stop, team=team)
    if team.is_main:
        save_checkpoint(best, replace(checkpoint, calibration=calibration.as_dict()))
    yield Calibrated(calibration)
