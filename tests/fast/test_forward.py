"""The fast forward equals the reference: outputs and gradients, in training and evaluation, for every preset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mesm_core.build import build_criterion, build_model
from mesm_core.config.schema import Config, LossConfig, ModelConfig
from mesm_core.data.collate import Framing, collate, frame_places, group_context
from mesm_core.fast import dropout, feedforward
from mesm_core.fast import mesm as fast_mesm
from mesm_core.fast.mesm import FastMesm, accelerate
from mesm_core.fast.packing import Packing
from mesm_core.model.mesm import Mesm
from mesm_core.types import Batch, Inputs, ModelOutput, Targets
from tests.fast.presets import PRESETS, preset_config
from tests.model.made import DIM, make_item
from tests.parity.fixture import GRADIENT_TOLERANCE, OUTPUT_TOLERANCE, SMALL_GRADIENT, in_dtype

WITHOUT_DROPOUT = ("model.dropout=0", "model.input_dropout=0")
EXACT = 1e-10
KEY_BIASES = ("key_content.bias", "key_pos.bias")
LENGTHS = {"a": 7, "b": 12, "c": 1, "d": 5}
# Groups of (video, words). "c" has one frame; "a" stands between videos of other lengths.
RAGGED = [[("a", 3), ("a", 9), ("a", 1)], [("b", 4)], [("c", 5), ("c", 1)], [("d", 2)]]
BATCHES = {
    "ragged": RAGGED,
    "equal lengths": [[("a", 3), ("a", 9)], [("a", 4)]],
    "one query": [[("b", 4)]],
    "one frame": [[("c", 4)], [("c", 1)]],
}


@pytest.fixture(params=["runs", "padded"], autouse=True)
def attention(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Attention by runs, as on the CPU, or padded with few launches, as on CUDA and in compiled graphs."""
    if request.param == "padded":
        monkeypatch.setattr(Packing, "runs_of", staticmethod(lambda mask: ()))
    return str(request.param)


def make_models(config: ModelConfig, dtype: torch.dtype = torch.float64) -> tuple[Mesm, FastMesm]:
    """Return the reference with weights that are nowhere zero, and a fast model over the same parameters."""
    torch.manual_seed(0)
    reference = build_model(config.model_copy(update={"fast": False}), classes=18, max_words=16).to(dtype)
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    fast = accelerate(reference)
    assert isinstance(fast, FastMesm)
    return reference, fast


def make_batch(groups: Sequence[Sequence[tuple[str, int]]], *, context: str = "video", dtype: torch.dtype) -> Batch:
    rng = np.random.default_rng(3)
    items = [[make_item(rng, vid, words) for vid, words in group] for group in groups]
    videos = {
        vid: rng.normal(size=(LENGTHS[vid], DIM + 2)).astype(np.float32)
        for vid in dict.fromkeys(vid for group in groups for vid, _ in group)
    }
    several = len(groups) > 1
    batch = collate(items, videos, framing=Framing(), rng=rng if several else None)
    inputs, targets = in_dtype(batch.inputs, dtype), batch.targets
    if context == "group":  # the videos of two groups each
        rows = [[0, min(1, len(videos) - 1)], [len(videos) - 1]]
        frames = group_context(rows, batch.inputs.video_mask.numpy(), [1, len(batch.queries) - 1])
        inputs = replace(inputs, **frames)
    return replace(batch, inputs=inputs, targets=None if targets is None else in_dtype(targets, dtype))


def with_absent(batch: Batch) -> Batch:
    """Return the batch with targets that let the decoder see negatives; every third of them may have an answer."""
    assert batch.targets is not None
    absent = torch.arange(len(batch.queries)) % 3 != 1
    return replace(batch, targets=replace(batch.targets, absent=absent))


def valid(output: ModelOutput, inputs: Inputs, moments: Tensor | None = None) -> dict[str, Tensor]:
    """Return the outputs without their values at padding. moments: mask (Q, C) of the frames of moments."""
    frames = inputs.video_mask[inputs.video_index]
    found = {f"logits {layer}": x for layer, x in enumerate(output.logits)}
    found |= {f"spans {layer}": x for layer, x in enumerate(output.spans)}
    found["saliency"] = output.saliency[frames]
    found["text"] = output.text[output.text_mask]
    if output.negative_saliency is not None:
        found["negative_saliency"] = output.negative_saliency[frames]
    if output.moments is not None and moments is not None:
        found["moments"] = output.moments[moments]
    if output.negative_logits is not None:
        found |= {f"negative logits {layer}": x for layer, x in enumerate(output.negative_logits)}
    if output.word_logits is not None:
        found["word_logits"] = output.word_logits[inputs.words_mask]
    return found


def total(output: ModelOutput, inputs: Inputs, targets: Targets | None, loss: LossConfig, model: ModelConfig) -> Tensor:
    """Return the training loss, or without targets a number to which every output adds."""
    if targets is None:
        return torch.stack([x.sin().sum() for x in valid(output, inputs).values()]).sum()
    criterion = build_criterion(loss, model)
    return criterion.total(criterion(output, inputs, targets))


def gradients(model: Mesm, value: Tensor) -> dict[str, Tensor | None]:
    model.zero_grad(set_to_none=True)
    value.backward()
    return {name: p.grad for name, p in model.named_parameters()}


def assert_equal(
    config: Config, batch: Batch, models: tuple[Mesm, FastMesm], *, outputs: float = EXACT, grads: float = EXACT
) -> None:
    """Assert that both models give the same outputs and the same gradients of the loss."""
    inputs, targets = batch.inputs, batch.targets
    said, slopes = [], []
    for model in models:
        output = model(inputs, targets)
        said.append(valid(output, inputs, None if targets is None else targets.moment_mask))
        slopes.append(gradients(model, total(output, inputs, targets, config.loss, config.model)))
    reference, fast = said
    assert reference.keys() == fast.keys()
    for name, want in reference.items():
        assert float((fast[name] - want).detach().abs().max()) <= outputs * max(float(want.detach().abs().max()), 1), (
            name
        )
    wanted, found = slopes
    largest = max(float(x.abs().max()) for x in wanted.values() if x is not None)
    for name, gradient in wanted.items():
        ours = found[name]
        assert (gradient is None) == (ours is None), name
        if gradient is not None and ours is not None:
            # The bias of the keys cancels in the softmax. Its gradient is zero, and what is found is rounding.
            small = 10 * SMALL_GRADIENT if name.endswith(KEY_BIASES) else SMALL_GRADIENT
            floor = max(float(gradient.abs().max()), small * largest)
            assert float((ours - gradient).abs().max()) <= grads * floor, name


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_in_float64(preset: str, training: bool) -> None:
    config = preset_config(preset, *WITHOUT_DROPOUT)
    models = make_models(config.model)
    for context in ("video", "group"):
        batch = make_batch(RAGGED, context=context, dtype=torch.float64)
        models[0].train(training)
        assert_equal(config, batch, models)
        assert_equal(config, replace(batch, targets=None), models)


@pytest.mark.parametrize("groups", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("switches", [(), ("frame_word",), ("segment_sentence",), ("frame_word", "segment_sentence")])
@pytest.mark.parametrize("positions", [True, False], ids=["word positions", "no word positions"])
def test_odd_batches_in_float64(
    groups: list[list[tuple[str, int]]], heads: int, switches: tuple[str, ...], positions: bool
) -> None:
    """With one head frames attend to words unprojected, with four heads to more than four words projected."""
    off = [f"model.{switch}=false" for switch in switches]
    shape = [f"model.heads={heads}", "model.decoder_layers=3", f"model.text_positions={str(positions).lower()}"]
    config = preset_config("tacos", *WITHOUT_DROPOUT, *shape, *off)
    models = make_models(config.model)
    models[0].train()
    assert_equal(config, make_batch(groups, dtype=torch.float64), models)


@pytest.mark.parametrize("preset", ["tacos", "charades-vgg-glove", "qvhighlights"])
@pytest.mark.parametrize("off", [(), ("model.segment_sentence=false",)], ids=["reconstruction", "no reconstruction"])
@pytest.mark.parametrize("positions", ["true", "false"], ids=["word positions", "no word positions"])
def test_negatives_of_the_decoder_in_float64(preset: str, off: tuple[str, ...], positions: str) -> None:
    config = preset_config(preset, *WITHOUT_DROPOUT, "loss.absent=2", f"model.text_positions={positions}", *off)
    models = make_models(config.model)
    models[0].train()
    for context in ("video", "group"):
        assert_equal(config, with_absent(make_batch(RAGGED, context=context, dtype=torch.float64)), models)


@pytest.mark.parametrize("preset", ["tacos", "qvhighlights"])
def test_float32_within_the_tolerances_of_parity(preset: str) -> None:
    config = preset_config(preset, *WITHOUT_DROPOUT)
    models = make_models(config.model, torch.float32)
    models[0].train()
    batch = make_batch(RAGGED, dtype=torch.float32)
    assert_equal(config, batch, models, outputs=OUTPUT_TOLERANCE, grads=GRADIENT_TOLERANCE)


def test_an_item_without_frames() -> None:
    config = preset_config("tacos", *WITHOUT_DROPOUT)
    models = make_models(config.model)
    batch = make_batch(RAGGED, dtype=torch.float64)
    assert_equal(config, batch, models)
    empty = batch.inputs.video_mask.clone()
    empty[2] = False
    frames = frame_places(empty.numpy(), batch.inputs.video_index.numpy())
    inputs = replace(batch.inputs, video_mask=empty, **frames)
    with torch.no_grad():
        reference, fast = (model.eval()(inputs) for model in models)
    there = batch.inputs.video_index != 2
    assert torch.allclose(reference.spans[-1][there], fast.spans[-1][there], atol=EXACT)


def test_values_at_padding_are_finite() -> None:
    """Losses may multiply them by a mask (docs/howto-loss.md)."""
    batch = with_absent(make_batch(RAGGED, context="group", dtype=torch.float64))
    for model in make_models(preset_config("tacos", "model.text_positions=true").model):
        output = model.train()(batch.inputs, batch.targets)
        for field in fields(output):
            assert torch.isfinite(getattr(output, field.name)).all(), field.name


def test_a_video_in_every_order_of_queries() -> None:
    """Queries of one video need not be neighbours."""
    config = preset_config("tacos", *WITHOUT_DROPOUT)
    models = make_models(config.model)
    models[0].train()
    batch = make_batch([[("a", 3)], [("b", 4)], [("a", 2)], [("a", 5)], [("b", 1)]], dtype=torch.float64)
    assert batch.inputs.video_index.tolist() == [0, 1, 0, 0, 1]
    assert_equal(config, batch, models)


def by_channel(shape: Sequence[int]) -> Tensor:
    """Return a uint8 dropout mask that depends on the channel alone, so that packed and padded rows share it."""
    return (torch.arange(shape[-1]) % 5 != 3).to(torch.uint8).expand(*shape).contiguous()


@pytest.mark.parametrize("preset", ["tacos", "charades", "qvhighlights"])
def test_dropout_is_applied_at_the_same_places(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (dropout, feedforward):
        monkeypatch.setattr(module, "drop_mask", lambda shape, _: by_channel(shape))
    monkeypatch.setattr(
        nn.Dropout, "forward", lambda self, x: x * by_channel(x.shape) / (1 - self.p) if self.training else x
    )
    changed = ("model.dropout=0.2", "model.input_dropout=0.4", "model.text_positions=true", "loss.absent=2")
    config = preset_config(preset, *changed)
    models = make_models(config.model)
    batch = with_absent(make_batch(RAGGED, context="group", dtype=torch.float64))
    models[0].train()
    assert_equal(config, batch, models)
    trained = models[0](batch.inputs, batch.targets).spans[-1]
    assert not torch.allclose(trained, models[0].eval()(batch.inputs).spans[-1])


def test_dropout_has_the_same_distribution() -> None:
    """Means over many passes agree within five standard errors, and so do spreads on average."""
    layers = ("frame_word", "aligner", "encoder", "decoder", "segment_sentence")
    config = preset_config("charades", *(f"model.{name}_layers=1" for name in layers))
    models = make_models(config.model, torch.float32)
    models[0].train()
    inputs, passes = make_batch(RAGGED, dtype=torch.float32).inputs, 150
    means, spreads = [], []
    for model in models:
        torch.manual_seed(1)
        with torch.no_grad():
            values = torch.stack([valid(model(inputs), inputs)["saliency"] for _ in range(passes)])
        means.append(values.mean(dim=0))
        spreads.append(values.std(dim=0))
    error = (spreads[0] ** 2 + spreads[1] ** 2).sqrt() / passes**0.5
    assert float(((means[0] - means[1]) / error).abs().max()) < 5
    assert torch.allclose(spreads[0].mean(), spreads[1].mean(), rtol=0.1)


def test_other_devices_get_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    reference, fast = make_models(preset_config("tacos").model)
    inputs = make_batch(RAGGED, dtype=torch.float64).inputs
    monkeypatch.setattr(fast_mesm, "DEVICES", {})
    monkeypatch.setattr(fast_mesm, "Packing", None)
    reference.eval()
    assert torch.equal(fast(inputs).spans[-1], reference(inputs).spans[-1])


def test_both_share_parameters_mode_and_hooks() -> None:
    reference, fast = make_models(preset_config("tacos").model)
    assert list(reference.state_dict()) == list(fast.state_dict())
    assert all(a is b for a, b in zip(reference.parameters(), fast.parameters(), strict=True))
    fast.eval()
    assert not reference.training
    called: list[type[nn.Module]] = []
    hook: Callable[..., None] = lambda module, *_: called.append(type(module))  # noqa: E731
    reference.register_forward_hook(hook)
    inputs = make_batch(RAGGED, dtype=torch.float64).inputs
    before = fast(inputs).spans[-1]
    with torch.no_grad():
        reference.span_head.layers[0].weight.mul_(3)
    assert not torch.allclose(fast(inputs).spans[-1], before)
    assert called == [FastMesm, FastMesm]
