"""Packed frames whose attention is computed padded: rows of valid positions, and their places in a padded tensor."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

MASKED = -1e30
"""Added to the scores of masked keys. If all keys of an item are masked, their weights are equal, and finite."""


@dataclass(frozen=True)
class Rows:
    """The rows (N, ...) of the valid positions of a padded layout (B, L, ...).

    ``index``: (N,) int64, the positions b·L + l, each once; ``place``: (B·L,) int64, the row of each position, and any
    row at padding.
    """

    index: Tensor
    place: Tensor
    batch: int

    @staticmethod
    def of(index: Tensor, mask: Tensor) -> Rows:
        """Return the rows of a mask (B, L), with ``index`` rising."""
        place = mask.flatten().cumsum(0).sub_(1)
        return Rows(index, place.clamp_(min=0), len(mask))

    def twice(self) -> Rows:
        """Return the layout repeated once: the rows of both halves, one after the other."""
        index = torch.cat([self.index, self.index + len(self.place)])
        return Rows(index, torch.cat([self.place, self.place + len(self.index)]), 2 * self.batch)

    def with_token(self) -> Rows:
        """Return the layout (B, 1 + L), with a token before each item; rows: the B tokens, then the N rows."""
        items = torch.arange(self.batch, device=self.index.device)
        length = len(self.place) // self.batch
        owner = torch.div(self.index, length, rounding_mode="floor")
        index = torch.cat([items * (length + 1), self.index + owner + 1])
        place = torch.cat([items.unsqueeze(1), self.place.view(self.batch, length) + self.batch], dim=1)
        return Rows(index, place.flatten(), self.batch)

    def pad(self, rows: Tensor) -> Tensor:
        """Return (B, L, ...) of (N, ...), with copies of other rows at padding.

        The gradient at padding must be zero: a key there is masked, and the output of a query is left out.
        """
        if torch.compiler.is_compiling():
            return torch.unflatten(rows.index_select(0, self.place), 0, (self.batch, -1))
        out: Tensor = _Pad.apply(rows, self.index, self.place, self.batch)  # type: ignore[no-untyped-call]
        return out

    def pack(self, padded: Tensor) -> Tensor:
        """Return the rows (N, ...) of (B, L, ...)."""
        if torch.compiler.is_compiling():
            return padded.flatten(0, 1).index_select(0, self.index)
        out: Tensor = _Pack.apply(padded, self.index)  # type: ignore[no-untyped-call]
        return out


def attention_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what is added to attention scores, (B, 1, 1, S), of a mask (B, S), True at valid keys.

    Rows are aligned as fused attention needs. Otherwise it would convert and pad the mask in every layer.
    """
    batch, keys = mask.shape
    bias = torch.empty((batch, 1, 1, -(-keys // 8) * 8), dtype=dtype, device=mask.device)[..., :keys]
    if torch.compiler.is_compiling():
        return bias.fill_(MASKED).masked_fill_(mask[:, None, None], 0)
    return torch.where(mask[:, None, None], *_zero_and_masked(dtype, mask.device), out=bias)


@lru_cache(maxsize=16)
def _zero_and_masked(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False):
        zero, masked = torch.tensor([0.0, MASKED], dtype=dtype, device=device).unbind()
    return zero, masked


class _Pack(torch.autograd.Function):
    """Gather rows. Each occurs once, so its gradient is copied; that of ``index_select`` is added."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.shape = padded.shape
        return padded.flatten(0, 1).index_select(0, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        flat = grad.new_zeros(ctx.shape).flatten(0, 1)
        return flat.index_copy_(0, index, grad).view(ctx.shape), None


class _Pad(torch.autograd.Function):
    """Gather rows for every position. Only the valid ones have a gradient."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, place: Tensor, batch: int) -> Tensor:
        ctx.save_for_backward(index)
        return rows.index_select(0, place).view(batch, -1, *rows.shape[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (index,) = ctx.saved_tensors
        return grad.flatten(0, 1).index_select(0, index), None, None, None
