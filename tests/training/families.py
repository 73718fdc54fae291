"""Command lines that train small families, and folders of families without training."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from mesm_core.build import Paths
from mesm_core.config.schema import Config
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
