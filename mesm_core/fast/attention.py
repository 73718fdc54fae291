"""Multi-head attention over packed frames; each function takes the parameters of a ``MultiHeadAttention``."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mesm_core.fast.kernels import CpuKernels
from mesm_core.fast.packing import Packing
from mesm_core.fast.unprojected import fold, frames_attend_to_few, unfold
from mesm_core.model.attention import MultiHeadAttention, all_where_none, attend, split_heads


def text_to_frames(
    module: MultiHeadAttention, query: Tensor, key: Tensor, value: Tensor, *, key_mask: Tensor
) -> Tensor:
    """Return (B, L, D) of padded queries (B, L, D): equals ``module(query, key, value, key_mask=key_mask)``."""
    weights, biases = module.in_proj_weight.chunk(3), module.in_proj_bias.chunk(3)
    q, k, v = (F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))
    out: Tensor = module.out_proj(attend(q, k, v, heads=module.heads, key_mask=key_mask))
    return out


def frames_to_text(
    module: MultiHeadAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    key_mask: Tensor,
    rows: Packing,
) -> Tensor:
    """Return (N, D) of packed frames ``query`` (N, D); key, value: (B, S, D); key_mask: (B, S) bool.

    Equals ``rows.pack(module(rows.pad(query), key, value, key_mask=key_mask))``.
    """
    heads = module.heads
    weights, biases = module.in_proj_weight.chunk(3), module.in_proj_bias.chunk(3)
    k, v = (F.linear(x, w, b) for x, w, b in zip((key, value), weights[1:], biases[1:], strict=True))
    if key.shape[1] <= query.shape[1] // heads:  # fewer multiplications without projecting
        k, v, mask = split_heads(k, heads), split_heads(v, heads), all_where_none(key_mask)
        query_proj, out_proj = (weights[0], biases[0]), (module.out_proj.weight, module.out_proj.bias)
        return frames_attend_to_few(query, k, v, mask, rows=rows, query=query_proj, out=out_proj)
    q = F.linear(query, weights[0], biases[0])
    parts = zip(rows.split(q), *(rows.split_items(x) for x in (k, v, key_mask)), strict=True)
    found = rows.join([attend(*x, heads=heads, key_mask=m) for *x, m in parts])
    projected: Tensor = module.out_proj(found)
    return projected


def frames_to_frames(
    kernels: CpuKernels, module: MultiHeadAttention, with_pos: Tensor, x: Tensor, *, rows: Packing
) -> Tensor:
    """Return (B + N, D): tokens and frames, packed by ``Packing.with_token``, attend to the frames.

    Equals ``rows.pack(module(p, p, rows.pad(x), key_mask=mask))`` with p = ``rows.pad(with_pos)`` and a mask (B, 1 + T)
    of the frames.

    Args:
        with_pos, x: (B + N, D), with and without positions.
    """
    heads = module.heads
    (wq, wk, wv), (bq, _, bv) = module.in_proj_weight.chunk(3), module.in_proj_bias.chunk(3)
    projected = (kernels.linear(with_pos, wq, bq), kernels.linear(with_pos, wk), kernels.linear(x, wv))
    runs = [rows.split_tokens(y) for y in projected]
    tokens, frames = [], []
    for (token, q), (_, k), (_, v) in zip(*runs, strict=True):
        frames.append(attend(q, k, v, heads=heads, key_mask=None))
        tokens.append(attend(token, k, v, heads=heads, key_mask=None))
    # The weights sum to one, so the bias of the values can be added last. The bias of the keys cancels in the softmax.
    bias = module.out_proj.bias + module.out_proj.weight @ bv
    return kernels.linear(rows.join(tokens + frames), module.out_proj.weight, bias)


def token_to_frames(
    kernels: CpuKernels,
    module: MultiHeadAttention,
    query: Tensor,
    frames: Tensor,
    *,
    key_mask: Tensor,
    pick: Tensor | None,
) -> Tensor:
    """Return (B, 1, D) of one query per item, without projecting all of ``frames``.

    Reassociated, for each head: q·(Wk x) = (Wkᵀq)·x and Σ a (Wv x) = Wv (Σ a x). The keys' bias cancels in the softmax.
    Equals ``module(query, x, x, key_mask=key_mask)`` with x = ``frames[pick]``.

    Args:
        query: (B, 1, D); frames: (B, S, D), or (C, S, D) with ``pick`` (B,) int64; key_mask: (B, S) bool.
    """
    dim = query.shape[2]
    (wq, wk, wv), (bq, _, bv) = module.in_proj_weight.chunk(3), module.in_proj_bias.chunk(3)
    q = split_heads(F.linear(query, wq, bq), module.heads) * (dim // module.heads) ** -0.5
    found = kernels.weighted_sum(fold(q, wk).squeeze(2), frames, all_where_none(key_mask), pick)
    out: Tensor = module.out_proj(unfold(found.unsqueeze(2), wv) + bv)
    return out
