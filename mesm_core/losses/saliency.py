"""Losses on the frames' saliency: ranking, contrast with a foreign query, and hinge triplets."""

from __future__ import annotations

import torch
from torch import Tensor

LEVELS = 11
RANK_TEMPERATURE = 0.5
INVALID_SCORE = -1000.0
EPS = 1e-6


def soft_log_softmax(scores: Tensor) -> Tensor:
    """Return the log-softmax over the last axis, max-subtracted, with 1e-6 inside the logarithm."""
    shifted = scores - scores.amax(dim=-1, keepdim=True).detach()
    return shifted - torch.log(shifted.exp().sum(dim=-1, keepdim=True) + EPS)


def negative_loss(negative: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over queries of the sum over valid frames of -log(1 - sigmoid(score)).

    Args:
        negative: (Q, T) saliency under another group's query; mask: (Q, T) bool.
    """
    return torch.where(mask, torch.nn.functional.softplus(negative), 0).sum(dim=1).mean()


def rank_loss(scores: Tensor, negative: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Return the sum over levels 1..11 of the rank-aware contrast (QD-DETR, equation 8).

    Args:
        scores, negative: (Q, T); labels: (Q, T), 0 where nothing is said; mask: (Q, T) bool.
    """
    both = torch.cat([scores, negative], dim=1)
    valid = torch.cat([mask, mask], dim=1)
    log_p = soft_log_softmax(both.masked_fill(~valid, INVALID_SCORE) / RANK_TEMPERATURE)
    log_p = log_p[:, : scores.shape[1]]  # the negative half has label 0 and is never a positive
    levels = torch.arange(1, LEVELS + 1, device=labels.device).view(-1, 1, 1)
    positive = (labels * mask >= levels).to(log_p.dtype)
    per_query = (positive * log_p).sum(dim=-1) / (positive.sum(dim=-1) + EPS)
    return -per_query.mean(dim=1).sum()


def triplet_loss(scores: Tensor, positive: Tensor, negative: Tensor, mask: Tensor, *, margin: float) -> Tensor:
    """Return Σ max(0, margin + s_neg - s_pos) / (Q·pairs) · 2.

    Args:
        scores: (Q, T); positive, negative: (Q, P) int64 frames; mask: (Q,) bool, False where a query has no
            frame outside its moment.
    """
    gap = margin + scores.gather(1, negative) - scores.gather(1, positive)
    return torch.where(mask.unsqueeze(1), gap.clamp(min=0), 0).mean() * 2
