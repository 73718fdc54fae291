"""Spans and windows: conversion, generalised IoU, and the losses of matched slots."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mesm_core.losses.inputs import LossInputs

FOREGROUND, BACKGROUND = 0, 1
"""Classes of a slot."""


def to_windows(spans: Tensor) -> Tensor:
    """Return (..., 2) [start, end] of (..., 2) [center, width], in the same unit.

    >>> to_windows(torch.tensor([0.5, 0.2]))
    tensor([0.4000, 0.6000])
    """
    center, half = spans[..., 0], spans[..., 1] / 2
    return torch.stack([center - half, center + half], dim=-1)


def generalized_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the gIoU, in [-1, 1], of two broadcastable (..., 2) tensors of [start, end] windows.

    Source: Generalized Intersection over Union (CVPR 2019), on one axis.

    >>> generalized_iou(torch.tensor([0.0, 2.0]), torch.tensor([[1.0, 3.0], [0.0, 2.0], [3.0, 4.0]]))
    tensor([ 0.3333,  1.0000, -0.2500])
    """
    inner = (torch.minimum(a[..., 1], b[..., 1]) - torch.maximum(a[..., 0], b[..., 0])).clamp(min=0)
    union = (a[..., 1] - a[..., 0]) + (b[..., 1] - b[..., 0]) - inner
    hull = torch.maximum(a[..., 1], b[..., 1]) - torch.minimum(a[..., 0], b[..., 0])
    return inner / union - (hull - union) / hull


def span_loss(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Return the mean L1 distance of matched (center, width) pairs.

    Args:
        predicted, target: (Q, M, 2); mask: (Q, M) bool, True where there is a target.
    """
    distance = F.l1_loss(predicted, target, reduction="none").mean(dim=-1)
    return masked_mean(distance, mask)


def giou_loss(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of 1 - gIoU of matched pairs; arguments as in ``span_loss``."""
    return masked_mean(1 - generalized_iou(to_windows(predicted), to_windows(target)), mask)


def label_loss(logits: Tensor, slots: Tensor, mask: Tensor, *, eos_coef: float) -> Tensor:
    """Return the cross entropy of foreground and background, averaged over all Q·N slots.

    Args:
        logits: (Q, N, 2), index 0 = foreground; slots: (Q, M) int64 matched slots; mask: (Q, M) bool, True where valid.
        eos_coef: weight of slots whose label is background; other slots have weight 1.
    """
    matched = F.one_hot(slots, logits.shape[1]).bool() & mask.unsqueeze(-1)  # (Q, M, N)
    labels = (~matched.any(dim=1)).long()  # (Q, N): FOREGROUND or BACKGROUND
    weight = logits.new_ones(2)
    weight[BACKGROUND].fill_(eos_coef)  # assignment would copy from the host
    # The mean is over slots, not over weights as with reduction="mean".
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), weight=weight, reduction="none").mean()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of the values where ``mask`` (same shape, bool) is True, or 0 if it is False everywhere."""
    return torch.where(mask, values, 0).sum() / mask.sum().clamp(min=1)


def span(batch: LossInputs) -> Tensor:
    """Return ``span_loss`` of the matched slots."""
    return span_loss(batch.matched, batch.targets.spans, batch.targets.spans_mask)


def giou(batch: LossInputs) -> Tensor:
    """Return ``giou_loss`` of the matched slots."""
    return giou_loss(batch.matched, batch.targets.spans, batch.targets.spans_mask)


def label(batch: LossInputs, *, eos_coef: float) -> Tensor:
    """Return ``label_loss`` of all slots."""
    return label_loss(batch.logits, batch.slots, batch.targets.spans_mask, eos_coef=eos_coef)


def class_error(batch: LossInputs) -> Tensor:
    """Return the percentage of matched slots that are classified as background."""
    foreground = batch.logits.argmax(dim=-1).gather(1, batch.slots) == FOREGROUND
    return 100 * masked_mean(1.0 - foreground.float(), batch.targets.spans_mask)
