"""The operations in which the fast forward differs between devices, one class for each case."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mesm_core.fast.dropout import dropped, plus_dropped
from mesm_core.fast.feedforward import feedforward
from mesm_core.fast.packing import Packing
from mesm_core.model.layers import FeedForward

DRAWN_AT_ONCE = 1 << 24
"""Least number of values of a dropout mask that are drawn together on CUDA: 64 MB."""


class Kernels:
    """Operations of plain torch, which never wait for the device; for CUDA and for compiled graphs."""

    def dropout(self, layer: nn.Dropout, x: Tensor) -> Tensor:
        """Return ``layer(x)``."""
        out: Tensor = layer(x)
        return out

    def add_dropped(self, layer: nn.Dropout, onto: Tensor, x: Tensor) -> Tensor:
        """Return ``onto + layer(x)``, both of the same shape."""
        return onto + self.dropout(layer, x)

    def scaled_attention(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        """Return attention (B, H, L, w) of split heads; ``bias`` (B, 1, 1, S) is added to the scores."""
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)


class CudaKernels(Kernels):
    """Operations for one forward pass on CUDA: residual dropout in one launch, with masks that are drawn together."""

    def __init__(self) -> None:
        self._pools: dict[float, Tensor] = {}

    def add_dropped(self, layer: nn.Dropout, onto: Tensor, x: Tensor) -> Tensor:
        """Return ``onto + layer(x)``, both of the same shape, in the dtype of ``onto``."""
        if not (layer.training and layer.p):
            return onto + x
        out: Tensor = _AddMasked.apply(onto, x, self._mask(onto, layer.p))  # type: ignore[no-untyped-call]
        return out

    def _mask(self, like: Tensor, p: float) -> Tensor:
        """Return 0 with probability ``p``, else 1 / (1 - p), in the shape and dtype of ``like``."""
        count, pool = like.numel(), self._pools.get(p)
        if pool is None or len(pool) < count:
            pool = like.new_empty(max(count, DRAWN_AT_ONCE)).bernoulli_(1 - p).div_(1 - p)
        self._pools[p] = pool[count:]
        return pool[:count].view(like.shape)


class AutocastCpuKernels(Kernels):
    """Operations for the CPU under autocast: fast dropout, and attention in float32.

    On the CPU the gradient of attention is six times slower in bfloat16 than in float32.
    """

    def dropout(self, layer: nn.Dropout, x: Tensor) -> Tensor:
        """Return ``layer(x)``."""
        return dropped(x, layer.p) if layer.training and layer.p else x

    def add_dropped(self, layer: nn.Dropout, onto: Tensor, x: Tensor) -> Tensor:
        """Return ``onto + layer(x)``, both of the same shape."""
        if layer.training and layer.p and onto.dtype == x.dtype:
            return plus_dropped(onto, x, layer.p)
        return super().add_dropped(layer, onto, x)

    def scaled_attention(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        """Return the same as ``Kernels.scaled_attention``."""
        with torch.autocast("cpu", enabled=False):
            return super().scaled_attention(query.float(), key.float(), value.float(), bias.float())


class CpuKernels(AutocastCpuKernels):
    """Operations for the CPU in float32: attention by runs of equal length, feed-forwards in pieces.

    Args:
        bfloat16: as for ``feedforward``.
    """

    def __init__(self, *, bfloat16: bool = False) -> None:
        self.bfloat16 = bfloat16

    def runs(self, mask: Tensor) -> tuple[tuple[int, int], ...]:
        """Return the runs over which attention to frames with a mask (B, L) is computed; () to compute it padded."""
        return Packing.runs_of(mask)

    def feedforward(self, layer: FeedForward, x: Tensor, activation: nn.PReLU) -> Tensor:
        """Return ``layer(x, activation)``."""
        return feedforward(layer, x, activation, bfloat16=self.bfloat16)

    def scaled_attention(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        """Return the same as ``Kernels.scaled_attention``."""
        return Kernels.scaled_attention(self, query, key, value, bias)

    def weighted_sum(self, queries: Tensor, frames: Tensor, mask: Tensor, pick: Tensor | None) -> Tensor:
        """Return softmax(q xᵀ) x (B, A, D) of queries q (B, A, D) and x (B, S, D).

        Args:
            frames: x; with ``pick`` (B,) int64, a tensor (C, S, D) of which item b attends to ``frames[pick[b]]``.
            mask: (B, S) bool, True where valid; each item has a valid position.
        """
        if pick is None:
            return _weighted_sum(queries, frames, mask)
        # Consecutive items that attend to the same x share one product.
        shared, counts = (x.tolist() for x in torch.unique_consecutive(pick, return_counts=True))
        items = frames.unbind()
        parts = zip(torch.split(queries, counts), torch.split(mask, counts), shared, strict=True)
        return torch.cat([_weighted_sum(q, items[item], m) for q, m, item in parts])


def _weighted_sum(queries: Tensor, frames: Tensor, mask: Tensor) -> Tensor:
    """Return softmax(q xᵀ) x (B, A, D); frames: x (B, S, D), or (S, D) for all items."""
    scores = (queries @ frames.transpose(-2, -1)).masked_fill(~mask.unsqueeze(1), -torch.inf)
    return scores.softmax(dim=-1) @ frames


TORCH, AUTOCAST_CPU, CPU, CPU_BFLOAT16 = Kernels(), AutocastCpuKernels(), CpuKernels(), CpuKernels(bfloat16=True)


def cpu_kernels(*, bfloat16: bool) -> Kernels:
    """Return the kernels for the CPU: for a compiled graph, for autocast, or else the fastest."""
    if torch.compiler.is_compiling():
        return TORCH
    if torch.is_autocast_enabled("cpu"):
        return AUTOCAST_CPU
    return CPU_BFLOAT16 if bfloat16 else CPU


def cuda_kernels(*, bfloat16: bool) -> Kernels:
    """Return the kernels for CUDA; ``bfloat16`` is ignored."""
    return TORCH if torch.compiler.is_compiling() else CudaKernels()


class _AddMasked(torch.autograd.Function):
    """onto + x · mask; ``x`` and its gradient may have another dtype, to which the one kernel converts."""

    @staticmethod
    def forward(ctx: Any, onto: Tensor, x: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(mask)
        ctx.dtype = x.dtype
        return torch.addcmul(onto, x, mask)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        (mask,) = ctx.saved_tensors
        return grad, torch.mul(grad, mask, out=torch.empty_like(grad, dtype=ctx.dtype)), None
