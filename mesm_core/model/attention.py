"""Multi-head attention on torch's ``scaled_dot_product_attention``; masks are True where valid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def attend(
    query: Tensor, key: Tensor, value: Tensor, *, heads: int, key_mask: Tensor | None, causal: bool = False
) -> Tensor:
    """Return (B, L, Dv) scaled dot-product attention of projected queries, keys and values.

    A row without a valid key is treated as if all its keys were valid, so that the output is finite.

    Args:
        query, key: (B, L, Dk) and (B, S, Dk); value: (B, S, Dv); all float, widths divisible by ``heads``.
        key_mask: (B, S) bool, True where valid; None means all.
        causal: position l attends to positions up to l only; without ``key_mask``.

    Source: "Attention is all you need", equation 1.
    """
    q, k, v = (split_heads(x, heads) for x in (query, key, value))  # (B, H, L or S, D / H)
    mask = None if key_mask is None else all_where_none(key_mask)[:, None, None]  # (B, 1, 1, S)
    return join_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal))


def attend_among_few(query: Tensor, key: Tensor, value: Tensor, *, heads: int) -> Tensor:
    """Return the same as ``attend`` without a mask. The decoder uses it for attention among its slots.

    The values of the slots are nearly equal. In that case the key gradients of ``scaled_dot_product_attention`` are off
    by 1e-3 in float32. Subtracting the maximum, with its gradient, avoids this error.
    """
    q, k, v = (split_heads(x, heads) for x in (query, key, value))
    scores = q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)  # (B, H, L, S)
    weights = (scores - scores.amax(dim=-1, keepdim=True)).softmax(dim=-1)
    return join_heads(weights @ v)


def all_where_none(mask: Tensor) -> Tensor:
    """Return the mask (B, S), all True in rows without a valid key, so that their softmax is finite."""
    return mask | ~mask.any(dim=-1, keepdim=True)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Return (B, H, L, D / H) of (B, L, D)."""
    batch, length, width = x.shape
    return x.view(batch, length, heads, width // heads).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """Return (B, L, D) of (B, H, L, D / H)."""
    return x.transpose(1, 2).flatten(2)


class MultiHeadAttention(nn.Module):
    """Attention with input and output projections; parameters are named and packed as in ``nn.MultiheadAttention``.

    Args:
        dim: width of queries, keys, values and output.
        heads: number of heads; divides ``dim``.
    """

    def __init__(self, *, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *, key_mask: Tensor | None, causal: bool = False
    ) -> Tensor:
        """Return (B, L, dim): ``query`` (B, L, dim) attends to ``key`` and ``value`` (B, S, dim).

        Args:
            key_mask: (B, S) bool, True where valid; None means all.
            causal: position l attends to positions up to l only; without ``key_mask``.
        """
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))
        out: Tensor = self.out_proj(attend(q, k, v, heads=self.heads, key_mask=key_mask, causal=causal))
        return out
