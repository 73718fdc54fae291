"""The operations in which the fast forward differs between devices, one class for each case."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mesm_core.fast.bfloat16 import BFLOAT16, ROUNDED, Types, linear
from mesm_core.fast.dropout import dropped, dropped_and_mask, plus_dropped
from mesm_core.fast.feedforward import feedforward
from mesm_core.fast.packing import Packing
from mesm_core.model.layers import FeedForward

DRAWN_AT_ONCE = 1 << 24
"""Least number of values of a dropout mask that are drawn together on CUDA: 64 MB."""


class Kernels:
    """Operations of plain torch, which never wait for the device; for compiled graphs and under autocast."""

    def dropout(self, layer: nn.Dropout, x: Tensor) -> Tensor:
        """Return ``layer(x)``."""
        out: Tensor = layer(x)
        return out

    def add_dropped(self, layer: nn.Dropout, onto: Tensor, x: Tensor) -> Tensor:
        """Return ``onto + layer(x)``, both of the same shape."""
        return onto + self.dropout(layer, x)

    def drop(self, layer: nn.Dropout, x: Tensor) -> tuple[Tensor, Tensor | None, float]:
        """Return ``layer(x)``, its mask (bool), and the factor of kept values; no gradient. Mask: None for ones."""
        if not (layer.training and layer.p):
            return x, None, 1.0
        return *torch.native_dropout(x, layer.p, train=True), 1 / (1 - layer.p)

    def residual_mask(self, layer: nn.Dropout, like: Tensor) -> Tensor | None:
        """Return 0 with the probability of ``layer``, else 1 / (1 - p), in the shape of ``like``; None for ones."""
        return layer(torch.ones_like(like)) if layer.training and layer.p else None

    def scaled_attention(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        """Return attention (B, H, L, w) of split heads; ``bias`` (B, 1, 1, S) is added to the scores."""
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)


class CudaKernels(Kernels):
    """Operations for one forward pass on CUDA, with masks of residual dropout that are drawn together."""

    def __init__(self) -> None:
        self._pools: dict[float, Tensor] = {}

    def residual_mask(self, layer: nn.Dropout, like: Tensor) -> Tensor | None:
        """Return 0 with the probability of ``layer``, else 1 / (1 - p), in the shape of ``like``; None for ones."""
        p = layer.p
        if not (layer.training and p):
            return None
        count, pool = like.numel(), self._pools.get(p)
        if pool is None or len(pool) < count:
            pool = like.new_empty(max(count, DRAWN_AT_ONCE)).bernoulli_(1 - p).div_(1 - p)
        self._pools[p] = pool[count:]
        return pool[:count].view(like.shape)


class CpuKernels(Kernels):
    """Operations for the CPU: fast dropout, attention by runs of equal length, feed-forwards in pieces.

    Args:
        types: as for ``feedforward``.
    """

    def __init__(self, types: Types | None = None) -> None:
        self.types = types

    def runs(self, mask: Tensor) -> tuple[tuple[int, int], ...]:
        """Return the runs over which attention to frames with a mask (B, L) is computed; () to compute it padded."""
        return Packing.runs_of(mask)

    def dropout(self, layer: nn.Dropout, x: Tensor) -> Tensor:
        """Return ``layer(x)``."""
        return dropped(x, layer.p) if layer.training and layer.p else x

    def add_dropped(self, layer: nn.Dropout, onto: Tensor, x: Tensor) -> Tensor:
        """Return ``onto + layer(x)``, both of the same shape."""
        return plus_dropped(onto, x, layer.p) if layer.training and layer.p else onto + x

    def drop(self, layer: nn.Dropout, x: Tensor) -> tuple[Tensor, Tensor | None, float]:
        """Return ``layer(x)``, its mask (bool), and the factor of kept values; no gradient. Mask: None for ones."""
        return (*dropped_and_mask(x, layer.p), 1 / (1 - layer.p)) if layer.training and layer.p else (x, None, 1.0)

    def residual_mask(self, layer: nn.Dropout, like: Tensor) -> Tensor | None:
        """Return 0 with the probability of ``layer``, else 1 / (1 - p), in the shape of ``like``; None for ones."""
        return dropped_and_mask(torch.ones_like(like), layer.p)[0] if layer.training and layer.p else None

    def feedforward(self, layer: FeedForward, x: Tensor, activation: nn.PReLU) -> Tensor:
        """Return ``layer(x, activation)``."""
        return feedforward(layer, x, activation, self.types)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return ``F.linear(x, weight, bias)``, for many rows."""
        return linear(x, weight, bias) if self.types == BFLOAT16 else F.linear(x, weight, bias)

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


TORCH, CPU = Kernels(), CpuKernels()
CPU_BFLOAT16 = {types: CpuKernels(types) for types in (ROUNDED, BFLOAT16)}


def cpu_kernels(*, types: Types | None) -> Kernels:
    """Return the kernels for the CPU: those of plain torch for a compiled graph and under autocast, else the fastest.

    Args:
        types: as for ``feedforward``.
    """
    if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return TORCH
    return CPU if types is None else CPU_BFLOAT16[types]


def cuda_kernels(*, types: Types | None) -> Kernels:
    """Return the kernels for CUDA; ``types`` is ignored."""
    return TORCH if torch.compiler.is_compiling() else CudaKernels()
