"""Fast dropout for the CPU, where torch draws one Bernoulli number at a time."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

ROW, CACHED = 1 << 10, 1 << 18


def dropped(x: Tensor, p: float) -> Tensor:
    """Return x · mask / (1 - p): equals ``nn.Dropout(p)(x)`` in training, on the CPU."""
    out: Tensor = _Drop.apply(None, x, drop_mask(x.shape, p), 1 / (1 - p))  # type: ignore[no-untyped-call]
    return out


def plus_dropped(onto: Tensor, x: Tensor, p: float) -> Tensor:
    """Return onto + x · mask / (1 - p) in one pass: equals ``onto + nn.Dropout(p)(x)``; same shape and dtype."""
    out: Tensor = _Drop.apply(onto, x, drop_mask(x.shape, p), 1 / (1 - p))  # type: ignore[no-untyped-call]
    return out


def dropped_and_mask(x: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """Return ``dropped(x, p)`` and its mask (bool), True where kept, without a gradient."""
    mask = drop_mask(x.shape, p)
    return _masked(None, x, mask, 1 / (1 - p)), mask.bool()


def drop_mask(shape: Sequence[int], p: float) -> Tensor:
    """Return a uint8 mask on the CPU, 0 with probability ``p`` (255/256 at most), else 1; seeded by torch's generator.

    Random bytes are compared with 256·p, which is 30 times faster than drawing Bernoulli numbers. For every ``ROW``
    values 256·p is rounded up or down at random, so that each value is dropped with probability p.
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
    """``onto + x * mask * scale`` in one pass, in pieces that fit in the cache. Saves only the mask."""

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
