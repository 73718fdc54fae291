"""A checkpoint of the published implementation, as it is, gives its figures and its windows.

A small one is always asked, cut to 20 videos; the whole one where it is.
"""

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
from tests.conftest import GOLDEN, Evil

OFFICIAL = GOLDEN / "official_charades"


@pytest.fixture
def official() -> Path:
    return OFFICIAL


def data_words(official: Path, vocabulary: Path = OFFICIAL / "vocabulary.h5") -> list[object]:
    return ["--annotations", official / "annotations", "--features", official / "features.hdf5", "--glove", vocabulary]


def test_windows_of_the_small_checkpoint(mesm, official: Path, tmp_path: Path) -> None:
    brief, windows = evaluated(mesm, official, data_words(official), tmp_path / "predictions.jsonl")
    wanted = expected_windows(official)
    assert windows.keys() == wanted.keys()
    # Its weights are rounded to float16, which may move an end of a window by one step of a second.
    apart = [np.abs(np.array(windows[qid]) - np.array(wanted[qid])).max() for qid in wanted]
    assert max(apart) <= 1 + 1e-9
    assert np.mean(np.array(apart) < 1e-6) >= 0.95
    expected = json.loads((official / "expected_metrics.json").read_text())["brief"]
    assert brief["MR-full-mIoU"] == pytest.approx(expected["MR-full-mIoU"], abs=0.5)


def test_figures_and_windows(mesm, shared: Path, tmp_path: Path) -> None:
    folder = shared / "golden" / "official_charades"
    words = data_words(folder, shared / "data" / "charades" / "annotations" / "glove.pkl")
    brief, windows = evaluated(mesm, folder, words, tmp_path / "predictions.jsonl")
    expected = json.loads((folder / "expected_metrics.json").read_text())["brief"]
    for key, value in expected.items():
        ours = brief[key.replace("miou", "mIoU")] if "superlong" not in key else None
        assert ours == (None if value is None else pytest.approx(value, abs=0.05)), key
    wanted = expected_windows(folder)
    assert len(windows) == len(wanted) == 533
    same = [np.abs(np.array(windows[qid]) - np.array(wanted[qid])).max() <= 1 + 1e-9 for qid in wanted]
    assert np.mean(same) >= 0.995


def evaluated(mesm, folder: Path, words: list[object], out: Path) -> tuple[dict[str, Any], dict[int, list[float]]]:
    """Return the summary of `mesm eval`, and the best window of each query."""
    command = ["eval", folder / "model_test_best.ckpt", "--split", "test", *words, "--output", out, "--json"]
    result = mesm(*command)
    assert result.code == 0, result.err
    return json.loads(result.out)["brief"], windows_of(out)


def expected_windows(folder: Path) -> dict[int, list[float]]:
    return windows_of(folder / "expected_preds.jsonl")


def windows_of(path: Path) -> dict[int, list[float]]:
    records = map(json.loads, path.read_text().splitlines())
    return {record["qid"]: record["pred_relevant_windows"][0][:2] for record in records}


def test_predict(mesm, official: Path) -> None:
    command = ["predict", official / "model_test_best.ckpt", *data_words(official)]
    result = mesm(*command, "--video", "3MSZA", "person turn a light on.", "--json")
    moments = json.loads(result.out)[0]["moments"]
    assert (moments[0]["start"], moments[0]["end"]) == (25, pytest.approx(30.96))


def test_what_does_not_fit_is_named(mesm, official: Path, tmp_path: Path) -> None:
    words = data_words(official)
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
    with pytest.raises(CheckpointError, match=r"refers to (posix|nt)\.mkdir, which no checkpoint needs"):
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
