"""The feed-forward for the CPU, where it takes most of a training step: computed in pieces that fit in the cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mesm_core.fast.bfloat16 import Types, add_product, dot
from mesm_core.fast.dropout import drop_mask
from mesm_core.model.layers import FeedForward

ROWS, CACHED = 2048, 256
LEAST_SLOPE = 1e-3


def feedforward(layer: FeedForward, x: Tensor, activation: nn.PReLU, types: Types | None = None) -> Tensor:
    """Return W2 Drop(PReLU(W1 x + b1)) + b2, (..., dim) of (..., dim): equals ``layer(x, activation)``.

    Args:
        types: ``ROUNDED`` or ``BFLOAT16``; default: the dtype of ``x``, as in the layer.
    """
    weights = layer.linear1.weight, layer.linear1.bias, activation.weight, layer.linear2.weight, layer.linear2.bias
    drop = layer.dropout.p if layer.training else 0.0
    types = types or Types(x.dtype, x.dtype)
    out: Tensor = _Pieces.apply(x.flatten(0, -2), *weights, drop, types)  # type: ignore[no-untyped-call]
    return out.view_as(x)


def _slices(rows: int, most: int) -> list[slice]:
    return [slice(first, min(first + most, rows)) for first in range(0, rows, most)]


class _Pieces(torch.autograd.Function):
    """Computes products for ``ROWS`` rows at a time, and elementwise operations for ``CACHED`` rows.

    Saves the input and the PReLU output; zeros mark dropped values. Saves the PReLU input instead of the output if the
    slope is ``LEAST_SLOPE`` or less, because the input cannot be recovered then. Gradients of weights are summed in
    float32.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        w1: Tensor,
        b1: Tensor,
        slope: Tensor,
        w2: Tensor,
        b2: Tensor,
        drop: float,
        types: Types,
    ) -> Tensor:
        saved, multiplied = types
        ctx.drop, ctx.scale, ctx.slope = drop, 1 / (1 - drop), float(slope)
        ctx.saves_output = ctx.slope > LEAST_SLOPE
        out = x.new_empty(len(x), len(w2))
        w1, w2 = w1.to(saved).to(multiplied), w2.to(saved).to(multiplied)
        w2 = w2 * ctx.scale if drop else w2
        b1, x = b1.to(multiplied), x.to(saved)
        learning = any(ctx.needs_input_grad)
        hidden = x.new_empty(len(x) if learning else 0, len(w1))
        spare = w1.new_empty(min(ROWS, len(x)), len(w1))
        in_place = learning and ctx.saves_output and saved == multiplied
        for piece in _slices(len(x), ROWS):
            active = hidden[piece] if in_place else spare[: piece.stop - piece.start]
            torch.mm(x[piece].to(multiplied), w1.t(), out=active)
            mask = drop_mask(active.shape, drop) if drop else None
            for few in _slices(len(active), CACHED):
                h = active[few].add_(b1)
                if mask is not None:
                    h.mul_(mask[few])
                if learning and not ctx.saves_output:
                    hidden[piece][few] = h
                torch.ops.aten.leaky_relu_(h, ctx.slope)
                if learning and ctx.saves_output and not in_place:
                    hidden[piece][few] = h
            if multiplied == out.dtype:
                torch.mm(active, w2.t(), out=out[piece]).add_(b2)
            else:
                torch.add(torch.mm(active, w2.t()), b2, out=out[piece])
        if learning:
            ctx.multiplied = multiplied
            ctx.save_for_backward(x, w1, w2, hidden)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, w1, w2, hidden = ctx.saved_tensors
        multiplied, grad = ctx.multiplied, grad.contiguous()
        to_x = grad.new_empty(x.shape)
        to_w1, to_b1, to_w2 = grad.new_zeros(w1.shape), grad.new_zeros(len(w1)), grad.new_zeros(w2.shape)
        to_slope = grad.new_zeros(())
        spares, negatives = w1.new_empty(2, min(ROWS, len(x)), len(w1)), w1.new_empty(CACHED, len(w1))
        for piece in _slices(len(x), ROWS):
            kept, g = hidden[piece], grad[piece].to(multiplied)
            active, to_h = spares[:, : len(g)]
            in_cache = _slices(len(g), CACHED)
            if ctx.saves_output and kept.dtype == multiplied:
                active = kept
            else:
                for few in in_cache:
                    a = active[few].copy_(kept[few])
                    if not ctx.saves_output:
                        torch.ops.aten.leaky_relu_(a, ctx.slope)
            add_product(to_w2, g.t(), active)
            torch.mm(g, w2, out=to_h)
            for few in in_cache:
                h, to = active[few] if ctx.saves_output else kept[few].to(multiplied), to_h[few]
                if ctx.drop:
                    torch.ops.aten.hardshrink_backward.grad_input(to, h, 0, grad_input=to)
                to_slope += dot(torch.clamp(h, max=0, out=negatives[: len(h)]), to)
                torch.ops.aten.leaky_relu_backward.grad_input(to, h, ctx.slope, False, grad_input=to)
                to_b1 += to.sum(dim=0, dtype=to_b1.dtype)
            add_product(to_w1, to_h.t(), x[piece].to(multiplied))
            if multiplied == to_x.dtype:
                torch.mm(to_h, w1, out=to_x[piece])
            else:
                to_x[piece] = torch.mm(to_h, w1)
        if ctx.saves_output:
            to_slope /= ctx.slope
        return to_x, to_w1, to_b1, to_slope.view(1), to_w2 * ctx.scale, grad.sum(dim=0), None, None
