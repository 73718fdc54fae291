"""Flags of the published implementation: each is applied, refused by name, or reported in a warning."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mesm_core.checkpoint import load_checkpoint
from mesm_core.config.load import load_config, preset_names
from mesm_core.errors import CheckpointError, ConfigError
from mesm_core.official.checkpoint import load_any_checkpoint
from mesm_core.official.config import config_from_flags, flag_warnings, flags_of
from mesm_core.official.export import export_official
from tests.conftest import GOLDEN, Trained

OFFICIAL = GOLDEN / "official_charades"
TACOS = {"dataset_name": "tacos", "tokenizer_type": "GloVeNLTK"}


@pytest.fixture
def published() -> dict[str, Any]:
    """The flags that the published code wrote beside a checkpoint."""
    content: dict[str, Any] = json.loads((OFFICIAL / "opt.json").read_text())
    return content


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("normalize_txt", False),
        ("normalize_video", False),
        ("use_tef", False),
        ("pre_norm", True),
        ("position_embedding", "learned"),
        ("span_loss_type", "ce"),
        ("tokenizer_type", "GloVeSimple"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(
    mesm, published: dict[str, Any], tmp_path: Path, flag: str, value: object
) -> None:
    (tmp_path / "opt.json").write_text(json.dumps(published | {flag: value}))
    result = mesm("config", "import", tmp_path / "opt.json")
    assert result.code == 2
    assert f"{flag} = {json.dumps(value)}" in result.err
    assert result.out == ""


def test_all_refused_flags_are_listed_at_once(published: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"(?s)opt\.json.*use_tef = false.*pre_norm = true"):
        config_from_flags(published | {"use_tef": False, "pre_norm": True}, source="opt.json")


def test_other_numbers_of_pairs_matter_with_the_triplet_loss(published: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="contra_samples = 4"):
        config_from_flags(published | {"contra_samples": 4, "use_triplet": True}, source="x")
    flags = published | {"contra_samples": 4, "use_triplet": False}
    assert not config_from_flags(flags, source="x").loss.triplet
    assert "contra_samples = 4 has no effect" in str(flag_warnings(flags, source="x"))


@pytest.mark.parametrize(
    ("flag", "value"),
    [("nms_thd", 0.7), ("max_before_nms", 5), ("max_after_nms", 5), ("sort_results", False), ("ctx_mode", "video_tef")],
)
def test_what_changes_the_report_is_warned_of(
    mesm, published: dict[str, Any], tmp_path: Path, flag: str, value: object
) -> None:
    (tmp_path / "opt.json").write_text(json.dumps(published | {flag: value}))
    result = mesm("config", "import", tmp_path / "opt.json")
    assert result.code == 0, result.err
    assert f"{flag} = {json.dumps(value)} has no effect" in result.err
    assert "hidden_dim = 64" in result.out


def test_unknown_flags_are_listed_in_one_warning(published: dict[str, Any]) -> None:
    (warning,) = flag_warnings(published | {"gwork": True, "loss_svd_coef": 0.1}, source="x")
    assert "gwork, loss_svd_coef" in warning


def test_published_files_need_no_warning(published: dict[str, Any]) -> None:
    assert flag_warnings(published, source="x") == ()
    assert load_any_checkpoint(OFFICIAL / "model_test_best.ckpt").warnings == ()


def test_features_are_as_wide_in_the_file_as_in_the_checkpoint(published: dict[str, Any]) -> None:
    """opt.json has v_feat_dim without the endpoint channels, the checkpoint's own flags with them."""
    inside = load_any_checkpoint(OFFICIAL / "model_test_best.ckpt")
    assert config_from_flags(published, source="x").model_dump(mode="json") == inside.config
    assert inside.config["model"]["video_dim"] == published["v_feat_dim"] == 128


def test_training_flags_are_carried_out() -> None:
    flags = TACOS | {"max_es_cnt": 7, "eval_epoch_interval": 3, "eval_untrained": True}
    train = config_from_flags(flags, source="x").train
    assert (train.patience, train.eval_every, train.eval_untrained) == (7, 3, True)
    same = config_from_flags(TACOS | {"batch_size": 6, "eval_batch_size": -1}, source="x")
    assert (same.train.batch_size, same.eval.batch_size) == (6, 6)


def test_without_a_tokenizer_the_preset_chooses_the_encoder() -> None:
    assert config_from_flags({"dataset_name": "qvhighlights"}, source="x").text.encoder == "clip"
    assert config_from_flags({"dataset_name": "tacos"}, source="x").text.encoder == "glove"
    with pytest.raises(ConfigError, match="has no dataset_name"):
        config_from_flags({"is_inference": True, "trained_result_dir": "./results"}, source="x")


@pytest.mark.parametrize("name", preset_names())
def test_presets_come_back(name: str) -> None:
    config = load_config(name, overrides=["train.patience=3", "model.video_dim=640"])
    flags = flags_of(config, {})
    assert config_from_flags(flags, source="x") == config
    assert flag_warnings(flags, source="x") == ()


def test_export_writes_widths_as_the_published_code_does(trained: Trained, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(trained.best)
    path, options = export_official(checkpoint, tmp_path / "model.ckpt")
    with torch.serialization.safe_globals([argparse.Namespace]):
        inside = vars(torch.load(path, weights_only=True)["opt"])
    assert (json.loads(options.read_text())["v_feat_dim"], inside["v_feat_dim"]) == (12, 14)
    imported = config_from_flags(json.loads(options.read_text()), source="x")
    assert imported == trained.config
    assert load_any_checkpoint(path).config == checkpoint.config
    assert load_any_checkpoint(path).warnings == ()


def test_export_tells_which_settings_the_format_cannot_hold(mesm, trained: Trained, tmp_path: Path) -> None:
    from dataclasses import replace

    from mesm_core.checkpoint import save_checkpoint

    checkpoint = load_checkpoint(trained.best)
    changed = checkpoint.config | {"dataset": checkpoint.config["dataset"] | {"shorten": "first"}}
    save_checkpoint(tmp_path / "best.pt", replace(checkpoint, config=changed))
    result = mesm("export", tmp_path / "best.pt", tmp_path / "model.ckpt", "--official")
    assert result.code == 0
    assert "no flags for these settings: dataset.shorten = first" in result.err
    assert mesm("export", trained.best, tmp_path / "other" / "model.ckpt", "--official").err == ""


@pytest.fixture
def altered(trained: Trained, tmp_path: Path):
    """Export the trained model in the published format, with other flags."""

    def make(**flags: object) -> Path:
        path, _ = export_official(load_checkpoint(trained.best), tmp_path / "model.ckpt", overwrite=True)
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, weights_only=True)
        torch.save(content | {"opt": argparse.Namespace(**vars(content["opt"]) | flags)}, path)
        return path

    return make


def test_commands_that_read_published_checkpoints(mesm, trained: Trained, altered, tmp_path: Path) -> None:
    data = ["--data-dir", trained.root, "--glove", trained.paths.text]
    commands = [
        ["eval", tmp_path / "model.ckpt", *data],
        ["predict", tmp_path / "model.ckpt", *data, "--video", "test-000", "The man cuts a pan."],
        ["train", "--init", tmp_path / "model.ckpt", *data, "--runs-dir", tmp_path / "runs", "--set", "train.epochs=1"],
    ]
    altered(nms_thd=0.5, gwork=1)
    for command in commands:
        result = mesm(*command)
        assert result.code == 0, result.err
        shown = " ".join(result.err.split())
        assert "nms_thd = 0.5 has no effect" in shown
        assert "unknown flags, which have no effect here: gwork" in shown
    altered(pre_norm=True)
    for command in commands:
        result = mesm(*command)
        assert (result.code, "pre_norm = true" in result.err) == (2, True)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"v_feat_dim": 999}, "has v_feat_dim 999, but the weights"),
        ({"hidden_dim": "wide"}, "'model.hidden_dim' = 'wide'"),
    ],
)
def test_flags_that_contradict_the_weights(altered, change: dict[str, object], expected: str) -> None:
    with pytest.raises((CheckpointError, ConfigError), match=expected):
        load_any_checkpoint(altered(**change))


def test_damaged_published_checkpoints(trained: Trained, tmp_path: Path) -> None:
    path, options = export_official(load_checkpoint(trained.best), tmp_path / "model.ckpt")
    with torch.serialization.safe_globals([argparse.Namespace]):
        content = torch.load(path, weights_only=True)
    first = "input_vid_proj.0.LayerNorm.weight"
    torch.save(content | {"model": content["model"] | {first: "x"}}, path)
    with pytest.raises(CheckpointError, match="is damaged"):
        load_any_checkpoint(path)
    torch.save({"model": content["model"]}, path)
    options.write_text("[1]")
    with pytest.raises(CheckpointError, match="not flags by name"):
        load_any_checkpoint(path)
