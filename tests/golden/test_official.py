"""A checkpoint of the published implementation, as it is, gives its figures and its windows."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mesm_core.errors import CheckpointError, ConfigError
from mesm_core.official.checkpoint import load_any_checkpoint
from mesm_core.official.config import config_from_flags
from tests.conftest import Evil


@pytest.fixture
def official(shared: Path) -> Path:
    return shared / "golden" / "official_charades"


def data_words(shared: Path, official: Path) -> list[object]:
    vocabulary = shared / "data" / "charades" / "annotations" / "glove.pkl"
    return ["--annotations", official / "annotations", "--features", official / "features.hdf5", "--glove", vocabulary]


def test_figures_and_windows(mesm, shared: Path, official: Path, tmp_path: Path) -> None:
    out = tmp_path / "predictions.jsonl"
    words = data_words(shared, official)
    result = mesm("eval", official / "model_test_best.ckpt", "--split", "test", *words, "--output", out, "--json")
    assert result.code == 0, result.err
    brief = json.loads(result.out)["brief"]
    expected = json.loads((official / "expected_metrics.json").read_text())["brief"]
    for key, value in expected.items():
        ours = brief[key.replace("miou", "mIoU")] if "superlong" not in key else None
        assert ours == (None if value is None else pytest.approx(value, abs=0.05)), key
    wanted = [json.loads(line) for line in (official / "expected_preds.jsonl").read_text().splitlines()]
    answers = {record["qid"]: record for record in map(json.loads, out.read_text().splitlines())}
    assert len(answers) == len(wanted) == 533
    pairs = [(answers[w["qid"]]["pred_relevant_windows"][0], w["pred_relevant_windows"][0]) for w in wanted]
    same = [np.abs(np.array(ours) - np.array(theirs))[:2].max() <= 1 + 1e-9 for ours, theirs in pairs]
    assert np.mean(same) >= 0.995


def test_predict(mesm, shared: Path, official: Path) -> None:
    words = data_words(shared, official)
    command = ["predict", official / "model_test_best.ckpt", *words, "--video", "3MSZA", "person turn a light on."]
    moments = json.loads(mesm(*command, "--json").out)[0]["moments"]
    assert (moments[0]["start"], moments[0]["end"]) == (25, pytest.approx(30.96))


def test_what_does_not_fit_is_named(mesm, shared: Path, official: Path, tmp_path: Path) -> None:
    words = data_words(shared, official)
    without = mesm("eval", official / "model_test_best.ckpt", "--split", "test", *words[:4], "--data-dir", tmp_path)
    assert without.code == 2
    assert "No vocabulary file" in without.err


def content(official: Path) -> dict[str, Any]:
    with torch.serialization.safe_globals([argparse.Namespace]):
        loaded: dict[str, Any] = torch.load(official / "model_test_best.ckpt", weights_only=True)
    return loaded


def test_checkpoints_that_run_code_are_refused(official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content(official) | {"extra": Evil()}, "evil.ckpt")
    with pytest.raises(CheckpointError, match=r"asks for (posix|nt)\.mkdir, which no checkpoint needs"):
        load_any_checkpoint(Path("evil.ckpt"))
    assert not Path("evil-was-here").exists()


def test_settings_from_beside(official: Path, tmp_path: Path) -> None:
    whole = content(official)
    bare = {name: value for name, value in whole.items() if name != "opt"}
    torch.save(bare, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match=r"opt\.json"):
        load_any_checkpoint(tmp_path / "model.ckpt")
    (tmp_path / "opt.json").write_text((official / "opt.json").read_text())
    inside = load_any_checkpoint(official / "model_test_best.ckpt")
    assert load_any_checkpoint(tmp_path / "model.ckpt").config == inside.config
    torch.save(bare | {"model": dict(list(whole["model"].items())[:-3])}, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match="lacks 3 of the"):
        load_any_checkpoint(tmp_path / "model.ckpt")


def test_flags_become_settings() -> None:
    flags = {"dataset_name": "tacos", "tokenizer_type": "GloVeNLTK", "lr": 0.5, "stop_score": "mAP", "nms_thd": -1}
    config = config_from_flags(flags, source="x")
    assert (config.text.encoder, config.train.lr, config.eval.select) == ("glove", 0.5, "mAP")
    assert config_from_flags({"dataset_name": "charades_cd", "tokenizer_type": "CLIP"}, source="x").dataset.eval == (
        "val",
    )
    with pytest.raises(ConfigError, match="unknown dataset_name 'nextqa'"):
        config_from_flags({"dataset_name": "nextqa"}, source="x")
