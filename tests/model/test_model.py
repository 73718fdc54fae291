"""The model and its losses where batches are empty, alone, odd; and that a batch's company changes nothing."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mesm_core.build import build_criterion
from mesm_core.data.collate import Framing, collate
from mesm_core.losses.matching import match
from mesm_core.losses.saliency import negative_loss, rank_loss, triplet_loss
from mesm_core.losses.spans import generalized_iou, label_loss, span_loss
from mesm_core.model.attention import MultiHeadAttention, attend, attend_among_few
from mesm_core.model.positions import frame_positions
from mesm_core.types import Inputs, Targets
from tests.conftest import small_config
from tests.model.made import DIM, TEXT, VARIANTS, make_batch, make_item, make_model


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_company_changes_nothing(variant: dict[str, object]) -> None:
    model = make_model(**variant)
    groups = [[("a", 3), ("a", 9)], [("b", 1)], [("c", 4)]]
    with torch.inference_mode():
        together = model(make_batch(groups).inputs)
        rng, alone = np.random.default_rng(3), []
        for group in groups:
            items = [make_item(rng, vid, words) for vid, words in group]
            for item in items:
                length = {"a": 7, "b": 12, "c": 1}[item.query.vid]
                video = np.random.default_rng(ord(item.query.vid)).normal(size=(length, DIM + 2)).astype(np.float32)
                alone.append(model(collate([[item]], {item.query.vid: video}, framing=Framing(), rng=None).inputs))
    for query, single in enumerate(alone):
        frames = single.saliency.shape[1]
        assert torch.allclose(together.spans[-1][query], single.spans[-1][0], atol=1e-5)
        assert torch.allclose(together.logits[-1][query], single.logits[-1][0], atol=1e-5)
        assert torch.allclose(together.saliency[query, :frames], single.saliency[0], atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_training_step_is_finite_in_odd_batches(variant: dict[str, object]) -> None:
    config = small_config()
    model = make_model(**variant).train()
    model_config = config.model.model_copy(update=variant)
    criterion = build_criterion(config.loss, model_config)
    for windows in ((2.0, 5.0), (0.0, 10.0)):  # the second covers the whole video: no negative frame
        batch = make_batch([[("a", 1)], [("c", 2), ("c", 16)]], train=True, windows=windows)
        assert batch.targets is not None
        assert batch.targets.triplet_mask.tolist() == ([True, False, False] if windows[0] else [False] * 3)
        losses = criterion(model(batch.inputs, batch.targets), batch.inputs, batch.targets)
        total = criterion.total(losses)
        total.backward()
        assert torch.isfinite(total)
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_words_that_are_all_padding_give_finite_answers() -> None:
    inputs = make_batch([[("a", 3)], [("b", 2)]]).inputs
    nothing = replace(inputs, words=torch.zeros_like(inputs.words), words_mask=torch.zeros_like(inputs.words_mask))
    longer = replace(nothing, words=torch.zeros(2, 9, TEXT), words_mask=torch.zeros(2, 9, dtype=torch.bool))
    for variant in VARIANTS[:3]:
        model = make_model(**variant)
        with torch.inference_mode():
            a, b = model(nothing), model(longer)
        assert torch.isfinite(a.spans[-1]).all()
        assert torch.allclose(a.spans[-1], b.spans[-1], atol=1e-5)


def test_forward_draws_nothing_in_evaluation() -> None:
    model, batch = make_model(), make_batch([[("a", 3)], [("b", 2)]], train=True)
    with torch.inference_mode():
        first, second = model(batch.inputs, batch.targets), model(batch.inputs, batch.targets)
        plain = model(batch.inputs)
    assert torch.equal(first.spans[-1], second.spans[-1])
    assert torch.allclose(first.spans[-1], plain.spans[-1], atol=1e-6)
    assert plain.negative_saliency is None
    assert plain.word_logits is None


def test_group_context_looks_at_every_clip() -> None:
    inputs = make_batch([[("a", 3)], [("b", 2)]]).inputs
    frames = inputs.video_mask.flatten().nonzero().T
    shared = replace(
        inputs,
        context=frames,
        context_mask=torch.ones_like(frames, dtype=torch.bool),
        context_index=torch.zeros(2, dtype=torch.int64),
    )
    with torch.inference_mode():
        own, both = make_model()(inputs).text[:, 0], make_model()(shared).text[:, 0]  # the reconstructions
    assert torch.allclose(both[0], both[1])
    assert not torch.allclose(own[0], own[1])


def tensors_of(part: Inputs | Targets) -> dict[str, torch.Tensor]:
    return {field.name: value for field in fields(part) if (value := getattr(part, field.name)) is not None}


def test_a_moved_batch_has_every_tensor_on_the_new_device() -> None:
    batch = make_batch([[("a", 3)], [("b", 2)]], train=True)
    frames = batch.inputs.video_mask.flatten().nonzero().T
    context = {"context": frames, "context_mask": frames >= 0, "context_index": torch.zeros(2, dtype=torch.int64)}
    assert batch.targets is not None
    targets = replace(batch.targets, absent=torch.tensor([True, False]))
    batch = replace(batch, inputs=replace(batch.inputs, **context), targets=targets)
    moved = batch.to(torch.device("meta"))
    assert moved.targets is not None
    assert moved.queries == batch.queries
    for before, after in ((batch.inputs, moved.inputs), (batch.targets, moved.targets)):
        assert tensors_of(after).keys() == tensors_of(before).keys() == {field.name for field in fields(before)}
        for name, tensor in tensors_of(after).items():
            original = tensors_of(before)[name]
            assert (tensor.device.type, original.device.type) == ("meta", "cpu"), name
            assert (tensor.shape, tensor.dtype) == (original.shape, original.dtype), name


def test_a_packed_batch_moves_by_one_copy_and_keeps_every_value() -> None:
    batch = make_batch([[("a", 3)], [("b", 2)]], train=True)
    packed = batch.packed(lambda size: torch.empty(size, dtype=torch.uint8))
    moved = packed.to(torch.device("meta"))
    assert packed.buffer is not None
    assert moved.buffer is not None
    for before, after, there in (
        (batch.inputs, packed.inputs, moved.inputs),
        (batch.targets, packed.targets, moved.targets),
    ):
        for name, tensor in tensors_of(before).items():
            assert torch.equal(tensors_of(after)[name], tensor), name
            assert tensors_of(there)[name].shape == tensor.shape, name
            for part, whole in ((after, packed.buffer), (there, moved.buffer)):
                assert tensors_of(part)[name].untyped_storage().nbytes() == len(whole), name


@pytest.mark.cuda
def test_cuda_agrees_with_cpu() -> None:
    batch, model = make_batch([[("a", 3)], [("b", 2)]], train=True), make_model()
    with torch.inference_mode():
        cpu = model(batch.inputs)
        cuda = model.to("cuda")(batch.to(torch.device("cuda")).inputs)
    assert torch.allclose(cpu.spans[-1], cuda.spans[-1].cpu(), atol=1e-4)


def test_attention_is_torchs() -> None:
    torch.manual_seed(1)
    ours = MultiHeadAttention(dim=8, heads=2)
    theirs = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    q, k = torch.randn(3, 4, 8), torch.randn(3, 5, 8)
    mask = torch.tensor([[True] * 5, [True, False, True, False, False], [True] * 3 + [False] * 2])
    want = theirs(q, k, k, key_padding_mask=~mask, need_weights=False)[0]
    assert torch.allclose(ours(q, k, k, key_mask=mask), want, atol=1e-6)
    few = attend_among_few(q, q, q, heads=2)
    assert torch.allclose(few, attend(q, q, q, heads=2, key_mask=None), atol=1e-6)


def test_attention_without_queries_is_empty() -> None:
    attention = MultiHeadAttention(dim=8, heads=2)
    nothing = torch.zeros(0, 3, 8)
    assert attention(nothing, nothing, nothing, key_mask=torch.ones(0, 3, dtype=torch.bool)).shape == (0, 3, 8)


def test_frame_positions_ignore_padding() -> None:
    short = frame_positions(torch.tensor([[True, True]]), 8)
    long = frame_positions(torch.tensor([[True, True, False]]), 8)
    assert torch.allclose(short, long[:, :2])


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 5), st.integers(1, 3), st.integers(0, 99))
def test_matching_is_the_cheapest_assignment(slots: int, windows: int, seed: int) -> None:
    windows = min(windows, slots)
    cost = torch.from_numpy(np.random.default_rng(seed).normal(size=(1, slots, windows)))
    found = match(cost, torch.ones(1, windows, dtype=torch.bool))[0]
    best = min(sum(cost[0, s, w] for w, s in enumerate(p)) for p in permutations(range(slots), windows))
    assert sum(cost[0, s, w] for w, s in enumerate(found)) == pytest.approx(float(best))


def test_matching_leaves_padding_alone() -> None:
    cost = torch.tensor([[[1.0, -9.0], [0.0, -9.0]], [[0.0, 5.0], [0.0, 1.0]]])
    mask = torch.tensor([[True, False], [True, True]])
    assert match(cost, mask).tolist() == [[1, 0], [0, 1]]


def test_hand_computed_losses() -> None:
    one = torch.ones(1, 1, dtype=torch.bool)
    matched = torch.tensor([[[0.3, 9.0]], [[0.1, 9.0]]])  # of two layers; the second window does not count
    assert span_loss(matched, torch.tensor([[1.0, 0.0]])).tolist() == pytest.approx([0.15, 0.05])
    assert generalized_iou(torch.tensor([0.0, 1.0]), torch.tensor([2.0, 3.0])).item() == pytest.approx(-1 / 3)
    even = torch.zeros(1, 2, 2)
    label = label_loss(even.unsqueeze(0), torch.tensor([[[0]]]), one, eos_coef=0.1)
    assert label.item() == pytest.approx(np.log(2) * 1.1 / 2)
    frames = torch.ones(1, 2, dtype=torch.bool)
    assert negative_loss(torch.zeros(1, 2), frames).item() == pytest.approx(2 * np.log(2))
    zero = torch.zeros(1, 2)
    rank = rank_loss(zero, zero, torch.tensor([[1.0, 0.0]]), frames)
    assert rank.item() == pytest.approx(np.log(4), abs=1e-5)
    score = torch.tensor([[1.0, 0.9]])
    pair = torch.tensor([[0, 0]]), torch.tensor([[1, 1]])
    assert triplet_loss(score, *pair, torch.tensor([True]), margin=0.2).item() == pytest.approx(0.2)
    assert triplet_loss(score, *pair, torch.tensor([False]), margin=0.2).item() == 0


def test_inputs_are_documented() -> None:
    for field in fields(Inputs):
        assert f"``{field.name}``" in (Inputs.__doc__ or "")
