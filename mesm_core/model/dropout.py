"""Dropout; on the CPU without torch's serial Bernoulli draws."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 1 << 16


class Dropout(nn.Module):
    """Zeroes values with probability ``p`` in training and scales the rest by 1 / (1 - p); any shape."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with values dropped, in training."""
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return F.dropout(x, self.p)
        out: Tensor = _Drop.apply(x, drop_mask(x.shape, self.p), 1 / (1 - self.p))  # type: ignore[no-untyped-call]
        return out


def drop_mask(shape: Sequence[int], p: float) -> Tensor:
    """Return a uint8 mask on the CPU, 0 with probability ``p`` (to 1/65536), else 1; seeded by torch's generator.

    torch draws one Bernoulli number at a time on the CPU: 15 times slower than 64 random bits for four of them.
    """
    count = prod(shape)
    seed = int(torch.randint(1 << 62, (1,)))
    words = np.random.Generator(np.random.SFC64(seed)).integers(0, 1 << 64, size=-(-count // 4), dtype=np.uint64)
    bits = torch.from_numpy(words.view(np.int16))[:count].view(*shape)
    return (bits >= round(p * LEVELS) - LEVELS // 2).view(torch.uint8)


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(mask)
        ctx.scale = scale
        return (x * mask).mul_(scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (mask,) = ctx.saved_tensors
        return (grad * mask).mul_(ctx.scale), None, None
