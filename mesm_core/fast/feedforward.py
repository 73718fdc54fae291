"""The feed-forward for the CPU, where it takes most of a training step: computed in pieces that fit in the cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mesm_core.fast.dropout import drop_mask
from mesm_core.model.layers import FeedForward

ROWS, CACHED = 2048, 256
LEAST_SLOPE = 1e-3


def feedforward(layer: FeedForward, x: Tensor, activation: nn.PReLU, *, bfloat16: bool = False) -> Tensor:
    """Return W2 Drop(PReLU(W1 x + b1)) + b2, (..., dim) of (..., dim): equals ``layer(x, activation)``.

    Args:
        bfloat16: round the factors of matrix products to bfloat16, and save them so for the backward pass. Products are
            still computed in float32, which is faster on CPUs without AMX.
    """
    weights = layer.linear1.weight, layer.linear1.bias, activation.weight, layer.linear2.weight, layer.linear2.bias
    drop = layer.dropout.p if layer.training else 0.0
    out: Tensor = _Pieces.apply(x.flatten(0, -2), *weights, drop, bfloat16)  # type: ignore[no-untyped-call]
    return out.view_as(x)


def fast_bfloat16() -> bool:
    """Return whether this CPU multiplies bfloat16 matrices faster than float32 ones (AMX)."""
    return bool(torch.cpu.get_capabilities().get("amx_tile", False))


def _slices(rows: int, most: int) -> list[slice]:
    return [slice(first, min(first + most, rows)) for first in range(0, rows, most)]


class _Pieces(torch.autograd.Function):
    """Computes products for ``ROWS`` rows at a time, and elementwise operations for ``CACHED`` rows.

    Saves the input and the PReLU output; zeros mark dropped values. Saves the PReLU input instead of the output if the
    slope is ``LEAST_SLOPE`` or less, because the input cannot be recovered then. With ``half``, saves in bfloat16.
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
        half: bool,
    ) -> Tensor:
        kept_type = torch.bfloat16 if half else x.dtype
        ctx.drop, ctx.scale, ctx.slope = drop, 1 / (1 - drop), float(slope)
        ctx.saves_output = ctx.slope > LEAST_SLOPE
        w1, w2 = w1.to(kept_type).to(w1.dtype), w2.to(kept_type).to(w2.dtype)
        w2 = w2 * ctx.scale if drop else w2
        x = x.to(kept_type)
        learning = any(ctx.needs_input_grad)
        hidden = x.new_empty(len(x) if learning else 0, len(w1))
        out = w2.new_empty(len(x), len(w2))
        spare = w1.new_empty(min(ROWS, len(x)), len(w1))
        in_place = learning and ctx.saves_output and not half
        for piece in _slices(len(x), ROWS):
            active = hidden[piece] if in_place else spare[: piece.stop - piece.start]
            torch.mm(x[piece].to(w1.dtype), w1.t(), out=active)
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
            torch.mm(active, w2.t(), out=out[piece]).add_(b2)
        if learning:
            ctx.save_for_backward(x, w1, w2, hidden)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, w1, w2, hidden = ctx.saved_tensors
        grad = grad.contiguous()
        to_x = w1.new_empty(x.shape)
        to_w1, to_b1, to_w2 = torch.zeros_like(w1), w1.new_zeros(len(w1)), torch.zeros_like(w2)
        to_slope = w1.new_zeros(())
        spares, negatives = w1.new_empty(2, min(ROWS, len(x)), len(w1)), w1.new_empty(CACHED, len(w1))
        for piece in _slices(len(x), ROWS):
            kept, g = hidden[piece], grad[piece]
            active, to_h = spares[:, : len(g)]
            in_cache = _slices(len(g), CACHED)
            if ctx.saves_output and kept.dtype == w1.dtype:
                active = kept
            else:
                for few in in_cache:
                    a = active[few].copy_(kept[few])
                    if not ctx.saves_output:
                        torch.ops.aten.leaky_relu_(a, ctx.slope)
            to_w2.addmm_(g.t(), active)
            torch.mm(g, w2, out=to_h)
            for few in in_cache:
                h, to = active[few] if ctx.saves_output else kept[few].to(w1.dtype), to_h[few]
                if ctx.drop:
                    torch.ops.aten.hardshrink_backward.grad_input(to, h, 0, grad_input=to)
                to_slope += torch.dot(torch.clamp(h, max=0, out=negatives[: len(h)]).view(-1), to.view(-1))
                torch.ops.aten.leaky_relu_backward.grad_input(to, h, ctx.slope, False, grad_input=to)
                to_b1 += to.sum(dim=0)
            to_w1.addmm_(to_h.t(), x[piece].to(w1.dtype))
            torch.mm(to_h, w1, out=to_x[piece])
        if ctx.saves_output:
            to_slope /= ctx.slope
        return to_x, to_w1, to_b1, to_slope.view(1), to_w2 * ctx.scale, grad.sum(dim=0), None, None
