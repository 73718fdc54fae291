"""Losses on the saliency of frames: ranking, contrast with a negative query, and hinge triplets."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mesm_core.losses.inputs import LossInputs

LEVELS = 11
RANK_TEMPERATURE = 0.5
INVALID_SCORE = -1000.0
EPS = 1e-6


def contrastive_loss(scores: Tensor, positive: Tensor) -> Tensor:
    """Return the mean over queries of -Σ share · log p(score), with p the softmax over a query's scores.

    As in the published code, ``EPS`` is added to the sum of the exponentials, after the maximum is subtracted. This is
    one more score, maximum + log(EPS).

    Args:
        scores: (Q, S); positive: (Q, P) shares of the first P ≤ S scores, the others have none.
    """
    extra = scores.detach().amax(dim=1, keepdim=True) + math.log(EPS)
    log_p = torch.cat([scores, extra], dim=1).log_softmax(dim=1)  # (Q, S + 1)
    shares = F.pad(positive / -len(scores), (0, log_p.shape[1] - positive.shape[1]))
    return (shares * log_p).sum()


def negative_loss(negative: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over queries of the sum over valid frames of -log(1 - sigmoid(score)).

    Args:
        negative: (Q, T) saliency for the negative query; mask: (Q, T) bool, True where valid.
    """
    return (F.softplus(negative) * (mask / len(mask))).sum()


def rank_loss(scores: Tensor, negative: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Return the rank-aware contrastive loss, summed over levels 1 to 11 (QD-DETR, equation 8).

    Args:
        scores, negative: (Q, T) saliency for the query and for the negative query;
        labels: (Q, T), 0 where there is none; mask: (Q, T) bool, True where valid.
    """
    both = torch.stack([scores, negative], dim=1)  # (Q, 2, T)
    both = torch.where(mask.unsqueeze(1), both, INVALID_SCORE).flatten(1) / RANK_TEMPERATURE
    levels = torch.arange(1, LEVELS + 1, device=labels.device).view(-1, 1, 1)
    positive = labels >= levels  # (11, Q, T); the negative query has no positive
    return contrastive_loss(both, (positive / (positive.sum(dim=-1, keepdim=True) + EPS)).sum(dim=0))


def triplet_loss(scores: Tensor, positive: Tensor, negative: Tensor, mask: Tensor, *, margin: float) -> Tensor:
    """Return twice the mean of max(0, margin + s_neg - s_pos) over all pairs of a positive and a negative frame.

    Args:
        scores: (Q, T); positive, negative: (Q, P) int64 indices of frames.
        mask: (Q,) bool, False where a query has no frame outside its moment; its pairs count as 0.
    """
    below, above = scores.gather(1, torch.cat([negative, positive], dim=1)).chunk(2, dim=1)
    losses = F.relu(margin + below - above)
    return (losses * (mask.unsqueeze(1) * (2 / max(losses.numel(), 1)))).sum()


def contrast(batch: LossInputs, *, rank_coef: float, triplet: bool, margin: float) -> Tensor:
    """Return rank loss / ``rank_coef`` + negative loss, plus the triplet loss if ``triplet`` is on.

    Raises:
        ValueError: the model was called without targets, so there is no saliency for a negative query.
    """
    output, targets = batch.output, batch.targets
    if output.negative_saliency is None:
        raise ValueError("the output has no saliency for a negative query: call the model with targets")
    mask = batch.inputs.frames_mask
    ranked = rank_loss(output.saliency, output.negative_saliency, targets.saliency, mask)
    loss = ranked / rank_coef + negative_loss(output.negative_saliency, mask)
    if triplet:
        frames = targets.positive_frames, targets.negative_frames
        loss = loss + triplet_loss(output.saliency, *frames, targets.triplet_mask, margin=margin)
    return loss
