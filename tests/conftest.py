"""Fixtures: worked examples, an invented dataset, a trained checkpoint, and the command line in-process."""

from __future__ import annotations

import io
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from mesm_core.build import Paths
from mesm_core.config.load import load_config
from mesm_core.config.schema import Config
from mesm_core.data.convert import Options, npy_to_hdf5
from mesm_core.data.count_dataset import count_dataset
from mesm_core.data.invented import write_invented
from mesm_core.data.npy_files import find_sources
from mesm_core.training.directory import prepare_directory
from mesm_core.training.run import Run

# Background jobs and nohup ignore these signals, and so would all processes that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


torch.set_num_threads(1)

SMALL = (
    "dataset.max_frames=40",
    "text.vocab_size=15",
    "model.video_dim=12",
    "model.text_dim=8",
    "model.hidden_dim=16",
    "model.heads=2",
    "model.dim_feedforward=32",
    "model.segment_sentence_layers=1",
    "model.slots=4",
    "train.batch_size=4",
    "train.epochs=2",
    "eval.batch_size=3",
)


GOLDEN = Path(__file__).parent / "golden" / "data"
"""Small worked examples; they are part of the repository."""


def shared_folder() -> Path:
    """Return where the larger golden data should be."""
    return Path(os.environ.get("MESM_SHARED") or Path(__file__).resolve().parents[2] / "shared")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The larger golden data; without them the test is skipped, but never in CI."""
    folder = shared_folder()
    if not (folder / "golden").is_dir():
        message = f"golden data not found at {folder}; set MESM_SHARED"
        if os.environ.get("MESM_REQUIRE_SHARED"):
            pytest.fail(message)
        pytest.skip(message)
    return folder


@dataclass(frozen=True)
class Trained:
    """An invented dataset as a data root, and a run on it."""

    root: Path
    run: Path
    paths: Paths
    config: Config

    @property
    def best(self) -> Path:
        return self.run / "best.pt"


def invent(root: Path, **videos: int) -> Paths:
    """Write an invented dataset as a data root and return its paths."""
    made = write_invented(root, videos=videos or {"train": 8, "val": 3, "test": 3}, dim=12, text_dim=8)
    features = root / "TACoS" / "c3d.hdf5"
    npy_to_hdf5([find_sources(made.npy)], features, options=Options(fps=made.feature_fps))
    count_dataset("tacos", made.annotations, out=made.annotations, kinds=["glove"], max_words=16, overwrite=True)
    return Paths(made.annotations, (features,), made.glove)


def small_config(*overrides: str) -> Config:
    """Return the tacos preset with a tiny model."""
    return load_config("tacos", overrides=[*SMALL, *overrides])


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A tiny model trained for two epochs."""
    root = tmp_path_factory.mktemp("data")
    paths = invent(root)
    config = small_config()
    run = tmp_path_factory.mktemp("runs") / "tacos-default"
    prepare_directory(run, overwrite=False)
    for _ in Run.open(config, paths, run, device=torch.device("cpu")).train():
        pass
    return Trained(root, run, paths, config)


class Evil:
    """Unpickling it would make a folder."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("evil-was-here",)


@dataclass(frozen=True)
class Result:
    """What a command did."""

    code: int
    out: str
    err: str


@pytest.fixture
def mesm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run the command line in this process."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("MESM_DATA", raising=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO())

    def run(*words: object) -> Result:
        from mesm_cli.app import app
        from mesm_cli.errors import guard

        monkeypatch.setattr(sys, "argv", ["mesm", *map(str, words)])
        capsys.readouterr()
        code = guard(app)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run
