"""Residual sublayers with their gradients written out, in fewer kernel launches than autograd takes.

Gradients of the residual are added by the matrix products. Where a bias (D,) is given expanded to all rows, (n, D), its
gradient is not summed over them; ``expanded`` does this for many biases at once. Products are computed in the dtype of
the weights, everything else in that of the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Drop = Callable[[Tensor], tuple[Tensor, Tensor | None, float]]
"""Applies dropout: returns the result, the mask (bool, None for ones), and the factor of kept values."""


def expanded(biases: Sequence[Tensor], rows: int) -> tuple[Tensor, ...]:
    """Return each bias (D,) as (rows, D); their gradients are summed over the rows together."""
    found: tuple[Tensor, ...] = _Expanded.apply(rows, *biases)  # type: ignore[no-untyped-call]
    return found


def residual_linear(onto: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
    """Return onto + mask · (x Wᵀ + b), (n, d) of ``onto`` and ``mask`` (n, d) and x (n, C); mask: None for ones.

    Equals ``onto + dropout(linear(x))`` of an ``nn.Linear`` and an ``nn.Dropout`` that draws ``mask``.
    """
    out: Tensor = _ResidualLinear.apply(onto, x, weight, bias, mask)  # type: ignore[no-untyped-call]
    return out


def linear_and_input(x: Tensor, pos: Tensor | None, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return (x + pos) Wᵀ + b of rows (n, d), and x. The residual starts from this x.

    Equals ``linear(x + pos)`` of an ``nn.Linear``.
    """
    out: tuple[Tensor, Tensor] = _LinearAndInput.apply(x, pos, weight, bias)  # type: ignore[no-untyped-call]
    return out


def residual_feedforward(
    onto: Tensor | None,
    x: Tensor,
    first: tuple[Tensor, Tensor],
    slope: Tensor,
    second: tuple[Tensor, Tensor],
    *,
    drop: Drop,
    mask: Tensor | None,
) -> Tensor:
    """Return onto + mask · (W2 Drop(PReLU(W1 x + b1)) + b2), (n, d).

    Equals ``onto + dropout(feedforward(x))`` of a ``mesm_core.model.layers.FeedForward``.

    Args:
        onto: (n, d), or None for x; first, second: weight and bias; slope: (1,) of the PReLU;
        mask: (n, d), or None for ones.
    """
    out: Tensor = _ResidualFeedForward.apply(onto, x, *first, slope, *second, drop, mask)  # type: ignore[no-untyped-call]
    return out


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.linear(x, weight, bias[0] if bias.ndim == 2 else bias)


def _to_bias(bias: Tensor, grad: Tensor) -> Tensor:
    return grad if bias.ndim == 2 else grad.sum(dim=0)


def _plus(onto: Tensor, x: Tensor, mask: Tensor | None) -> Tensor:
    return onto + x if mask is None else torch.addcmul(onto, x, mask)


def _times(grad: Tensor, mask: Tensor | None, dtype: torch.dtype) -> Tensor:
    if mask is None:
        return grad.to(dtype)
    return torch.mul(grad, mask, out=torch.empty_like(grad, dtype=dtype))


def _plus_product(onto: Tensor | None, a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """Return onto + a b, or a b without ``onto``."""
    if onto is None:
        return torch.mm(a, b).to(dtype)
    return torch.addmm(onto, a, b) if onto.dtype == a.dtype else onto + torch.mm(a, b)


class _Expanded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: int, *biases: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return tuple(bias.detach().expand(rows, -1) for bias in biases)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        given = [grad for grad in grads if grad is not None]
        sums = iter(torch.split(torch.cat(given, dim=1).sum(dim=0), [grad.shape[1] for grad in given]))
        return (None, *(None if grad is None else next(sums) for grad in grads))


class _ResidualLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, onto: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
        ctx.save_for_backward(x.to(weight.dtype), weight, bias, mask)
        ctx.dtype = x.dtype
        return _plus(onto, _linear(ctx.to_save[0], weight, bias), mask)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mask = ctx.saved_tensors
        g = _times(grad, mask, weight.dtype)
        return grad, _plus_product(None, g, weight, ctx.dtype), torch.mm(g.t(), x), _to_bias(bias, g), None


class _LinearAndInput(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, pos: Tensor | None, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        moved = (x if pos is None else x + pos).to(weight.dtype)
        ctx.save_for_backward(moved, weight, bias)
        ctx.dtype = x.dtype
        return _linear(moved, weight, bias), x

    @staticmethod
    def backward(ctx: Any, grad: Tensor, passed: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias = ctx.saved_tensors
        to_pos = _plus_product(None, grad, weight, ctx.dtype) if ctx.needs_input_grad[1] else None
        to_x = _plus_product(passed, grad, weight, ctx.dtype) if to_pos is None else passed + to_pos
        return to_x, to_pos, torch.mm(grad.t(), x), _to_bias(bias, grad)


class _ResidualFeedForward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        onto: Tensor | None,
        x: Tensor,
        w1: Tensor,
        b1: Tensor,
        slope: Tensor,
        w2: Tensor,
        b2: Tensor,
        drop: Drop,
        mask: Tensor | None,
    ) -> Tensor:
        moved = x.to(w1.dtype)
        hidden = _linear(moved, w1, b1)
        active, kept, ctx.factor = drop(F.prelu(hidden, slope))
        ctx.save_for_backward(moved, w1, b1, hidden, slope, w2, b2, active, kept, mask)
        ctx.dtype, ctx.onto_x = x.dtype, onto is None
        return _plus(x if onto is None else onto, _linear(active, w2, b2), mask)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, w1, b1, hidden, slope, w2, b2, active, kept, mask = ctx.saved_tensors
        g = _times(grad, mask, w2.dtype)
        to_hidden = torch.mm(g, w2)
        if kept is not None:
            to_hidden = torch.ops.aten.native_dropout_backward(to_hidden, kept, ctx.factor)
        to_hidden, to_slope = torch.ops.aten._prelu_kernel_backward(to_hidden, hidden, slope.view(1, 1))
        to_x = _plus_product(grad if ctx.onto_x else None, to_hidden, w1, ctx.dtype)
        return (
            None if ctx.onto_x else grad, to_x, torch.mm(to_hidden.t(), x), _to_bias(b1, to_hidden),
            to_slope.sum().view(1), torch.mm(g.t(), active), _to_bias(b2, g), None, None,
        )  # fmt: skip
