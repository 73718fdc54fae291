"""Residual sublayers with written-out gradients equal those of autograd, in float64, and are near in bfloat16."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mesm_core.fast.sublayers import expanded, linear_and_input, residual_feedforward, residual_linear

ROWS, DIM, HIDDEN = 5, 4, 6


def made(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64).to(dtype).requires_grad_()


def some_mask(seed: int, *shape: int) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.7).double() / 0.7


def compare(ours: Callable[..., tuple[Tensor, ...]], theirs: Callable[..., tuple[Tensor, ...]], *given: Tensor) -> None:
    """Assert that outputs and gradients of two functions of the same tensors agree."""
    found, wanted = ours(*given), theirs(*given)
    upstream = [torch.randn_like(x) for x in wanted]
    for a, b in zip(found, wanted, strict=True):
        assert torch.allclose(a, b, atol=1e-12)
    slopes = [torch.autograd.grad(out, given, upstream) for out in (found, wanted)]
    for a, b in zip(*slopes, strict=True):
        assert a.shape == b.shape
        assert torch.allclose(a, b, atol=1e-12)


@pytest.mark.parametrize("masked", [True, False])
def test_a_linear_layer_added_to_a_residual(masked: bool) -> None:
    torch.manual_seed(0)
    mask = some_mask(1, ROWS, DIM) if masked else None
    factor = 1.0 if mask is None else mask
    compare(
        lambda onto, x, w, b: (residual_linear(onto, x, w, b, mask),),
        lambda onto, x, w, b: (onto + factor * F.linear(x, w, b),),
        made(ROWS, DIM), made(ROWS, 3), made(DIM, 3), made(DIM),
    )  # fmt: skip


def test_a_linear_layer_and_the_residual_that_starts_from_its_input() -> None:
    torch.manual_seed(0)
    x, pos, weight, bias = made(ROWS, DIM), made(ROWS, DIM), made(3, DIM), made(3)
    compare(linear_and_input, lambda x, p, w, b: (F.linear(x + p, w, b), x), x, pos, weight, bias)
    fixed = pos.detach()
    compare(
        lambda x, w, b: linear_and_input(x, fixed, w, b), lambda x, w, b: (F.linear(x + fixed, w, b), x),
        x, weight, bias,
    )  # fmt: skip
    compare(lambda x, w, b: linear_and_input(x, None, w, b), lambda x, w, b: (F.linear(x, w, b), x), x, weight, bias)


@pytest.mark.parametrize("dropped", [True, False])
@pytest.mark.parametrize("own", [True, False], ids=["onto its input", "onto another"])
def test_a_feedforward_added_to_a_residual(own: bool, dropped: bool) -> None:
    torch.manual_seed(0)
    kept, mask = some_mask(1, ROWS, HIDDEN), some_mask(2, ROWS, DIM)

    def drop(x: Tensor) -> tuple[Tensor, Tensor | None, float]:
        return (x * kept, kept.bool(), 1 / 0.7) if dropped else (x, None, 1.0)

    def plain(onto: Tensor, x: Tensor, w1: Tensor, b1: Tensor, a: Tensor, w2: Tensor, b2: Tensor) -> tuple[Tensor]:
        hidden = F.prelu(F.linear(x, w1, b1), a)
        return ((x if own else onto) + 0 * onto + mask * F.linear(drop(hidden)[0], w2, b2),)

    def ours(onto: Tensor, x: Tensor, w1: Tensor, b1: Tensor, a: Tensor, w2: Tensor, b2: Tensor) -> tuple[Tensor]:
        found = residual_feedforward(None if own else onto, x, (w1, b1), a, (w2, b2), drop=drop, mask=mask)
        return (found + 0 * onto,)

    compare(
        ours, plain, made(ROWS, DIM), made(ROWS, DIM), made(HIDDEN, DIM), made(HIDDEN), made(1), made(DIM, HIDDEN),
        made(DIM),
    )  # fmt: skip


def test_gradients_of_expanded_biases_are_summed_and_those_that_are_not_used_are_zero() -> None:
    torch.manual_seed(0)
    onto, x, weight = made(ROWS, DIM), made(ROWS, 3), made(DIM, 3)
    biases = made(DIM), made(HIDDEN), made(DIM)

    def ours(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor]:
        first, _, last = expanded([a, b, c], ROWS)
        y = residual_linear(onto, x, weight, first, None)
        return (residual_linear(y, x, weight, last, None) + 0 * b.sum(),)

    compare(ours, lambda a, b, c: (onto + F.linear(x, 2 * weight, a + c) + 0 * b.sum(),), *biases)


def test_products_are_in_the_dtype_of_the_weights_and_the_residual_in_its_own() -> None:
    torch.manual_seed(0)
    half, single = torch.bfloat16, torch.float32
    x, onto = made(ROWS, DIM, dtype=single), made(ROWS, DIM, dtype=single)
    w1, b1, w2, b2 = made(HIDDEN, DIM), made(HIDDEN), made(DIM, HIDDEN), made(DIM)
    slope = torch.full((1,), 0.3, requires_grad=True)

    def no_drop(x: Tensor) -> tuple[Tensor, Tensor | None, float]:
        return x, None, 1.0

    given = [value.to(half) for value in (w1, b1, slope, w2, b2)]
    exact = [value.to(single) for value in (w1, b1, slope, w2, b2)]
    results = []
    for a, b, s, c, d in (given, exact):
        q, passed = linear_and_input(x, None, a, b)
        assert q.dtype == a.dtype
        y = residual_linear(onto, q, c, d, None)
        y = residual_feedforward(None, y + passed, (a, b), s, (c, d), drop=no_drop, mask=None)
        assert y.dtype == single
        results.append([y, *torch.autograd.grad(y.square().sum(), (x, onto, w1, b1, slope, w2, b2))])
    for near, wanted in zip(*results, strict=True):
        assert near.dtype == wanted.dtype
        assert torch.allclose(near, wanted, atol=0.05 * float(wanted.detach().abs().max()))
