"""Command lines that train small families, and comparisons of what they leave."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mesm_core.build import Paths
from mesm_core.checkpoint import load_checkpoint
from mesm_core.config.schema import Config
from mesm_core.training.directory import read_records
from tests.conftest import SMALL, Trained, small_config

# Saved at every step, so that a run can be killed anywhere.
OFTEN = ("train.save_minutes=1e-9", "train.loggers=[]")


def family_words(trained: Trained, runs: Path, *options: str, seeds: str = "3") -> list[str]:
    """Return the words of a command that trains a family in ``runs``."""
    settings = [word for setting in (*SMALL, *OFTEN) for word in ("--set", setting)]
    data = ["--data-dir", str(trained.root), "--glove", str(trained.paths.text)]
    return ["train", "--dataset", "tacos", "--runs-dir", str(runs), "--seeds", seeds, *data, *settings, *options]


def command_line(words: list[str]) -> list[str]:
    """Return the command line of a process that runs mesm."""
    return [sys.executable, "-m", "mesm_cli.app", *words]


def one_thread() -> dict[str, str]:
    """Return the environment of a process with one thread, like that of the tests."""
    return os.environ | {"OMP_NUM_THREADS": "1"}


def write_family(folder: Path, runs: Mapping[int, Path], trained: Trained) -> Path:
    """Write a family of copies of runs, by seed, and return its folder."""
    for seed, run in runs.items():
        # Other tests may have evaluated the run that all tests share.
        shutil.copytree(run, folder / f"seed-{seed}", ignore=shutil.ignore_patterns("best-*"))
    write_record(folder, list(runs), small_config(*OFTEN), trained.paths)
    return folder


def write_record(folder: Path, seeds: list[int], config: Config, paths: Paths) -> None:
    """Write the record of a family whose runs are there already."""
    record = {"seeds": seeds, "parallel": 1, "init": None, "skip_missing": False}
    record |= {"paths": paths.as_json(), "settings": config.model_dump(mode="json")}
    (folder / "family.json").write_text(json.dumps(record))


def weights(folder: Path, name: str = "last.pt") -> dict[str, torch.Tensor]:
    """Return the weights of a run's checkpoint."""
    return load_checkpoint(folder / name).model


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Return whether two sets of weights are equal bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def figures(folder: Path) -> list[dict[str, Any]]:
    """Return the records of a run without its times."""
    timed = {"seconds", "queries_per_s"}
    return [{key: value for key, value in record.items() if key not in timed} for record in read_records(folder)]


def assert_same_results(ours: Path, theirs: Path) -> None:
    """Assert that two runs have the same weights, figures and predictions."""
    assert figures(ours) == figures(theirs)
    for name in ("best.pt", "last.pt"):
        assert same(weights(ours, name), weights(theirs, name)), name
    predictions = "predictions/val.jsonl"
    assert (ours / predictions).read_bytes() == (theirs / predictions).read_bytes()
