"""The feed-forward, where a training step spends most of its time: on the CPU in pieces that stay in the cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mesm_core.model.dropout import Dropout, drop_mask
from mesm_core.model.packing import on_cpu

ROWS = 1024


class FeedForward(nn.Module):
    """Linear -> PReLU -> Dropout -> Linear; the PReLU is the caller's, so that two can share it.

    ``keeps_bfloat16``: on the CPU, round the products' factors to bfloat16 and keep them so for the backward pass,
    without autocast; products are computed in float32, which is the faster way on a CPU without AMX.
    """

    keeps_bfloat16 = False

    def __init__(self, *, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim, hidden)
        self.linear2 = nn.Linear(hidden, dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, activation: nn.PReLU) -> Tensor:
        """Return (..., dim) of (..., dim)."""
        if on_cpu(x):
            weights = self.linear1.weight, self.linear1.bias, activation.weight, self.linear2.weight, self.linear2.bias
            drop = self.dropout.p if self.training else 0.0
            out: Tensor = _Pieces.apply(x.flatten(0, -2), *weights, drop, self.keeps_bfloat16)  # type: ignore[no-untyped-call]
            return out.view_as(x)
        plain: Tensor = self.linear2(self.dropout(activation(self.linear1(x))))
        return plain


def fast_bfloat16() -> bool:
    """Return whether this CPU multiplies bfloat16 matrices faster than float32 ones (AMX)."""
    return bool(torch.cpu._is_amx_tile_supported())


def _pieces(rows: int) -> list[tuple[slice, int]]:
    return [(slice(first, first + ROWS), min(ROWS, rows - first)) for first in range(0, rows, ROWS)]


class _Pieces(torch.autograd.Function):
    """Forward and backward over ``ROWS`` rows at a time.

    Kept for the backward pass: the input, what PReLU saw with dropped values as zeros (PReLU keeps those), and one byte
    a value of dropout's mask; the rest is computed again, in the cache. With ``half`` the kept values are bfloat16, and
    so rounded are the products' factors.
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
        ctx.scale = 1 / (1 - drop)
        w1, w2 = w1.to(kept_type).to(w1.dtype), w2.to(kept_type).to(w2.dtype)
        w2 = w2 * ctx.scale if drop else w2
        x = x.to(kept_type)
        learning = any(ctx.needs_input_grad)
        hidden = x.new_empty(len(x) if learning else 0, len(w1))
        mask = drop_mask((len(x), len(w1)), drop) if drop else None
        out, spare = w2.new_empty(len(x), len(w2)), w1.new_empty(ROWS, len(w1))
        for piece, rows in _pieces(len(x)):
            h = hidden[piece] if learning and not half else spare[:rows]
            torch.mm(x[piece].to(w1.dtype), w1.t(), out=h).add_(b1)
            if mask is not None:
                h.mul_(mask[piece])
            if learning and half:
                hidden[piece] = h
            active = torch.ops.aten.leaky_relu.out(h, float(slope), out=spare[:rows])
            torch.mm(active, w2.t(), out=out[piece]).add_(b2)
        if learning:
            ctx.save_for_backward(x, w1, slope, w2, hidden, *([] if mask is None else [mask]))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, w1, slope, w2, hidden, *mask = ctx.saved_tensors
        grad = grad.contiguous()
        to_x = w1.new_empty(x.shape)
        to_w1, to_b1, to_w2 = torch.zeros_like(w1), w1.new_zeros(len(w1)), torch.zeros_like(w2)
        to_slope = w1.new_zeros(())
        spares = w1.new_empty(2, ROWS, len(w1))
        for piece, rows in _pieces(len(x)):
            h, g = hidden[piece].to(w1.dtype), grad[piece]
            active, spare = spares[0, :rows], spares[1, :rows]
            to_w2.addmm_(g.t(), torch.ops.aten.leaky_relu.out(h, float(slope), out=active))
            to_active = torch.mm(g, w2, out=active)
            if mask:
                to_active.mul_(mask[0][piece])
            to_slope += torch.dot(torch.clamp(h, max=0, out=spare).view(-1), to_active.view(-1))
            to_h = torch.ops.aten.leaky_relu_backward.grad_input(to_active, h, float(slope), False, grad_input=spare)
            to_w1.addmm_(to_h.t(), x[piece].to(w1.dtype))
            to_b1 += to_h.sum(dim=0)
            torch.mm(to_h, w1, out=to_x[piece])
        return to_x, to_w1, to_b1, to_slope.view(1), to_w2 * ctx.scale, grad.sum(dim=0), None, None
