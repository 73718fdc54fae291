"""Attention between many frames and few others, computed without projecting the frames: the same, multiplied otherwise.

A score q·k with q = Wq x is x·(Wqᵀ k): where a query has few keys, folding Wq into them is cheaper than Wq x for every
frame x. So it is with the output projection, and with Wk and Wv where few look at many. What is kept for the gradient,
weights over the few, is smaller than the projections would be. On the CPU only: many products of small matrices, of
sizes that the host must know.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
    found: Tensor = _Looked.apply(frames, asked, bias, told, heads, rows)  # type: ignore[no-untyped-call]
    return found


class _Looked(torch.autograd.Function):
    """Packed frames (N, D) among (B, heads·S, D) ``asked`` and ``told``, a run at a time, each written in its place.

    Autograd's own way joins the runs behind the forward pass and again behind the backward one, a copy each.
    """

    @staticmethod
    def forward(
        ctx: Any, frames: Tensor, asked: Tensor, bias: Tensor, told: Tensor, heads: int, rows: Packing
    ) -> Tensor:
        found, kept = torch.empty_like(frames), []
        runs = zip(
            rows.split(frames), *(rows.split_items(y) for y in (asked, bias, told)), rows.split(found), strict=True
        )
        for x, a, b, t, out in runs:
            scores = torch.baddbmm(b, x, a.transpose(1, 2)).view(*x.shape[:2], heads, -1)
            kept.append(scores.softmax(dim=-1).flatten(2))
            torch.bmm(kept[-1], t, out=out)
        ctx.heads, ctx.rows = heads, rows
        ctx.save_for_backward(frames, asked, told, *kept)
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        frames, asked, told, *kept = ctx.saved_tensors
        rows, grad = ctx.rows, grad.contiguous()
        to_frames, to_asked, to_told = (torch.empty_like(x) for x in (frames, asked, told))
        to_bias = asked.new_empty(len(asked), 1, asked.shape[1])
        seen = zip(kept, *(rows.split(x) for x in (grad, frames, to_frames)), strict=True)
        items = zip(*(rows.split_items(x) for x in (asked, told, to_asked, to_told, to_bias)), strict=True)
        for (weights, g, x, to_x), (a, t, to_a, to_t, to_b) in zip(seen, items, strict=True):
            torch.bmm(weights.transpose(1, 2), g, out=to_t)
            to_weights, each_head = (
                y.view(*x.shape[:2], ctx.heads, -1) for y in (torch.bmm(g, t.transpose(1, 2)), weights)
            )
            to_scores = torch.ops.aten._softmax_backward_data(to_weights, each_head, -1, weights.dtype).flatten(2)
            torch.bmm(to_scores, a, out=to_x)
            torch.bmm(to_scores.transpose(1, 2), x, out=to_a)
            torch.sum(to_scores, dim=1, keepdim=True, out=to_b)
        return to_frames, to_asked, to_bias, to_told, None, None


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
