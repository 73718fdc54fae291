from __future__ import annotations

import json
from pathlib import Path

import pytest

from mesm_core.config.load import (
    FIELD_NAMES,
    flatten,
    known_keys,
    layers,
    load_config,
    preset,
    preset_names,
    presets_dir,
    resolve,
    set_layer,
    sources,
)
from mesm_core.config.schema import Config
from mesm_core.errors import ConfigError


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads(name: str) -> None:
    assert load_config(name).dataset.name


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_says_only_what_it_changes(name: str) -> None:
    usual = {
        f"{section}.{key}": field.get_default(call_default_factory=True)
        for section, model in Config.model_fields.items()
        for key, field in model.annotation.model_fields.items()
        if not field.is_required()
    }
    settings = flatten(load_config(name).model_dump())
    said = {key for key, _ in flatten(preset(name).values)}
    assert not [key for key, value in settings if key in said and key in usual and value == usual[key]]


def test_presets_are_found() -> None:
    assert "tacos" in preset_names()
    assert (presets_dir() / "tacos.toml").is_file()


def test_tacos_has_the_papers_settings() -> None:
    config = load_config("tacos")
    assert (config.train.batch_size, config.dataset.max_gather_size) == (3, 10)
    assert (config.dataset.max_frames, config.dataset.max_words, config.text.vocab_size) == (600, 16, 1111)
    model = config.model
    assert (model.hidden_dim, model.heads, model.dim_feedforward, model.slots) == (256, 8, 1024, 10)
    assert (model.frame_word_layers, model.aligner_layers, model.encoder_layers, model.decoder_layers) == (2, 2, 2, 2)
    assert (model.segment_sentence_layers, model.share_feedforward) == (4, False)
    assert (model.dropout, model.input_dropout) == (0.1, 0.5)
    loss = config.loss
    assert (loss.cost_span, loss.cost_giou, loss.cost_class) == (10, 1, 6)
    assert (loss.span, loss.giou, loss.label, loss.saliency, loss.rec_fw, loss.rec_ss) == (10, 1, 6, 1, 0.1, 0.1)
    assert (loss.eos_coef, loss.rank_coef, loss.triplet, loss.margin) == (0.1, 1, True, 0.2)
    assert (loss.iou_gamma, loss.tau) == (0.9, 0.5)
    train = config.train
    assert (train.lr, train.weight_decay, train.lr_drop, train.gamma) == (2e-4, 1e-4, 400, 0.1)
    assert (train.epochs, train.grad_clip, train.seed) == (200, 0.1, 2019)
    assert (config.eval.batch_size, config.eval.max_time, config.eval.select) == (5, 1000, "mIoU")
    assert config.select_splits == ("val",)
    assert load_config("tacos", overrides=["train.select_on=paper"]).select_splits == ("test",)


def test_tacos_with_clip_and_slowfast_differs_from_tacos_in_its_features_and_text() -> None:
    config, paper = load_config("tacos-clip-slowfast"), load_config("tacos")
    assert config.dataset.features == ("TACoS/clip_image.hdf5", "TACoS/slowfast.hdf5")
    assert (config.dataset.feature_dims, config.model.video_dim) == ((512, 2304), 2816)
    assert (config.dataset.clip_len, config.text.encoder, config.model.text_dim) == (2, "clip", 512)
    # The longest video, 1402.2 s, has 701 rows: none is averaged.
    assert config.dataset.max_frames >= 701
    assert (config.loss, config.train, config.eval) == (paper.loss, paper.train, paper.eval)


def test_precedence_and_sources(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[train]\nlr = 1e-3\nepochs = 7\n")
    stack = layers("tacos", file=file, overrides=["train.epochs=3"])
    config, origin = resolve(stack), sources(stack)
    assert (config.train.epochs, config.train.lr, config.train.batch_size) == (3, 1e-3, 3)
    assert origin["train.epochs"] == "--set"
    assert origin["train.lr"] == str(file)
    assert origin["train.batch_size"] == "preset tacos"
    assert origin["data.cache_gb"] == "default"
    assert set(origin) == set(known_keys())


def test_a_runs_config_json_is_a_config(tmp_path: Path) -> None:
    config = load_config("tacos", overrides=["train.epochs=3"])
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config.model_dump(mode="json")))
    assert load_config(file=file) == config


def test_config_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_config("tacos").train.lr = 1.0  # type: ignore[misc]


def test_field_names_point_at_settings() -> None:
    assert set(FIELD_NAMES.values()) <= set(known_keys())


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.epoch=3", "Did you mean 'train.epochs'?"),
        ("model.nheads=4", "Did you mean 'model.heads'?"),
        ("epochs=3", "Did you mean 'train.epochs'?"),
        ("text.tagger=nltkk", "Did you mean 'nltk'?"),
        ("model.heads=7", "multiple of heads (7)"),
        ("train.lr=-1", "greater than 0"),
        ("train.lr=fast", "train.lr' = 'fast' (--set)"),
        ("dataset.clip_len=0", "clip_len"),
        ("train.lr=nan", "finite"),
        ("train", "section.key=value"),
        ("a..b=1", "section.key=value"),
    ],
)
def test_mistakes_are_named(override: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("tacos", overrides=[override])
    assert expected in str(caught.value)


def test_conflicting_set() -> None:
    with pytest.raises(ConfigError, match="earlier --set"):
        set_layer(["a=1", "a.b=2"])


def test_unknown_dataset() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'tacos'\?"):
        load_config("tacso")


def test_nothing_given() -> None:
    with pytest.raises(ConfigError, match=r"No dataset was chosen: give --dataset NAME \(charades,"):
        load_config()


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.toml", "x = = 1", "not readable TOML"),
        ("a.json", "{", "not readable JSON"),
        ("a.json", "[1]", "not a table"),
        ("b.toml", None, "No config file"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: str | None, expected: str) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=expected):
        load_config("tacos", file=file)


def test_checkpoints_kept_are_bounded() -> None:
    """Saving walks over all that may be kept: a typing error of many digits would never end."""
    with pytest.raises(ConfigError, match=r"train\.keep.*less than or equal to 1000"):
        load_config("tacos", overrides=["train.keep=1000000000000"])
