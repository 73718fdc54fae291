"""Multi-head attention without attention weights: torch's fused kernels, masks True where valid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mesm_core.model.folded import fold, frames_look, unfold
from mesm_core.model.packing import Packing, on_cpu


def attend(
    query: Tensor, key: Tensor, value: Tensor, *, heads: int, key_mask: Tensor | None, causal: bool = False
) -> Tensor:
    """Return (B, L, Dv) scaled dot-product attention of projected queries, keys and values.

    A query whose keys are all invalid looks at all of them evenly: the result is finite, and what the padded
    rows hold is the same for any amount of padding.

    Args:
        query, key: (B, L, Dk) and (B, S, Dk); value: (B, S, Dv); all float, widths divisible by ``heads``.
        key_mask: (B, S) bool, True where valid; None means all.
        causal: position l looks at positions up to l only; without ``key_mask``.

    Source: "Attention is all you need", equation 1.
    """
    q, k, v = (split_heads(x, heads) for x in (query, key, value))
    mask = None
    if key_mask is not None:
        mask = all_where_none(key_mask)[:, None, None, :]
    if query.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        # The gradient of the CPU's bfloat16 attention is six times slower than float32's.
        with torch.autocast("cpu", enabled=False):
            q, k, v = q.float(), k.float(), v.float()
            return _join_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal))
    return _join_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal))


def all_where_none(mask: Tensor) -> Tensor:
    """Return the mask (B, S) with the rows that have no valid key made all valid, so that a softmax is finite."""
    return mask | ~mask.any(dim=-1, keepdim=True)


def attend_among_few(query: Tensor, key: Tensor, value: Tensor, *, heads: int) -> Tensor:
    """Return what ``attend`` returns without a mask, with the attention weights written out.

    For the decoder's handful of slots, whose values are nearly equal: the gradient of the scores must sum to
    zero over the keys, and in float32 it misses by enough to spoil the gradient of the keys (errors of 1e-3).
    Subtracting the largest score *with* its gradient takes the remainder away.
    """
    q, k, v = (split_heads(x, heads) for x in (query, key, value))
    scores = q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)
    weights = (scores - scores.amax(dim=-1, keepdim=True)).softmax(dim=-1)
    return _join_heads(weights @ v)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Return (B, heads, L, D / heads) of (B, L, D)."""
    batch, length, width = x.shape
    return x.view(batch, length, heads, width // heads).transpose(1, 2)


def _join_heads(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


class MultiHeadAttention(nn.Module):
    """Attention with its four projections; parameters are named and packed as in ``nn.MultiheadAttention``.

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
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        key_mask: Tensor | None,
        causal: bool = False,
        rows: Packing | None = None,
        pick: Tensor | None = None,
    ) -> Tensor:
        """Return (B, L, dim): ``query`` (B, L, dim) looks at ``key`` and ``value`` (B, S, dim).

        Args:
            query, key, value: float tensors.
            key_mask: (B, S) bool, True where valid; None means all.
            causal: position l looks at positions up to l only; without ``key_mask``.
            rows: ``query`` and the result are (N, dim) packed rows; a 2-d ``key`` is ``query``, with packed ``value``.
            pick: (B,) int64: key and value are (C, S, dim), and query b looks at ``pick[b]``.
        """
        if query.shape[1] == 1 and key is value and key_mask is not None:
            return self._lone(query, key, key_mask, pick)
        if rows is not None and rows.runs:
            if key.dim() == 2:
                return self._among_themselves(query, value, rows)
            return self._packed(query, key, value, key_mask, rows)
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))
        if rows is not None:
            q = rows.pad(q)
            if key.dim() == 2:
                k, v = rows.pad(k), rows.pad(v)
        if pick is not None:
            k, v = k.index_select(0, pick), v.index_select(0, pick)
        looked = attend(q, k, v, heads=self.heads, key_mask=key_mask, causal=causal)
        out: Tensor = self.out_proj(looked if rows is None else rows.pack(looked))
        return out

    def _packed(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, rows: Packing) -> Tensor:
        """Return the same (N, dim) of packed queries that look at (B, S, dim), a run of equal lengths at a time."""
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        k, v = (F.linear(x, w, b) for x, w, b in zip((key, value), weights[1:], biases[1:], strict=True))
        mask = key.new_ones(key.shape[:2], dtype=torch.bool) if mask is None else all_where_none(mask)
        if key.shape[1] <= query.shape[1] // self.heads:
            k, v = split_heads(k, self.heads), split_heads(v, self.heads)
            ours, out = (weights[0], biases[0]), (self.out_proj.weight, self.out_proj.bias)
            return frames_look(query, k, v, mask, rows=rows, query=ours, out=out)
        q = rows.split(F.linear(query, weights[0], biases[0]))
        parts = zip(q, *(rows.split_items(x) for x in (k, v, mask)), strict=True)
        looked = [attend(*x, heads=self.heads, key_mask=m) for *x, m in parts]
        found: Tensor = self.out_proj(rows.join(looked))
        return found

    def _among_themselves(self, where: Tensor, value: Tensor, rows: Packing) -> Tensor:
        """Return the same (B + N, dim) of packed rows and the tokens in front, which all look at the rows alone."""
        (wq, wk, wv), (bq, bk, bv) = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        runs = [rows.split_tokens(x) for x in (F.linear(where, wq, bq), F.linear(where, wk), F.linear(value, wv))]
        tokens, looked = [], []
        for (token, q), (_, k), (_, v) in zip(*runs, strict=True):
            looked.append(attend(q, k, v, heads=self.heads, key_mask=None))
            tokens.append(attend(token, k, v, heads=self.heads, key_mask=None))
        # Weights that sum to one hand on the values' bias; the keys' cancels, with gradient zero rather than none.
        bias = self.out_proj.bias + self.out_proj.weight @ bv + 0 * bk
        return F.linear(rows.join(tokens + looked), self.out_proj.weight, bias)

    def _lone(self, query: Tensor, seen: Tensor, mask: Tensor, pick: Tensor | None) -> Tensor:
        """Return the same for a single query an item that looks at ``seen`` itself, without projecting all of it.

        q·(W s) = (Wᵀ q)·s and Σ a (W s) = W (Σ a s), a head at a time; the keys' bias cancels in the softmax.
        """
        dim = query.shape[2]
        (wq, wk, wv), (bq, _, bv) = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q = split_heads(F.linear(query, wq, bq), self.heads) * (dim // self.heads) ** -0.5
        asked, mask = fold(q, wk).squeeze(2), all_where_none(mask)
        if pick is None or not on_cpu(seen):
            seen = seen if pick is None else seen.index_select(0, pick)
            found = _weighted(asked, seen, mask.unsqueeze(1))
        else:
            # Neighbours that look at the same are one matrix, so that nothing is copied for each.
            shared, counts = (x.tolist() for x in torch.unique_consecutive(pick, return_counts=True))
            frames = seen.unbind()
            parts = zip(torch.split(asked, counts), torch.split(mask.unsqueeze(1), counts), shared, strict=True)
            found = torch.cat([_weighted(a, frames[item], m) for a, m, item in parts])
        out: Tensor = self.out_proj(unfold(found.unsqueeze(2), wv) + bv)
        return out


def _weighted(asked: Tensor, seen: Tensor, mask: Tensor) -> Tensor:
    """Return (B, A, D): what ``asked`` (B, A, D) sees in (B, S, D), or all in (S, D), where mask (B, 1, S) is True."""
    scores = (asked @ seen.transpose(-2, -1)).masked_fill(~mask, -torch.inf)
    return scores.softmax(dim=-1) @ seen
