"""The optimiser for CUDA makes the steps of AdamW, and its state can be exchanged with AdamW's."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mesm_core.errors import CheckpointError
from mesm_core.training.flat import FlatAdamW
from mesm_core.training.optim import clip_gradients, load_optimizer, set_learning_rate

SETTINGS = {"lr": 0.01, "weight_decay": 0.1}
Optimizer = torch.optim.AdamW


def make_pair() -> tuple[nn.Module, nn.Module, FlatAdamW, Optimizer]:
    """Return two models with the same weights, the optimiser of the first, and AdamW of the second."""
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(7, 5), nn.PReLU(), nn.LayerNorm(5), nn.Linear(5, 1))
    theirs = copy.deepcopy(ours)
    return ours, theirs, FlatAdamW(ours.parameters(), **SETTINGS), plain(theirs)


def plain(model: nn.Module) -> Optimizer:
    return Optimizer(model.parameters(), **SETTINGS, fused=True)


def train(model: nn.Module, optimizer: Optimizer, *, seed: int, most: float = 0.05, skip: bool = False) -> float:
    """Make a step, without the gradient of the PReLU if ``skip``; return the norm of the gradient."""
    optimizer.zero_grad()
    model(torch.randn(9, 7, generator=torch.Generator().manual_seed(seed))).square().sum().backward()
    if skip:
        model[1].weight.grad = None
    norm = float(clip_gradients(optimizer, most))
    optimizer.step()
    return norm


def assert_same(ours: nn.Module, theirs: nn.Module) -> None:
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-7)


def test_steps_are_those_of_adamw() -> None:
    ours, theirs, flat, adamw = make_pair()
    for seed in range(5):
        for optimizer in (flat, adamw):
            set_learning_rate(optimizer, 0.01 / (1 + seed))
        assert train(ours, flat, seed=seed) == pytest.approx(train(theirs, adamw, seed=seed), rel=1e-5)
        assert_same(ours, theirs)


def test_a_model_that_was_moved_is_not_left_untrained() -> None:
    model, _, flat, _ = make_pair()
    model.double().float()
    with pytest.raises(RuntimeError, match="after the model was moved"):
        train(model, flat, seed=0)


def test_a_step_without_clipping_takes_the_gradients_themselves() -> None:
    ours, theirs, flat, adamw = make_pair()
    for model, optimizer in ((ours, flat), (theirs, adamw)):
        model(torch.ones(2, 7)).sum().backward()
        optimizer.step()
    assert_same(ours, theirs)


@pytest.mark.parametrize("to_flat", [True, False], ids=["from AdamW", "to AdamW"])
def test_training_continues_from_the_state_of_the_other_optimiser(to_flat: bool) -> None:
    ours, theirs, flat, adamw = make_pair()
    for seed in range(3):
        train(ours, flat, seed=seed)
        train(theirs, adamw, seed=seed)
    if to_flat:
        other: Optimizer = FlatAdamW(theirs.parameters(), **SETTINGS)
        load_optimizer(other, adamw.state_dict(), source="last.pt")
        model, rest, still = theirs, ours, flat
    else:
        other = plain(ours)
        load_optimizer(other, flat.state_dict(), source="last.pt")
        model, rest, still = ours, theirs, adamw
    for seed in range(3, 6):
        train(model, other, seed=seed)
        train(rest, still, seed=seed)
    assert_same(model, rest)


def test_loading_does_not_change_what_is_loaded() -> None:
    ours, _, flat, _ = make_pair()
    train(ours, flat, seed=0)
    state = copy.deepcopy(flat.state_dict())
    flat.load_state_dict(state)
    train(ours, flat, seed=1)
    assert {float(kept["step"]) for kept in state["state"].values()} == {1.0}
    assert {float(kept["step"]) for kept in flat.state_dict()["state"].values()} == {2.0}


def test_a_parameter_without_gradient_is_left_as_it_is() -> None:
    ours, theirs, flat, adamw = make_pair()
    for seed in range(6):
        for model, optimizer in ((ours, flat), (theirs, adamw)):
            train(model, optimizer, seed=seed, skip=seed in (2, 3))
        assert_same(ours, theirs)
    assert sorted({float(kept["step"]) for kept in flat.state_dict()["state"].values()}) == [4.0, 6.0]
    again = FlatAdamW(ours.parameters(), **SETTINGS)
    again.load_state_dict(copy.deepcopy(flat.state_dict()))  # counts that differ
    for model, optimizer in ((ours, again), (theirs, adamw)):
        train(model, optimizer, seed=7)
    assert_same(ours, theirs)


def test_a_moment_of_another_shape_is_refused() -> None:
    ours, _, flat, _ = make_pair()
    train(ours, flat, seed=0)
    state = copy.deepcopy(flat.state_dict())
    state["state"][0]["exp_avg"] = torch.zeros(1, 7)
    with pytest.raises(CheckpointError, match="another shape"):
        load_optimizer(flat, state, source="last.pt")
