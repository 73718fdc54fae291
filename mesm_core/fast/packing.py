"""Packing of padded tensors (B, L, ...) into the rows (N, ...) of their valid positions."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """The positions of a padded (B, L) layout that have a row.

    ``index``: (N,) int64, the positions b·L + l, each once;
    ``rising``: whether the index rises, so that packing and padding are reshapes if N = B·L;
    ``runs``: (count, length) of consecutive items of equal length, each a tensor without padding; () if attention is
    computed padded.
    """

    index: Tensor
    batch: int
    length: int
    rising: bool = True
    runs: tuple[tuple[int, int], ...] = ()

    @staticmethod
    def runs_of(mask: Tensor) -> tuple[tuple[int, int], ...]:
        """Return the runs of a mask (B, L), or () if an item has no rows. Waits for the device of the mask."""
        lengths = mask.sum(dim=1).tolist()
        return tuple((len(list(run)), length) for length, run in groupby(lengths)) if min(lengths, default=0) else ()

    def split(self, rows: Tensor) -> list[Tensor]:
        """Return each run's (count, length, D) of rows (N, D)."""
        parts = torch.split(rows, [count * length for count, length in self.runs])
        return [x.view(*run, -1) for x, run in zip(parts, self.runs, strict=True)]

    def split_tokens(self, rows: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return each run's (count, 1, D) and (count, length, D) of (B + N, D): one token per item, then the rows."""
        parts = torch.split(
            rows, [*(count for count, _ in self.runs), *(count * length for count, length in self.runs)]
        )
        tokens, frames = parts[: len(self.runs)], parts[len(self.runs) :]
        return [(t.unsqueeze(1), x.view(*run, -1)) for t, x, run in zip(tokens, frames, self.runs, strict=True)]

    def split_items(self, items: Tensor) -> tuple[Tensor, ...]:
        """Return each run's (count, ...) of (B, ...)."""
        parts: tuple[Tensor, ...] = torch.split(items, [count for count, _ in self.runs])
        return parts

    def join(self, parts: list[Tensor]) -> Tensor:
        """Return the (N, D) rows of each run's (count, length, D)."""
        flat = [part.flatten(0, 1) for part in parts]
        return torch.cat(flat) if len(flat) > 1 else flat[0]

    @property
    def whole(self) -> bool:
        """Whether all positions have rows, in order."""
        return self.rising and len(self.index) == self.batch * self.length

    def pack(self, padded: Tensor) -> Tensor:
        """Return the (N, ...) rows of (B, L, ...)."""
        if self.whole:
            return padded.flatten(0, 1)
        out: Tensor = _Pack.apply(padded, self.index)  # type: ignore[no-untyped-call]
        return out

    def pad(self, rows: Tensor) -> Tensor:
        """Return (B, L, ...) of (N, ...), zero at positions without a row."""
        if self.whole:
            return rows.view(self.batch, self.length, *rows.shape[1:])
        out: Tensor = _Pad.apply(rows, self.index, self.batch, self.length)  # type: ignore[no-untyped-call]
        return out

    @property
    def owner(self) -> Tensor:
        """The item b of each row, (N,) int64."""
        return torch.div(self.index, self.length, rounding_mode="floor")

    def twice(self) -> Packing:
        """Return the packing of this layout repeated once."""
        index = torch.cat([self.index, self.index + self.batch * self.length])
        return Packing(index, 2 * self.batch, self.length, self.rising, self.runs * 2)

    def with_token(self) -> Packing:
        """Return the packing of (B, 1 + L), with a token before each item; rows: the B tokens, then the N rows."""
        tokens = torch.arange(self.batch, device=self.index.device) * (self.length + 1)
        index = torch.cat([tokens, self.index + self.owner + 1])
        return Packing(index, self.batch, self.length + 1, rising=False, runs=self.runs)


def _taken(padded: Tensor, index: Tensor) -> Tensor:
    return padded.flatten(0, 1).index_select(0, index)


def _spread(rows: Tensor, index: Tensor, batch: int, length: int) -> Tensor:
    flat = rows.new_zeros(batch * length, *rows.shape[1:])
    return flat.index_copy_(0, index, rows).view(batch, length, *rows.shape[1:])


class _Pack(torch.autograd.Function):
    """Gather rows. Each row occurs once, so its gradient is copied; the gradient of ``index_select`` adds."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.shape = padded.shape[:2]
        return _taken(padded, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return _spread(grad, index, *ctx.shape), None


class _Pad(torch.autograd.Function):
    """Scatter rows; the inverse of ``_Pack``."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, batch: int, length: int) -> Tensor:
        ctx.save_for_backward(index)
        return _spread(rows, index, batch, length)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (index,) = ctx.saved_tensors
        return _taken(grad, index), None, None, None
