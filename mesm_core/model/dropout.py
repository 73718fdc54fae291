"""Dropout; on the CPU without torch's serial Bernoulli draws."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROW, CACHED = 1 << 10, 1 << 18


class Dropout(nn.Module):
    """Zeroes values with probability ``p`` in training and scales the rest by 1 / (1 - p); any shape."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with values dropped, in training."""
        if not self.training or self.p == 0:
            return x
        if self._torchs_own(x):
            return F.dropout(x, self.p)
        return self._dropped(None, x)

    def add(self, onto: Tensor, x: Tensor) -> Tensor:
        """Return ``onto`` plus ``x`` with values dropped; both of one shape."""
        if not self.training or self.p == 0 or self._torchs_own(x) or onto.dtype != x.dtype:
            return onto + self.forward(x)
        return self._dropped(onto, x)

    def _torchs_own(self, x: Tensor) -> bool:
        return x.device.type != "cpu" or torch.compiler.is_compiling()

    def _dropped(self, onto: Tensor | None, x: Tensor) -> Tensor:
        out: Tensor = _Drop.apply(onto, x, drop_mask(x.shape, self.p), 1 / (1 - self.p))  # type: ignore[no-untyped-call]
        return out


def drop_mask(shape: Sequence[int], p: float) -> Tensor:
    """Return a uint8 mask on the CPU, 0 with probability ``p`` (255/256 at most), else 1; seeded by torch's generator.

    torch draws one Bernoulli number at a time on the CPU: 30 times slower than 64 random bits for eight of them. A
    random byte is compared with p·256, rounded up or down by chance for every ``ROW`` values, so that each value's
    probability is p.
    """
    count = prod(shape)
    mask = np.empty((-(-count // ROW), ROW), np.bool_)
    generator = np.random.Generator(np.random.SFC64(int(torch.randint(1 << 62, (1,)))))
    levels = np.floor(p * 256 + generator.random((len(mask), 1))).clip(max=255).astype(np.uint8)
    for first in range(0, len(mask), CACHED // ROW):
        rows = slice(first, first + CACHED // ROW)
        words = generator.integers(0, 1 << 64, size=mask[rows].size // 8, dtype=np.uint64)
        np.greater_equal(words.view(np.uint8).reshape(-1, ROW), levels[rows], out=mask[rows])
    return torch.from_numpy(mask.view(np.uint8)).view(-1)[:count].view(*shape)


class _Drop(torch.autograd.Function):
    """``onto + x * mask * scale`` in one go, a cache's worth at a time."""

    @staticmethod
    def forward(ctx: Any, onto: Tensor | None, x: Tensor, mask: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(mask)
        ctx.scale, ctx.adds = scale, onto is not None
        return _masked(onto, x, mask, scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        (mask,) = ctx.saved_tensors
        return grad if ctx.adds else None, _masked(None, grad, mask, ctx.scale), None, None


def _masked(onto: Tensor | None, x: Tensor, mask: Tensor, scale: float) -> Tensor:
    out = torch.empty(x.shape, dtype=x.dtype)
    flat, xs, masks = out.view(-1), x.reshape(-1), mask.view(-1)
    base = None if onto is None else onto.reshape(-1)
    for first in range(0, len(flat), CACHED):
        piece = slice(first, first + CACHED)
        factors = masks[piece].to(x.dtype)
        if base is None:
            torch.mul(xs[piece], factors.mul_(scale), out=flat[piece])
        else:
            torch.addcmul(base[piece], xs[piece], factors, value=scale, out=flat[piece])
    return out
