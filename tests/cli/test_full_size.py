"""Trains one epoch on every dataset at full size, with planted features and a small model, and evaluates each split."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mesm_core.config.load import load_config
from mesm_core.data.readers import make_reader
from mesm_core.text.clip import ClipTextTransformer
from mesm_core.text.clip_weights import write_clip_text

DIM, TEXT = 32, 16
MODEL = {
    "model.video_dim": DIM,
    "model.hidden_dim": 32,
    "model.heads": 2,
    "model.dim_feedforward": 64,
    "model.segment_sentence_layers": 1,
    "train.epochs": 1,
}
RATES = {"charades": 1.0, "qvhighlights": 0.5, "tacos": 0.1}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full")
    torch.manual_seed(0)
    model = ClipTextTransformer(vocabulary=49408, context=77, width=TEXT, layers=1, heads=1)
    write_clip_text(folder / "clip.safetensors", model.state_dict(), heads=1, activation="quick_gelu")
    return folder


def planted(shared: Path, folder: Path, dataset: str) -> Path:
    """Return planted features of a dataset's videos; Charades-CD and -CG have Charades-STA's."""
    kind = dataset.split("-")[0]
    out = folder / f"{kind}.hdf5"
    if not out.exists():
        annotations = shared / "data" / load_config(kind).dataset.annotations
        script = shared / "tools" / "plant_features.py"
        words = ["--dim", DIM, "--fps", RATES[kind], "--noise", 0.5]
        subprocess.run([sys.executable, *map(str, [script, kind, annotations, out, *words])], check=True)
    return out


@pytest.mark.parametrize("preset", ["charades", "charades-cd", "charades-cg", "qvhighlights", "tacos"])
def test_presets_train_and_evaluate_on_full_size_annotations(
    mesm, shared: Path, work: Path, preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESM_CACHE", str(work / "cache"))
    config = load_config(preset)
    features = planted(shared, work, preset)
    settings = MODEL | ({"model.text_dim": TEXT} if config.text.encoder == "clip" else {})
    text = ["--clip", work / "clip.safetensors"]
    if config.text.encoder == "glove":
        text = ["--glove", shared / "glove" / "glove.subset.300d.txt.gz"]
    data = ["--data-dir", shared / "data", "--features", features]
    changes = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    trained = mesm("train", "--dataset", preset, *data, *text, *changes, "--runs-dir", work / "runs", "--name", preset)
    assert trained.code == 0, trained.err
    run = work / "runs" / f"{config.dataset.name}-{preset}"
    record = json.loads((run / "metrics.jsonl").read_text())
    assert record["epoch"] == 1
    assert record["losses"]["loss"] > 0
    for split in make_reader(config.dataset.name).splits[1:]:
        scored = mesm("eval", run / "best.pt", "--split", split, *data, "--json")
        assert scored.code == 0, scored.err
        brief = json.loads(scored.out)["brief"]
        assert 0 <= brief["MR-full-R1@0.5"] <= 100
        assert ("HL-min-VeryGood-mAP" in brief) == (preset == "qvhighlights")
