"""Attention over packed frames, by runs of equal length and reassociated, equals attention over padded frames."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mesm_core.fast.attention import frames_to_text
from mesm_core.fast.kernels import CPU
from mesm_core.fast.packing import Packing
from mesm_core.model.attention import MultiHeadAttention
from mesm_core.types import ModelOutput
from tests.model.made import VARIANTS, make_batch, make_model

GROUPS = [[("a", 3), ("a", 9), ("a", 2)], [("b", 4)], [("c", 5), ("c", 1)]]


def packing(lengths: list[int]) -> tuple[Packing, Tensor]:
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    index = mask.flatten().nonzero().squeeze(1)
    return Packing(index, len(lengths), max(lengths), runs=Packing.runs_of(mask)), mask


def total(output: ModelOutput, frames: Tensor) -> Tensor:
    """Return a number to which every output that a loss reads adds its share; frames: mask (Q, T)."""
    said = [output.spans, output.logits, output.saliency[frames], output.text]
    said += [] if output.negative_saliency is None else [output.negative_saliency[frames]]
    said += [] if output.word_logits is None else [output.word_logits]
    return torch.stack([x.sin().sum() for x in said]).sum()


def pad_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Packing, "runs_of", staticmethod(lambda mask: ()))


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("heads", [1, 4])
def test_the_model_and_its_gradients_are_those_of_the_padded_one(
    variant: dict[str, object], heads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one head words are few enough to look without projections, with four they are not."""
    model = make_model(**variant, heads=heads).double()
    nn.init.normal_(model.encoder[0].attention.in_proj_bias)
    batch = make_batch(GROUPS, train=True)
    inputs = replace(batch.inputs, video=batch.inputs.video.double(), words=batch.inputs.words.double())
    found, frames = [], inputs.frames_mask
    for padded in (False, True):
        if padded:
            pad_everything(monkeypatch)
        output = model(inputs, batch.targets)
        model.zero_grad()
        total(output, frames).backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        found.append((output, gradients))
    (ours, mine), (theirs, other) = found
    for name in ("saliency", "negative_saliency"):
        assert torch.allclose(getattr(ours, name)[frames], getattr(theirs, name)[frames], atol=1e-9)
    for name in ("spans", "text"):
        assert torch.allclose(getattr(ours, name), getattr(theirs, name), atol=1e-9)
    assert mine.keys() == other.keys()
    for name, gradient in mine.items():
        assert torch.allclose(gradient, other[name], atol=1e-6, rtol=1e-5), name


@pytest.mark.parametrize("words", [1, 4, 5, 9])
def test_frames_see_the_same_words_projected_or_not(words: int) -> None:
    torch.manual_seed(0)
    lengths = [3, 3, 1, 5]
    attention = MultiHeadAttention(dim=8, heads=2).double()
    nn.init.normal_(attention.in_proj_bias)
    nn.init.normal_(attention.out_proj.bias)
    frames, text = torch.randn(12, 8).double(), torch.randn(4, words, 8).double()
    mask = torch.rand(4, words) > 0.3
    mask[1] = False  # a query without a valid word looks at all of them
    ours, _ = packing(lengths)
    assert ours.runs == ((2, 3), (1, 1), (1, 5))
    for valid in (mask, torch.ones_like(mask)):
        seen = frames_to_text(attention, frames, text, text, key_mask=valid, rows=ours)
        reference = ours.pack(attention(ours.pad(frames), text, text, key_mask=valid))
        assert torch.allclose(seen, reference)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(0, 99))
def test_runs_go_apart_and_together(lengths: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    rows, _ = packing(lengths)
    x = torch.randn(sum(lengths), 3)
    parts = rows.split(x)
    assert [len(part) for part in parts] == [count for count, _ in rows.runs]
    assert [length for count, length in rows.runs for _ in range(count)] == lengths
    assert torch.equal(rows.join(parts), x)
    tokens = torch.randn(len(lengths), 3)
    both = rows.split_tokens(torch.cat([tokens, x]))
    assert torch.equal(torch.cat([token.squeeze(1) for token, _ in both]), tokens)
    assert torch.equal(rows.join([frames for _, frames in both]), x)
    assert torch.equal(torch.cat(rows.split_items(tokens)), tokens)
    assert rows.twice().runs == rows.runs * 2


def test_an_item_without_frames_is_padded() -> None:
    assert packing([2, 0, 1])[0].runs == ()


def test_dropout_adds_what_it_keeps() -> None:
    torch.manual_seed(0)
    onto, x = torch.randn(2, 40, 50, requires_grad=True), torch.randn(2, 40, 50, requires_grad=True)
    layer = nn.Dropout(0.4)
    torch.manual_seed(1)
    added = CPU.add_dropped(layer, onto, x)
    torch.manual_seed(1)
    assert torch.allclose(added, onto + CPU.dropout(layer, x))
    upstream = torch.randn_like(added)
    to_onto, to_x = torch.autograd.grad(added, (onto, x), upstream)
    assert torch.equal(to_onto, upstream)
    kept = (added - onto).detach() != 0
    assert torch.allclose(to_x, upstream * kept / 0.6)
    assert torch.equal(CPU.add_dropped(layer.eval(), onto, x), onto + x)
