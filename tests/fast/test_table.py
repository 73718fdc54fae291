"""The fast forward is chosen for models made of exactly the classes in its table; all others get the reference."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from mesm_core.build import build_criterion, build_model
from mesm_core.checkpoint import load_checkpoint, save_checkpoint
from mesm_core.config.schema import ModelConfig
from mesm_core.fast import mesm as fast_mesm
from mesm_core.fast.mesm import FastMesm, accelerate
from mesm_core.fast.table import TABLE
from mesm_core.inference.predictor import MomentRetriever
from mesm_core.model.layers import EncoderLayer, FeedForward
from mesm_core.model.mesm import Mesm
from mesm_core.training.directory import load_last
from mesm_core.training.precision import use_precision
from tests.conftest import Trained, small_config
from tests.fast.presets import PRESETS, preset_config
from tests.model.made import make_batch, make_model


class ScaledLayer(EncoderLayer):
    """A researcher's layer: self-attention followed by a learned scale."""

    def __init__(self) -> None:
        super().__init__(dim=16, heads=2, hidden=32, dropout=0.1)
        self.scale = nn.Parameter(torch.ones(16))

    def forward(self, x: Tensor, *, pos: Tensor, mask: Tensor) -> Tensor:
        return self.scale * super().forward(x, pos=pos, mask=mask)


class PlainSubclass(FeedForward):
    """A subclass that changes nothing yet."""


def reference() -> Mesm:
    model = make_model(fast=False)
    assert type(model) is Mesm
    return model


def replace_encoder_layer(model: Mesm) -> None:
    model.encoder[0] = ScaledLayer()


def replace_feedforward(model: Mesm) -> None:
    model.encoder[0].feedforward = PlainSubclass(dim=16, hidden=32, dropout=0.1)


def replace_activation(model: Mesm) -> None:
    model.decoder.layers[1].activation = nn.GELU()


def project_by_one_linear(model: Mesm) -> None:
    model.video_projection = nn.Linear(14, 16)


def project_by_other_layers(model: Mesm) -> None:
    model.text_projection = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 16))


def parametrise(model: Mesm) -> None:
    spectral_norm(model.aligner.layers[0].attention.out_proj)


def add_a_part(model: Mesm) -> None:
    model.adapter = nn.Linear(16, 16)


def override_on_the_instance(model: Mesm) -> None:
    layer = model.encoder[0]
    layer.forward = lambda x, *, pos, mask: EncoderLayer.forward(layer, 2 * x, pos=pos, mask=mask)


def leave_out_a_bias(model: Mesm) -> None:
    model.encoder[0].attention.out_proj = nn.Linear(16, 16, bias=False)


def give_decoder_layers_different_heads(model: Mesm) -> None:
    model.decoder.layers[1].heads = 1


CHANGES = [
    replace_encoder_layer, replace_feedforward, replace_activation, project_by_one_linear,
    project_by_other_layers, parametrise, add_a_part, override_on_the_instance, leave_out_a_bias,
    give_decoder_layers_different_heads,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_part_is_trained_by_the_reference(change: Callable[[Mesm], None]) -> None:
    model = reference()
    change(model)
    assert accelerate(model) is model
    batch = make_batch([[("a", 3), ("a", 9)], [("b", 4)]], train=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    config = small_config()
    criterion, losses = build_criterion(config.loss, config.model), []
    assert batch.targets is not None
    for _ in range(6):
        output = model(batch.inputs, batch.targets)
        loss = criterion.total(criterion(output, batch.inputs, batch.targets))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_kernels_know_one_slope_a_layer() -> None:
    model = reference()
    model.aligner.layers[0].activation = nn.PReLU(32)
    assert accelerate(model) is model


def test_an_overridden_layer_learns() -> None:
    model = reference()
    replace_encoder_layer(model)
    batch = make_batch([[("a", 3)], [("b", 4)]], train=True)
    accelerate(model)(batch.inputs, batch.targets).saliency.sum().backward()
    assert float(model.encoder[0].scale.grad.abs().sum()) > 0


def test_a_subclass_of_the_whole_model_is_not_accelerated() -> None:
    class Changed(Mesm):
        pass

    model = reference()
    model.__class__ = Changed
    assert accelerate(model) is model
    fast = make_model()
    assert accelerate(fast) is fast


def test_a_part_replaced_later_is_not_ignored() -> None:
    plain, model = reference(), make_model()
    for one in (plain, model):
        torch.manual_seed(0)
        replace_encoder_layer(one)
        with torch.no_grad():
            one.encoder[0].scale.mul_(2)
        one.eval()
    inputs = make_batch([[("a", 3), ("a", 9)], [("b", 4)]]).inputs
    assert torch.equal(model(inputs).spans[-1], plain(inputs).spans[-1])


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_accelerated(preset: str) -> None:
    for shared in (True, False):
        for switches in ({}, {"frame_word": False, "segment_sentence": False, "text_positions": True}):
            config = preset_config(preset).model.model_copy(update={"share_feedforward": shared} | switches)
            model = build_model(config, classes=16, max_words=16)
            assert type(model) is FastMesm
            plain = build_model(config.model_copy(update={"fast": False}), classes=16, max_words=16)
            assert {type(part) for part in plain.modules()} <= {*TABLE, nn.Sequential, nn.ModuleList}


def test_bfloat16_on_a_cpu_without_amx(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fast forward rounds in its feed-forwards; the reference computes under autocast."""
    monkeypatch.setattr("mesm_core.training.precision.fast_bfloat16", lambda: False)
    for model, autocast in ((make_model(), False), (reference(), True)):
        with use_precision(model, torch.device("cpu"), "bf16") as numbers, numbers:
            assert torch.is_autocast_enabled("cpu") == autocast
            output = model(make_batch([[("a", 3)]]).inputs)
        assert torch.isfinite(output.float().saliency).all()


def never(*_: object, **__: object) -> None:
    raise AssertionError("the fast forward was called")


SETTING = ("--set", "model.fast=false")


def test_the_reference_from_training_to_answers(
    mesm, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint of either forward gives the same answers by both."""
    config = small_config("train.epochs=1", "model.fast=false")
    settings = tmp_path / "settings.json"
    settings.write_text(config.model_dump_json())
    root = ("--data-dir", trained.root, "--device", "cpu")
    run = tmp_path / "tacos-plain"
    with monkeypatch.context() as patch:
        patch.setattr(fast_mesm, "_Forward", never)
        done = mesm(
            "train",
            "--config",
            settings,
            *root,
            "--glove",
            trained.paths.text,
            "--runs-dir",
            tmp_path,
            "--name",
            "plain",
        )
        assert done.code == 0, done.err
        checked = mesm("eval", run / "best.pt", *root, "--split", "val", "--json")
        assert checked.code == 0, checked.err
        other = mesm("eval", trained.best, *root, "--split", "val", "--json", *SETTING)
        assert other.code == 0, other.err
    assert load_checkpoint(run / "best.pt").config["model"]["fast"] is False
    for path, plain in ((run / "best.pt", checked), (trained.best, other)):
        fast = mesm("eval", path, *root, "--split", "val", "--json", "--set", "model.fast=true")
        assert json.loads(fast.out) == json.loads(plain.out)


def test_settings_of_a_run_before_there_was_a_choice(
    mesm, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint without the setting predicts by the fast forward, and its run can be resumed."""
    run = tmp_path / "run"
    run.mkdir()
    for name in ("best.pt", "last.pt"):
        checkpoint = load_checkpoint(trained.run / name)
        del checkpoint.config["model"]["fast"]
        save_checkpoint(run / name, checkpoint)
    assert type(MomentRetriever.load(run / "best.pt", device="cpu").model) is FastMesm
    retriever = MomentRetriever.load(run / "best.pt", device="cpu", overrides=["model.fast=false"])
    assert type(retriever.model) is Mesm
    done = mesm(
        "train", "--resume", run, "--data-dir", trained.root, "--device", "cpu", "--set", "train.epochs=3",
        "--set", "model.fast=false",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert load_last(run)[0].epoch == 3


def test_the_setting_has_a_default() -> None:
    assert ModelConfig(video_dim=3, text_dim=2).fast
