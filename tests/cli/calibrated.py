"""A tiny model on an invented dataset with enough queries for a calibration."""

from __future__ import annotations

from pathlib import Path

import torch

from mesm_core.training.directory import prepare_directory
from mesm_core.training.run import Run
from tests.conftest import Trained, invent, small_config

VIDEOS = {"train": 4, "val": 26, "test": 26}


def train_calibrated(root: Path, runs: Path, *overrides: str) -> Trained:
    """Write the data, train for an epoch, which also calibrates, and return the run."""
    paths = invent(root, **VIDEOS)
    config = small_config("train.epochs=1", "eval.batch_size=64", *overrides)
    run = runs / "tacos-default"
    prepare_directory(run, overwrite=False)
    for _ in Run.open(config, paths, run, device=torch.device("cpu")).train():
        pass
    return Trained(root, run, paths, config)
