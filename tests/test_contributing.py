"""CONTRIBUTING.md's walk-through: its code is added to the tables, and a tiny model trains with it."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from mesm_core.build import build_criterion, data_files
from mesm_core.build.data import check_select
from mesm_core.build.encoders import find_encoder
from mesm_core.config.backbones import BACKBONES, BackboneEntry
from mesm_core.config.load import load_config
from mesm_core.data.readers import READERS, read_split
from mesm_core.errors import ConfigError
from mesm_core.losses.table import LOSSES, Loss
from mesm_core.metrics.table import METRICS, Metric, column_names
from mesm_core.training.loggers import LOGGERS
from mesm_core.training.run import Run
from tests.conftest import Trained, small_config
from tests.video.made import constant, make_video

GUIDE = Path(__file__).resolve().parents[1] / "CONTRIBUTING.md"
BLOCK = re.compile(r"The (file|line)[^`]*`(mesm_core/[\w/]+\.py)`:\n\n```python\n(.*?)```", re.DOTALL)
TABLES: dict[str, dict[str, Any]] = {
    "mesm_core/losses/table.py": LOSSES,
    "mesm_core/metrics/table.py": METRICS,
    "mesm_core/data/readers/__init__.py": READERS,
    "mesm_core/training/loggers.py": LOGGERS,
    "mesm_core/config/backbones.py": BACKBONES,
}


def module_of(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The parts of the guide, in their tables while a test runs; returns the names of their lines."""
    names: list[str] = []
    known: dict[str, Any] = {"Loss": Loss, "Metric": Metric, "BackboneEntry": BackboneEntry}
    for kind, where, code in BLOCK.findall(GUIDE.read_text()):
        if kind == "file":
            assert not (GUIDE.parent / where).exists(), "the guide adds a file that is there already"
            file = tmp_path / Path(where).name
            file.write_text(code)
            module = module_of(file)
            monkeypatch.setitem(sys.modules, where.removesuffix(".py").replace("/", "."), module)
            public = {name: value for name, value in vars(module).items() if not name.startswith("_")}
            known |= public | {module.__name__: module}
        else:
            for name, part in eval("{" + code + "}", known).items():
                monkeypatch.setitem(TABLES[where], name, part)
                names.append(name)
    return names


def spreadsheets(trained: Trained, folder: Path) -> None:
    """Write the splits of the invented dataset as the guide's reader reads them, and their count file."""
    for split in ("train", "val"):
        with (folder / f"{split}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["video", "seconds", "start", "end", "query"])
            for query in read_split("tacos", trained.paths.annotations, split).queries:
                rows.writerow([query.vid, query.duration, *query.windows[0], query.sentence])
    counts = trained.config.text.counts
    (folder / counts).write_bytes((trained.paths.annotations / counts).read_bytes())


def test_parts_of_the_guide_train(added: list[str], trained: Trained, tmp_path: Path) -> None:
    assert added == ["loss_smooth", "center", "spreadsheet", "plain", "colours"]
    annotations, run = tmp_path / "annotations", tmp_path / "run"
    annotations.mkdir()
    run.mkdir()
    spreadsheets(trained, annotations)
    config = small_config(
        "dataset.name=spreadsheet",
        "train.epochs=1",
        'train.loggers=["plain"]',
        "loss.weights.smooth=100",
        "eval.select=center",
    )
    paths = replace(trained.paths, annotations=annotations)
    assert annotations / "train.csv" in data_files(config, paths)
    list(Run.open(config, paths, run, device=torch.device("cpu")).train())
    (record,) = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses, brief = record["losses"], record["eval"]["val"]
    assert losses["loss_smooth"] > 0
    weighed = sum(losses[name] * weight for name, weight in WEIGHTS.items() if name in losses)
    assert losses["loss"] == pytest.approx(weighed + 100 * losses["loss_smooth"], rel=1e-4)
    assert 0 <= brief["MR-full-center"] <= 100
    assert record["select"]["key"] == "MR-full-center"
    assert column_names() == ["mIoU", "R1@0.5", "center"]
    assert "loss/loss_smooth=" in (run / "curves.txt").read_text()


def test_the_backbone_of_the_guide_extracts_features(added: list[str], mesm, tmp_path: Path) -> None:
    red = np.zeros((50, 48, 64, 3), np.uint8)
    red[..., 0] = 200
    make_video(tmp_path / "red.mp4", constant(25, 50), pictures=list(red))
    done = mesm("extract", tmp_path / "red.mp4", tmp_path / "out", "--backbone", "colours", "--clip-len", "0.5")
    assert done.code == 0, done.err
    with h5py.File(tmp_path / "out/colours.hdf5") as file:
        np.testing.assert_allclose(file["red"][:], [[200 / 255, 0, 0]] * 4, atol=0.02)
    config = load_config("jsonl", overrides=["dataset.videos=.", 'dataset.backbones=["colours"]'])
    assert (config.dataset.feature_dims, config.model.video_dim) == ((3,), 3)
    assert config.dataset.features[0].endswith("/colours.hdf5")


def _weights() -> dict[str, float]:
    loss = small_config().loss
    named = {name: loss.weight(entry.weight) for name, entry in LOSSES.items() if entry.weight}
    layers = small_config().model.decoder_layers - 1
    every = {f"{name}_{layer}": named[name] for name, entry in LOSSES.items() if entry.every_layer and entry.weight
             for layer in range(layers)}  # fmt: skip
    return {name: value for name, value in (named | every).items() if value is not None}


WEIGHTS = _weights()


def test_a_loss_without_a_weight_is_not_computed(added: list[str]) -> None:
    config = small_config()
    criterion = build_criterion(config.loss, config.model)
    assert "loss_smooth" not in {term.name for term in criterion.terms}
    heavier = small_config("loss.weights.smooth=2").loss
    (term,) = [t for t in build_criterion(heavier, config.model).terms if t.name == "loss_smooth"]
    assert term.weight == 2


def test_the_metric_of_the_guide_is_in_the_tables_by_length(
    added: list[str], mesm, trained: Trained, tmp_path: Path
) -> None:
    page, answers = tmp_path / "report.html", tmp_path / "answers.jsonl"
    done = mesm("eval", trained.best, "--split", "test", "--output", answers, "--report", page)
    assert done.code == 0, done.err
    (head,) = [line.split() for line in done.out.splitlines() if line.startswith("moments")]
    columns = ["R1@0.1", "R1@0.3", "R1@0.5", "R1@0.7", "mIoU", "mAP", "center"]
    assert head == ["moments", "queries", *columns]
    rows = [line.split() for line in done.out.splitlines() if line.split()[:1] in (["full"], ["middle"])]
    assert [len(row) for row in rows] == [2 + len(columns)] * 2
    text = page.read_text()
    assert "".join(f"<th>{name}</th>" for name in ("moments", "queries", *columns)) in text
    # Every metric with several figures has a table with its own labels.
    assert "<th>R1</th><th>0.1</th>" in text
    assert "<th>mAP</th><th>0.5</th>" in text
    assert "<th>center</th></tr>" in text


def test_names_that_are_in_no_table_are_refused() -> None:
    config = small_config()
    with pytest.raises(ConfigError, match=r"loss\.weights\.smooth"):
        build_criterion(small_config("loss.weights.smooth=1").loss, config.model)
    with pytest.raises(ConfigError, match=r"Did you mean 'mIoU'\?"):
        check_select(small_config("eval.select=mIoUs"))
    with pytest.raises(ConfigError, match=r"Did you mean 'glove'\?"):
        find_encoder("glov")


@pytest.mark.parametrize("setting", ["eval.select=mAP@0.9", 'train.loggers=["tensorbord"]', "text.encoder=glov"])
def test_a_run_refuses_unknown_names_before_anything_is_written(trained: Trained, tmp_path: Path, setting: str) -> None:
    with pytest.raises(ConfigError):
        Run.open(small_config(setting), trained.paths, tmp_path, device=torch.device("cpu"))
    assert not list(tmp_path.iterdir())


def test_files_that_the_guide_names_are_there() -> None:
    text = GUIDE.read_text()
    added = {where for kind, where, _ in BLOCK.findall(text) if kind == "file"}
    named = set(re.findall(r"`((?:mesm_core|mesm_cli|tests)/[\w/]+\.py)`", text)) - added
    assert len(named) > 10
    assert not [path for path in named if not (GUIDE.parent / path).is_file()]
