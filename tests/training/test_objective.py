"""The model and its losses as one module, and as one compiled graph."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from mesm_core.build import build_criterion
from mesm_core.config.load import load_config
from mesm_core.losses.criterion import Criterion
from mesm_core.training.objective import Objective
from tests.model.made import make_batch, make_model

# Groups of (video, words). Sizes of different kinds that are equal in the first batch would be taken for the same size.
GROUPS = [
    [[("a", 3), ("a", 11), ("a", 2), ("a", 6)], [("b", 4)], [("c", 7), ("c", 5)]],
    [[("a", 5)], [("b", 2), ("b", 7), ("b", 3)]],
    [[("b", 6), ("b", 2)], [("a", 3)], [("c", 4), ("c", 5)]],
    [[("a", 2), ("a", 3)], [("c", 8)]],
]


def objective() -> Objective:
    config = load_config("tacos")
    torch.manual_seed(0)
    model = make_model().train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return Objective(model, build_criterion(config.loss, config.model))


def numbers(losses: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: float(value.detach()) for name, value in losses.items()}


def test_losses_are_those_of_the_model_and_end_with_their_sum() -> None:
    ours = objective()
    batch = make_batch(GROUPS[0], train=True)
    losses, output = ours(batch.inputs, batch.targets)
    criterion: Criterion = ours.criterion
    expected = criterion(output, batch.inputs, batch.targets)
    assert numbers(losses) == pytest.approx(numbers(expected | {"loss": criterion.total(expected)}))
    assert set(ours.parameters()) == set(ours.model.parameters())


def test_losses_are_computed_in_float32_under_autocast() -> None:
    ours = objective()
    batch = make_batch(GROUPS[0], train=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses, _ = ours(batch.inputs, batch.targets)
    assert {value.dtype for value in losses.values()} == {torch.float32}


@pytest.mark.slow
def test_batches_of_many_sizes_make_one_graph() -> None:
    from torch._dynamo.testing import CompileCounter

    torch._dynamo.reset()
    counter = CompileCounter()
    ours = objective()
    compiled = torch.compile(ours, backend=counter, dynamic=True)
    for group in GROUPS:
        batch = make_batch(group, train=True)
        losses, _ = compiled(batch.inputs, batch.targets)
        expected, _ = ours(batch.inputs, batch.targets)
        assert numbers(losses) == pytest.approx(numbers(expected), rel=1e-4)
    assert counter.frame_count == 1
    torch._dynamo.reset()
