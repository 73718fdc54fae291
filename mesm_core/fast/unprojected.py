"""Attention between many frames and few tokens without projecting the frames, reassociated: q·k = x·(Wqᵀk).

Here q = Wq x is the query of a frame x, and k is a key. With few keys, computing Wqᵀk costs less than Wq x for every
frame. The same holds for the output projection, and for Wk and Wv if few queries attend to many frames. The attention
weights saved for the backward pass are also smaller than the projections would be. For the CPU, because each run is a
separate product whose size the host must know.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mesm_core.fast.packing import Packing


def fold(x: Tensor, weight: Tensor) -> Tensor:
    """Return x_h W_h for each head h, (B, H, L, D) of x (B, H, L, w) and ``weight`` (H·w, D)."""
    batch, heads, length, width = x.shape
    rows = x.transpose(0, 1).reshape(heads, batch * length, width)
    return torch.bmm(rows, weight.view(heads, width, -1)).view(heads, batch, length, -1).transpose(0, 1)


def unfold(x: Tensor, weight: Tensor) -> Tensor:
    """Return x_h W_hᵀ, heads joined: (B, L, H·w) of x (B, H, L, D) and ``weight`` (H·w, D)."""
    batch, heads, length, dim = x.shape
    rows = x.transpose(0, 1).reshape(heads, batch * length, dim)
    found = torch.bmm(rows, weight.view(heads, -1, dim).transpose(1, 2))
    return found.view(heads, batch, length, -1).permute(1, 2, 0, 3).flatten(2)


def frames_attend_to_few(
    frames: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor,
    *,
    rows: Packing,
    query: tuple[Tensor, Tensor],
    out: tuple[Tensor, Tensor],
) -> Tensor:
    """Return (N, D): Wo concat_h softmax(x·(W_hᵀ k_h) + b_h·k_h) v_h + bo, for packed frames x and scaled keys k.

    Equals ``model.attention.MultiHeadAttention`` with these keys and values.

    Args:
        frames: (N, D), packed as ``rows`` says; keys, values: (B, H, S, w), projected.
        mask: (B, S) bool, True where valid; each item has a valid key.
        query, out: weight (D, D) and bias (D,) of the query and output projections.
    """
    _, heads, _, width = keys.shape
    keys = keys * width**-0.5
    folded_keys = fold(keys, query[0]).flatten(1, 2)
    bias = (keys * query[1].view(heads, 1, width)).sum(dim=3)
    bias = bias.masked_fill(~mask.unsqueeze(1), -torch.inf).flatten(1).unsqueeze(1)
    # Each head's weights sum to one, so adding bo / heads to every value adds bo.
    folded_values = (fold(values, out[0].t().contiguous()) + out[1] / heads).flatten(1, 2)
    found: Tensor = _Attend.apply(frames, folded_keys, bias, folded_values, heads, rows)  # type: ignore[no-untyped-call]
    return found


class _Attend(torch.autograd.Function):
    """softmax_h(x Kᵀ + b) V of packed frames x (N, D), keys and values (B, H·S, D); softmax over each head's S.

    Writes every run directly into the result. With autograd, both passes would concatenate the runs.
    """

    @staticmethod
    def forward(
        ctx: Any, frames: Tensor, keys: Tensor, bias: Tensor, values: Tensor, heads: int, rows: Packing
    ) -> Tensor:
        found, saved = torch.empty_like(frames), []
        runs = zip(
            rows.split(frames), *(rows.split_items(y) for y in (keys, bias, values)), rows.split(found), strict=True
        )
        for x, k, b, v, out in runs:
            scores = torch.baddbmm(b, x, k.transpose(1, 2)).view(*x.shape[:2], heads, -1)
            saved.append(scores.softmax(dim=-1).flatten(2))
            torch.bmm(saved[-1], v, out=out)
        ctx.heads, ctx.rows = heads, rows
        ctx.save_for_backward(frames, keys, values, *saved)
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        frames, keys, values, *saved = ctx.saved_tensors
        rows, grad = ctx.rows, grad.contiguous()
        to_frames, to_keys, to_values = (torch.empty_like(x) for x in (frames, keys, values))
        to_bias = keys.new_empty(len(keys), 1, keys.shape[1])
        runs = zip(saved, *(rows.split(x) for x in (grad, frames, to_frames)), strict=True)
        items = zip(*(rows.split_items(x) for x in (keys, values, to_keys, to_values, to_bias)), strict=True)
        for (weights, g, x, to_x), (k, v, to_k, to_v, to_b) in zip(runs, items, strict=True):
            torch.bmm(weights.transpose(1, 2), g, out=to_v)
            to_weights, each_head = (
                y.view(*x.shape[:2], ctx.heads, -1) for y in (torch.bmm(g, v.transpose(1, 2)), weights)
            )
            to_scores = torch.ops.aten._softmax_backward_data(to_weights, each_head, -1, weights.dtype).flatten(2)
            torch.bmm(to_scores, k, out=to_x)
            torch.bmm(to_scores.transpose(1, 2), x, out=to_k)
            torch.sum(to_scores, dim=1, keepdim=True, out=to_b)
        return to_frames, to_keys, to_bias, to_values, None, None


def few_attend_to_frames(pairs: Sequence[tuple[Tensor, Tensor, Tensor]], *, rows: Packing) -> Tensor:
    """Return (B, H, A, D): softmax(Σ_pairs (q_h W_h) xᵀ) x₀, with x of each pair and x₀ of the first.

    Applying ``unfold`` with the value projection gives the result of ``model.attention.attend`` with projected keys and
    values, because Σ a (Wv x) = Wv (Σ a x).

    Args:
        pairs: queries q (B, H, A, w), scaled; frames x (N, D), packed as ``rows`` says; key projection W (H·w, D).
    """
    shape = pairs[0][0].shape[:3]
    queries = [rows.split_items(fold(q, weight).flatten(1, 2)) for q, _, weight in pairs]
    frames = [rows.split(x) for _, x, _ in pairs]
    found = []
    for number, values in enumerate(frames[0]):
        scores = queries[0][number] @ values.transpose(1, 2)
        for q, x in zip(queries[1:], frames[1:], strict=True):
            scores = torch.baddbmm(scores, q[number], x[number].transpose(1, 2))
        found.append(scores.softmax(dim=-1) @ values)
    return torch.cat(found).view(*shape, -1)


def frames_dot_items(frames: Tensor, items: Tensor, *, rows: Packing, weight: Tensor, bias: Tensor) -> Tensor:
    """Return (N, 1): (W x + b)·y = x·(Wᵀy) + b·y of packed frames x (N, D) and their items' y (B, E).

    Equals ``linear(x) @ y`` with weight (E, D) and bias (E,).
    """
    folded, constant = (items @ weight).unsqueeze(2), (items @ bias).view(-1, 1, 1)
    parts = zip(rows.split(frames), rows.split_items(folded), rows.split_items(constant), strict=True)
    return rows.join([torch.baddbmm(c, x, y) for x, y, c in parts])
