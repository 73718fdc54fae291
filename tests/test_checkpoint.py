"""Checkpoints that are forged, damaged or gone astray are refused before anything is built of them."""

from __future__ import annotations

import argparse
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mesm_core.checkpoint import load_checkpoint, load_content
from mesm_core.errors import CheckpointError, MesmError
from mesm_core.inference.predictor import MomentRetriever
from mesm_core.inference.scoring import load_for_scoring
from mesm_core.official.checkpoint import load_any_checkpoint
from mesm_core.training.directory import load_last
from tests.changed_checkpoints import Change, changed, setting
from tests.conftest import Trained, small_config

FIRST = "global_token"


def poison(value: float) -> Change:
    def change(content: dict[str, Any]) -> None:
        for name in (FIRST, "span_head.layers.0.weight"):
            if name in content["model"]:
                content["model"][name].view(-1)[0] = value

    return change


def circle(content: dict[str, Any]) -> None:
    content["metrics"]["again"] = content["metrics"]


def laughs(content: dict[str, Any]) -> None:
    value: list[Any] = []
    for _ in range(18):
        value = [value] * 10
    content["metrics"]["many"] = value


def claims(content: dict[str, Any]) -> None:
    content["model"][FIRST] = torch.zeros(1).expand(10**12)


DEEP: list[Any] = []
for _ in range(100):
    DEEP = [DEEP]
ODD: dict[str, Change] = {
    **{f"{part} a list": setting(part, [1]) for part in ("config", "model", "text", "paths", "metrics", "training")},
    **{
        f"{part} none": setting(part, None)
        for part in ("config", "model", "text", "paths", "metrics", "data_statistics")
    },
    "text a string": setting("text", "words"),
    "epoch a tensor": setting("epoch", torch.ones(2)),
    "epoch negative": setting("epoch", -1),
    "epoch true": setting("epoch", True),
    "weights no tensors": setting(f"model.{FIRST}", 3.0),
    "weights integers": setting(f"model.{FIRST}", torch.ones(16, dtype=torch.int64)),
    "weights sparse": setting(f"model.{FIRST}", torch.ones(16).to_sparse()),
    "weights that claim more": claims,
    "weights by number": lambda content: content["model"].update({3: torch.ones(2)}),
    "a weight too many": setting("model.other", torch.ones(2)),
    "a weight too few": lambda content: content["model"].pop(FIRST),
    "another shape": setting(f"model.{FIRST}", torch.ones(3, 3)),
    "a tensor in config": setting("config.train.lr", torch.ones(1)),
    "a number as key": lambda content: content["config"].update({1: 2}),
    "config of lists": setting("config.model", [1, 2]),
    "deep": setting("metrics.deep", DEEP),
    "circle": circle,
    "laughs": laughs,
    "layers": setting("config.model.encoder_layers", 10**6),
    "width": setting("config.model.hidden_dim", 10**9),
    "more layers than weights": setting("config.model.decoder_layers", 100),
    "wider than its weights": setting("config.model.hidden_dim", 4096),
    "statistics half": setting("data_statistics", {"files": ["a"]}),
    "statistics odd": setting("data_statistics.widths", "wide"),
    "statistics unequal": setting("data_statistics.norms", []),
    "statistics text": setting("data_statistics.rate", "fast"),
    "paths half": setting("paths", {"annotations": "x"}),
    "features a string": setting("paths.features", "x"),
    "vectors missing": lambda content: content["text"].pop("vectors"),
    "vectors short": setting("text.vectors", torch.ones(3, 8)),
    "vectors a list": setting("text.vectors", [1.0]),
    "vectors NaN": lambda content: content["text"]["vectors"].fill_(math.nan),
    "words numbers": setting("text.words", [1, 2]),
    "labels none": setting("text.label_words", None),
    "labels few": setting("text.label_words", ["he"]),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_checkpoints(trained: Trained, tmp_path: Path, name: str) -> None:
    path = changed(trained, tmp_path / "odd.pt", ODD[name])
    with pytest.raises(MesmError):
        load_for_scoring(path)
    with pytest.raises(MesmError):
        MomentRetriever.load(path)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite(mesm, trained: Trained, tmp_path: Path, value: float) -> None:
    bad = changed(trained, tmp_path / "bad.pt", poison(value))
    commands = [
        ("predict", bad, "--video", "test-000", "He cuts."),
        ("eval", bad),
        ("export", bad, tmp_path / "out"),
        ("export", bad, tmp_path / "out.ckpt", "--official"),
        ("train", "--init", bad, "--runs-dir", tmp_path),
    ]
    for command in commands:
        result = mesm(*command)
        assert (result.code, "contain NaN or infinity, first" in " ".join(result.err.split())) == (2, True), result.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.pt"]


def test_exported_weights_that_are_not_finite(mesm, trained: Trained, tmp_path: Path) -> None:
    assert mesm("export", trained.best, tmp_path / "out").code == 0
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    for name in (f"model.{FIRST}", "text.vectors"):
        save_file(tensors | {name: torch.full_like(tensors[name], math.nan)}, tmp_path / "out" / "model.safetensors")
        with pytest.raises(CheckpointError, match="NaN or infinity"):
            load_any_checkpoint(tmp_path / "out")


def test_official_weights_that_are_not_finite(mesm, trained: Trained, tmp_path: Path) -> None:
    path = tmp_path / "out.ckpt"
    assert mesm("export", trained.best, path, "--official").code == 0
    with torch.serialization.safe_globals([argparse.Namespace]):
        content = load_content(path)
    content["model"]["global_rep_token"][0] = math.nan
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=f"1 of its .* weights contain NaN or infinity, first {FIRST}"):
        load_any_checkpoint(path)


def test_resuming_falls_back_to_sound_weights(trained: Trained, tmp_path: Path) -> None:
    shutil.copy(trained.run / "last.pt", tmp_path / "last.1.pt")
    changed(trained, tmp_path / "last.pt", poison(math.nan), "last.pt")
    checkpoint, problems = load_last(tmp_path)
    assert torch.isfinite(checkpoint.model[FIRST]).all()
    assert len(problems) == 1
    assert "NaN or infinity" in problems[0]
    assert problems[0].endswith("Continuing from last.1.pt instead.")


@pytest.fixture(scope="module")
def last(trained: Trained) -> dict[str, Any]:
    """The content of a last.pt with one tensor of the model and without the optimiser's state: that loads quickly."""
    content: dict[str, Any] = load_content(trained.run / "last.pt")
    optimizer = content["training"]["optimizer"] | {"state": {}}
    return content | {
        "model": {FIRST: content["model"][FIRST]},
        "training": content["training"] | {"optimizer": optimizer},
    }


def test_what_odd_progress_is_made_of_is_sound(last: dict[str, Any], tmp_path: Path) -> None:
    torch.save(last, tmp_path / "last.pt")
    checkpoint, problems = load_last(tmp_path)
    assert checkpoint.training.keys() == last["training"].keys()
    assert not problems


@pytest.mark.parametrize("key", ["shares", "step", "seconds", "best_score", "waiting", "batches", "optimizer"])
@pytest.mark.parametrize("value", ["x", [], [{}], {"a": 1}, math.nan, -3, True], ids=range(7))
def test_odd_progress(last: dict[str, Any], tmp_path: Path, key: str, value: object) -> None:
    if (key, value) in (("seconds", math.nan), ("best_score", math.nan)) or (key == "optimizer" and value == {"a": 1}):
        return
    torch.save(last | {"training": last["training"] | {key: value}}, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match=f"training.{key}"):
        load_last(tmp_path)


@pytest.mark.parametrize(
    "value", [{"a": 1}, {"state": {}, "param_groups": []}, {"state": {0: 1}, "param_groups": [{}]}]
)
def test_odd_optimisers(mesm, trained: Trained, tmp_path: Path, value: object) -> None:
    shutil.copytree(trained.run, tmp_path / "run")
    changed(trained, tmp_path / "run" / "last.pt", setting("training.optimizer", value), "last.pt")
    result = mesm("train", "--resume", tmp_path / "run", "--set", "train.epochs=3")
    assert (result.code, "optimiser's state" in result.err) == (2, True), result.err


@pytest.mark.parametrize("name", ["config.json", "checkpoint.json"])
@pytest.mark.parametrize("text", ["[]", "3", "{}", '{"text": 3}', "[" * 10**5, "1" * 5000, "\0", '{"epoch": "x"}'])
def test_odd_exports(mesm, trained: Trained, tmp_path: Path, name: str, text: str) -> None:
    assert mesm("export", trained.best, tmp_path / "out").code == 0
    (tmp_path / "out" / name).write_text(text)
    with pytest.raises(MesmError):
        load_for_scoring(tmp_path / "out")


@pytest.mark.parametrize(
    "text", ["[]", "3", "{}", "[" * 10**5, "\0", '{"dataset_name": 3}', '{"dataset_name": "tacos", "hidden_dim": []}',
             '{"dataset_name": "tacos", "enc_layers": 1000000}']
)  # fmt: skip
def test_odd_official_settings(mesm, trained: Trained, tmp_path: Path, text: str) -> None:
    path = tmp_path / "out.ckpt"
    assert mesm("export", trained.best, path, "--official").code == 0
    with torch.serialization.safe_globals([argparse.Namespace]):
        content = load_content(path)
    del content["opt"]
    torch.save(content, path)
    (tmp_path / "opt.json").write_text(text)
    with pytest.raises(MesmError):
        load_any_checkpoint(path)
    for change in ({"model": {"input_vid_proj.0.LayerNorm.weight": 3}}, {"epoch": torch.ones(2)}, {"opt": {1: 2}}):
        torch.save(content | change, path)
        with pytest.raises(MesmError):
            load_any_checkpoint(path)


def test_any_cut_or_flipped_checkpoint(trained: Trained, tmp_path: Path) -> None:
    whole = trained.best.read_bytes()
    random = np.random.default_rng(0)
    for number in range(60):
        damaged = bytearray(whole[: int(random.integers(1, len(whole)))] if number % 6 == 0 else whole)
        for place in random.integers(0, min(len(damaged), 40_000), 4):
            damaged[place] ^= int(random.integers(1, 256))
        (tmp_path / "a.pt").write_bytes(damaged)
        try:
            load_any_checkpoint(tmp_path / "a.pt")
        except MesmError:
            continue


def test_a_sound_checkpoint_is_as_it_was(trained: Trained) -> None:
    assert load_checkpoint(trained.best).config == small_config().model_dump(mode="json")
    assert json.dumps(load_checkpoint(trained.best).data_statistics)


def test_older_checkpoints_call_the_data_statistics_facts(trained: Trained, tmp_path: Path) -> None:
    def older(content: dict[str, Any]) -> None:
        content["facts"] = content.pop("data_statistics")

    path = changed(trained, tmp_path / "old.pt", older)
    assert load_checkpoint(path).data_statistics == load_checkpoint(trained.best).data_statistics != {}
