"""Attention between many frames and few others, computed without projecting the frames: the same, multiplied otherwise.

A score q·k with q = Wq x is x·(Wqᵀ k): where a query has few keys, folding Wq into them is cheaper than Wq x for every
frame x. So it is with the output projection, and with Wk and Wv where few look at many. What is kept for the gradient,
weights over the few, is smaller than the projections would be. On the CPU only: many products of small matrices, of
sizes that the host must know.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mesm_core.model.packing import Packing


def fold(x: Tensor, weight: Tensor) -> Tensor:
    """Return (B, H, L, D): each head's rows of x (B, H, L, w) times its (w, D) part of ``weight`` (H·w, D)."""
    batch, heads, length, width = x.shape
    rows = x.transpose(0, 1).reshape(heads, batch * length, width)
    return torch.bmm(rows, weight.view(heads, width, -1)).view(heads, batch, length, -1).transpose(0, 1)


def unfold(x: Tensor, weight: Tensor) -> Tensor:
    """Return (B, L, H·w): each head's rows of x (B, H, L, D) through its part of the projection ``weight`` (H·w, D)."""
    batch, heads, length, dim = x.shape
    rows = x.transpose(0, 1).reshape(heads, batch * length, dim)
    found = torch.bmm(rows, weight.view(heads, -1, dim).transpose(1, 2))
    return found.view(heads, batch, length, -1).permute(1, 2, 0, 3).flatten(2)


def frames_look(
    frames: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor,
    *,
    rows: Packing,
    query: tuple[Tensor, Tensor],
    out: tuple[Tensor, Tensor],
) -> Tensor:
    """Return (N, D): packed frames look at a few keys, projections of queries and output included.

    Args:
        frames: (N, D), as ``rows`` says; keys, values: (B, H, S, w), projected, per head.
        mask: (B, S) bool, True where valid, somewhere in each row.
        query, out: weight (D, D) and bias (D,) of the query's and of the output's projection.
    """
    _, heads, _, width = keys.shape
    keys = keys * width**-0.5
    asked = fold(keys, query[0]).flatten(1, 2)
    bias = (keys * query[1].view(heads, 1, width)).sum(dim=3)
    bias = bias.masked_fill(~mask.unsqueeze(1), -torch.inf).flatten(1).unsqueeze(1)
    # Each head's weights sum to one, so a share of the output's bias in every value adds up to it.
    told = (fold(values, out[0].t().contiguous()) + out[1] / heads).flatten(1, 2)
    found = []
    for x, a, b, t in zip(rows.split(frames), *(rows.split_items(y) for y in (asked, bias, told)), strict=True):
        scores = torch.baddbmm(b, x, a.transpose(1, 2))
        weights = scores.view(*x.shape[:2], heads, -1).softmax(dim=-1).flatten(2)
        found.append(weights @ t)
    return rows.join(found)


def few_look(pairs: Sequence[tuple[Tensor, Tensor, Tensor]], *, rows: Packing) -> Tensor:
    """Return (B, H, A, D): what A rows an item see of the first pair's frames, by the scores of all pairs added.

    Args:
        pairs: asked (B, H, A, w), scaled, the frames that it asks (N, D), packed as ``rows`` says, and the weight
            (H·w, D) that would project those.
    """
    shape = pairs[0][0].shape[:3]
    asked = [rows.split_items(fold(a, weight).flatten(1, 2)) for a, _, weight in pairs]
    seen = [rows.split(frames) for _, frames, _ in pairs]
    found = []
    for number, values in enumerate(seen[0]):
        scores = asked[0][number] @ values.transpose(1, 2)
        for a, s in zip(asked[1:], seen[1:], strict=True):
            scores = torch.baddbmm(scores, a[number], s[number].transpose(1, 2))
        found.append(scores.softmax(dim=-1) @ values)
    return torch.cat(found).view(*shape, -1)


def frames_times(frames: Tensor, items: Tensor, *, rows: Packing, weight: Tensor, bias: Tensor) -> Tensor:
    """Return (N, 1): each packed frame (N, D), projected by weight (E, D) and bias (E,), times its item's (B, E)."""
    asked, more = (items @ weight).unsqueeze(2), (items @ bias).view(-1, 1, 1)
    parts = zip(rows.split(frames), rows.split_items(asked), rows.split_items(more), strict=True)
    return rows.join([torch.baddbmm(b, x, a) for x, a, b in parts])
