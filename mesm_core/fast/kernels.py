"""The operations in which the fast forward differs between devices, one class for each case."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mesm_core.fast.dropout import dropped, plus_dropped
from mesm_core.fast.feedforward import feedforward
from mesm_core.fast.packing import Packing
from mesm_core.model.layers import FeedForward


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
    return TORCH
