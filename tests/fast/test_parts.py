"""The parts that make a step fast compute what the plain ones do."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mesm_core.bench import measure
from mesm_core.bench.flops import forward_flops
from mesm_core.build import build_model
from mesm_core.config.load import load_config
from mesm_core.fast import bfloat16
from mesm_core.fast import feedforward as pieces
from mesm_core.fast.attention import token_to_frames
from mesm_core.fast.bfloat16 import BFLOAT16, ROUNDED, Types, fast_bfloat16, linear
from mesm_core.fast.dropout import drop_mask
from mesm_core.fast.feedforward import feedforward
from mesm_core.fast.kernels import CPU, CudaKernels
from mesm_core.fast.packing import Packing
from mesm_core.model.attention import MultiHeadAttention
from mesm_core.model.layers import FeedForward
from mesm_core.training import precision as precisions
from mesm_core.training.precision import use_precision
from tests.model.made import make_batch, make_model


@pytest.mark.parametrize("slope", [0.25, 1.5, 1e-4, 0.0, -0.3])
@pytest.mark.parametrize("rows", [1, 7, 8, 20])
def test_feedforward_in_pieces_is_the_plain_one(rows: int, slope: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "ROWS", 8)
    monkeypatch.setattr(pieces, "CACHED", 3)
    torch.manual_seed(0)
    layer, activation = FeedForward(dim=6, hidden=10, dropout=0.3).double().eval(), nn.PReLU(init=slope).double()
    x = torch.randn(2, rows, 6, dtype=torch.float64, requires_grad=True)
    parameters = [x, activation.weight, *layer.parameters()]
    upstream = torch.randn(2, rows, 6, dtype=torch.float64)
    ours = torch.autograd.grad(feedforward(layer, x, activation), parameters, upstream)
    theirs = torch.autograd.grad(layer(x, activation), parameters, upstream)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("slope", [0.25, -0.3])
def test_feedforward_with_dropout_has_the_gradient_of_what_it_computed(
    slope: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "ROWS", 3)
    monkeypatch.setattr(pieces, "CACHED", 2)
    torch.manual_seed(0)
    layer, activation = FeedForward(dim=3, hidden=4, dropout=0.5).double().train(), nn.PReLU(init=slope).double()

    def seeded(x: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(5)
        return feedforward(layer, x, activation)

    assert torch.autograd.gradcheck(seeded, torch.randn(5, 3, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize("types", [ROUNDED, BFLOAT16])
@pytest.mark.parametrize("slope", [0.25, -0.3])
def test_feedforward_in_bfloat16_is_near(slope: float, types: Types, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "ROWS", 4)
    monkeypatch.setattr(pieces, "CACHED", 2)
    torch.manual_seed(0)
    layer, activation = FeedForward(dim=16, hidden=32, dropout=0.0), nn.PReLU(init=slope)
    x = torch.randn(9, 16, requires_grad=True)
    parameters = [x, activation.weight, *layer.parameters()]
    exact = feedforward(layer, x, activation)
    wanted = torch.autograd.grad(exact.square().sum(), parameters)
    near = feedforward(layer, x, activation, types)
    got = torch.autograd.grad(near.square().sum(), parameters)
    assert near.dtype == torch.float32
    assert torch.allclose(near, exact, atol=0.02)
    for a, b in zip(got, wanted, strict=True):
        assert torch.allclose(a, b, atol=0.05 * float(b.abs().max()))
    assert not torch.equal(near, exact)


def test_linear_in_bfloat16_multiplies_rounded_factors() -> None:
    torch.manual_seed(0)
    x, weight, bias = (torch.randn(*shape, requires_grad=True) for shape in ((2, 5, 16), (8, 16), (8,)))
    for values in ((x, weight, bias), (x, weight)):
        rounded = [value.bfloat16().float() for value in values[:2]]
        wanted, found = F.linear(*rounded, *values[2:]), linear(*values, *([None] * (3 - len(values))))
        assert found.dtype == torch.float32
        assert torch.allclose(found, wanted, atol=0.03)
        upstream = torch.randn_like(found).bfloat16().float()
        for a, b in zip(*(torch.autograd.grad(y, values, upstream) for y in (found, wanted)), strict=True):
            assert torch.allclose(a, b, atol=0.02 * float(b.abs().max()))


def test_bfloat16_is_fast_if_its_product_takes_less_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {torch.float32: 1.0}
    monkeypatch.setattr(bfloat16, "_seconds_of_product", lambda dtype: seconds[dtype])
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    for taken, fast in ((0.5, True), (0.9, False)):
        seconds[torch.bfloat16] = taken
        assert fast_bfloat16.__wrapped__() is fast
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    monkeypatch.setattr(bfloat16, "_seconds_of_product", lambda _: pytest.fail("it can take seconds"))
    assert fast_bfloat16.__wrapped__() is False


@settings(max_examples=20, deadline=None)
@given(st.floats(0.01, 0.9), st.integers(0, 1000))
def test_dropout_drops_its_share_and_keeps_the_mean(p: float, seed: int) -> None:
    torch.manual_seed(seed)
    x = torch.ones(300, 100, requires_grad=True)
    out = CPU.dropout(nn.Dropout(p), x)
    share = float((out == 0).float().mean())
    assert share == pytest.approx(p, abs=0.02)
    assert float(out.detach().max()) == pytest.approx(1 / (1 - p))
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert torch.equal(grad, out)


def test_dropout_is_drawn_from_torchs_generator() -> None:
    torch.manual_seed(3)
    first = drop_mask((3, 5), 0.5)
    torch.manual_seed(3)
    assert torch.equal(first, drop_mask((3, 5), 0.5))
    assert not torch.equal(drop_mask((50, 50), 0.5), drop_mask((50, 50), 0.5))
    assert torch.equal(CPU.dropout(nn.Dropout(0.5).eval(), torch.ones(4)), torch.ones(4))
    assert drop_mask((0, 4), 0.5).shape == (0, 4)


def test_each_value_is_dropped_with_the_asked_probability() -> None:
    """Bytes tell 256 probabilities apart; a row's level is drawn so that the mean is the one between."""
    torch.manual_seed(0)
    for p in (0.1, 0.3, 0.002):
        masks = torch.stack([drop_mask((4, 1024), p) for _ in range(600)]).float()
        assert 1 - float(masks.mean()) == pytest.approx(p, abs=4 * (p / masks.numel()) ** 0.5)
        assert float(masks.mean(dim=0).var()) == pytest.approx(p * (1 - p) / 600, rel=0.15)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.integers(0, 99))
def test_packing_goes_there_and_back(lengths: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    longest = max(*lengths, 1)
    mask = torch.arange(longest)[None] < torch.tensor(lengths)[:, None]
    rows = Packing(mask.flatten().nonzero().squeeze(1), len(lengths), longest)
    padded = torch.randn(len(lengths), longest, 2) * mask[..., None]
    packed = rows.pack(padded)
    assert torch.equal(packed, padded[mask])
    assert torch.equal(rows.pad(packed), padded)
    assert torch.equal(rows.twice().pad(torch.cat([packed, -packed])), torch.cat([padded, -padded]))
    tokens = torch.full((len(lengths), 2), 9.0)
    with_token = rows.with_token().pad(torch.cat([tokens, packed]))
    assert torch.equal(with_token[:, 0], tokens)
    assert torch.equal(with_token[:, 1:], padded)
    x = packed.clone().requires_grad_()
    (grad,) = torch.autograd.grad((rows.pad(x) * padded).sum(), x)
    assert torch.equal(grad, packed)


def test_a_lone_query_sees_what_many_see() -> None:
    torch.manual_seed(0)
    attention = MultiHeadAttention(dim=8, heads=2)
    nn.init.normal_(attention.in_proj_bias)
    seen = torch.randn(3, 5, 8)
    mask = torch.tensor([[True] * 5, [True, False, True, False, False], [False] * 5])
    query = torch.randn(4, 1, 8)
    pick = torch.tensor([2, 0, 1, 1])
    reference = attention(query, seen[pick], seen[pick], key_mask=mask[pick])
    lone = token_to_frames(CPU, attention, query, seen, key_mask=mask[pick], pick=pick)
    assert torch.allclose(lone, reference, atol=1e-6)


def test_residual_dropout_of_cuda_drops_with_the_asked_probability() -> None:
    torch.manual_seed(0)
    kernels, layer = CudaKernels(), nn.Dropout(0.3)
    like = torch.zeros(80, 50)
    mask = kernels.residual_mask(layer, like)
    assert mask is not None
    kept = mask != 0
    assert float(kept.float().mean()) == pytest.approx(0.7, abs=0.03)
    assert torch.allclose(mask, kept / 0.7)
    assert not torch.equal(mask, kernels.residual_mask(layer, like))
    assert kernels.residual_mask(layer.eval(), like) is None


@pytest.mark.parametrize("fast", [False, True])
def test_precisions_train_alike(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precisions, "fast_bfloat16", lambda: fast)
    batch = make_batch([[("a", 3), ("a", 9)], [("b", 4)]], train=True)
    totals = {}
    for precision in ("fp32", "tf32", "bf16"):
        torch.manual_seed(0)
        config = load_config("tacos", overrides=[
            "model.video_dim=12", "model.text_dim=8", "model.hidden_dim=16", "model.heads=2", "model.slots=4",
            "model.dropout=0", "model.input_dropout=0",
        ])  # fmt: skip
        model = build_model(config.model, classes=16, max_words=16).train()
        with use_precision(model, torch.device("cpu"), precision) as numbers, numbers:
            output = model(batch.inputs, batch.targets).float()
        totals[precision] = torch.cat([output.spans[-1].flatten(), output.saliency[batch.inputs.frames_mask]])
        totals[precision].sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert torch.equal(totals["fp32"], totals["tf32"])  # TF32 is CUDA's
    assert not torch.equal(totals["fp32"], totals["bf16"])
    assert torch.allclose(totals["fp32"], totals["bf16"], atol=0.1)
    torch.set_float32_matmul_precision("highest")


def test_useful_operations_are_those_of_the_plain_modules() -> None:
    """One query of one video has no padding. The plain modules project the frames again for SS-MESM's four layers."""
    config = load_config("tacos", overrides=["model.video_dim=64", "model.text_dim=32", "model.fast=false"])
    model = build_model(config.model, classes=20, max_words=16).eval().requires_grad_(False)
    from mesm_core.bench.sizes import InventedText
    from mesm_core.data.collate import Framing, Item, collate
    from mesm_core.types import Query

    text = InventedText(config)
    for frames, words in ((90, 7), (30, 12)):
        sentence = " ".join(["w"] * words)
        item = Item(Query(1, "v", sentence, 9.0), text.features(sentence))
        batch = collate([[item]], {"v": torch.rand(frames, 66).numpy()}, framing=Framing(), rng=None)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(batch.inputs)
        d = config.model.hidden_dim
        again = 2 * frames * (66 * d + d * d) + 4 * 2 * frames * (2 * d * d + 2 * d - 4 * d * config.model.heads)
        counted = forward_flops(config.model, frames=frames, words=words)
        assert counted + again == pytest.approx(counter.get_total_flops(), rel=0.02)


@pytest.mark.slow
def test_batches_of_many_sizes_make_few_graphs() -> None:
    from torch._dynamo.testing import CompileCounter

    torch._dynamo.reset()
    counter = CompileCounter()
    torch.manual_seed(0)
    model = make_model().train()
    compiled = torch.compile(model, backend=counter, dynamic=True)
    groups = [
        [[("a", 3), ("a", 9), ("a", 2)], [("b", 4)]],  # equal sizes would be taken for the same size
        [[("a", 5)], [("b", 2), ("b", 7), ("b", 3)]],
        [[("b", 6), ("b", 2)], [("a", 3)], [("c", 4), ("c", 5)]],
        [[("a", 2), ("a", 3)], [("c", 8)]],
    ]
    graphs = []
    for batch in (make_batch(group, train=True) for group in groups):
        output = compiled(batch.inputs, batch.targets)
        assert torch.isfinite(output.saliency).all()
        graphs.append(counter.frame_count)
    assert graphs[-1] == graphs[0] == 1
    compiled.eval()
    batch = make_batch(groups[0])
    assert torch.allclose(compiled(batch.inputs).spans[-1], model(batch.inputs).spans[-1], atol=1e-5)
    torch._dynamo.reset()


BENCH = ["bench", "--steps", "1", "--threads", "1", "--set", "model.video_dim=16", "--set", "model.hidden_dim=16",
         "--set", "model.dim_feedforward=16", "--set", "dataset.max_frames=20"]  # fmt: skip


def test_bench(mesm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The real product takes seconds each time.
    monkeypatch.setattr(measure, "seconds_of_product", partial(measure.seconds_of_product, size=64, repeats=2))
    first = mesm(*BENCH, "--dataset", "tacos", "--json")
    assert first.code == 0, first.err
    result = json.loads(first.out)
    for part in ("training", "evaluation"):
        assert result[part]["queries"] > 0
        assert result[part]["queries_per_s"] > 0
        assert result[part]["products_per_query"] > 0
    assert 0 <= result["training"]["waiting_for_data"] <= 1
    assert result["peak_memory_mb"] > 50
    (tmp_path / "before.json").write_text(first.out)
    again = mesm(*BENCH, "--precision", "bf16", "--compare", tmp_path / "before.json")
    assert "now/then" in again.out
    assert "bf16" in again.out
    (tmp_path / "other.json").write_text("{}")
    assert "not the output of `mesm bench --json`" in mesm(*BENCH, "--compare", tmp_path / "other.json").err
    assert "Did you mean 'tacos'" in mesm("bench", "--dataset", "tacoss").err


def test_relu_of_torch_is_not_what_feedforward_uses() -> None:
    layer, activation = FeedForward(dim=2, hidden=2, dropout=0.0).eval(), nn.PReLU(init=0.5)
    x = torch.randn(3, 2)
    hidden = F.linear(x, layer.linear1.weight, layer.linear1.bias)
    want = F.linear(torch.where(hidden > 0, hidden, hidden * 0.5), layer.linear2.weight, layer.linear2.bias)
    assert torch.allclose(layer(x, activation), want, atol=1e-6)
    assert torch.allclose(feedforward(layer, x, activation), want, atol=1e-6)
