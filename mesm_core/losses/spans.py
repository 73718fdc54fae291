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
    center, width = spans.unbind(dim=-1)
    half = width / 2
    return torch.stack([center - half, center + half], dim=-1)


def generalized_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the gIoU, in [-1, 1], of two broadcastable (..., 2) tensors of [start, end] windows.

    Source: Generalized Intersection over Union (CVPR 2019), on one axis. There the union is the hull if the windows
    overlap, and the sum of their lengths if not; in both cases gIoU = (sum of lengths) / hull - 1.

    >>> generalized_iou(torch.tensor([0.0, 2.0]), torch.tensor([[1.0, 3.0], [0.0, 2.0], [3.0, 4.0]]))
    tensor([ 0.3333,  1.0000, -0.2500])
    """
    starts, ends = (a + b).unbind(dim=-1)
    lengths = ends - starts
    # The later end is the mean of both ends plus half of their distance; so for the starts. So the hull is the mean of
    # ``lengths`` and ``apart``.
    apart = (a - b).abs().sum(dim=-1)
    return (lengths - apart) / (lengths + apart)


def label_loss(logits: Tensor, slots: Tensor, mask: Tensor, *, eos_coef: float) -> Tensor:
    """Return the (L,) cross entropy of foreground and background of each layer, averaged over all Q·N slots.

    Args:
        logits: (L, Q, N, 2), index 0 = foreground; slots: (L, Q, M) int64 matched slots; mask: (Q, M) bool, True where
            there is a window.
        eos_coef: weight of slots whose label is background; other slots have weight 1.
    """
    # A slot is background unless a window is matched with it. Windows that do not exist leave it as it is.
    labels = slots.new_full(logits.shape[:3], BACKGROUND)  # (L, Q, N)
    labels.scatter_reduce_(2, slots, (~mask).long().expand_as(slots), "amin")
    weight = logits.new_ones(2)
    weight[BACKGROUND].fill_(eos_coef)  # assignment would copy from the host
    # The mean is over slots, not over weights as with reduction="mean".
    losses = F.cross_entropy(logits.flatten(0, 2), labels.flatten(), weight=weight, reduction="none")
    return losses.view(len(logits), -1).mean(dim=1)


def span_loss(distance: Tensor, weights: Tensor) -> Tensor:
    """Return the (L,) mean absolute error of center and width over windows.

    Args:
        distance: (L, Q, M) L1 distance of each window's (center, width) and its slot's; weights: (Q, M) of the windows.
    """
    return (distance * (weights / 2)).sum(dim=(1, 2))


def span(batch: LossInputs) -> Tensor:
    """Return ``span_loss`` of the matched slots."""
    return span_loss(batch.matched(batch.distance), batch.window_weights)


def giou(batch: LossInputs) -> Tensor:
    """Return the (L,) mean of 1 - gIoU of windows and their slots."""
    return ((1 - batch.matched(batch.overlap)) * batch.window_weights).sum(dim=(1, 2))


def label(batch: LossInputs, *, eos_coef: float) -> Tensor:
    """Return ``label_loss`` of all slots."""
    return label_loss(batch.logits, batch.slots, batch.targets.spans_mask, eos_coef=eos_coef)


def absent_loss(logits: Tensor, absent: Tensor) -> Tensor:
    """Return the (L,) cross entropy of background of each layer, averaged over all slots of negative queries.

    Unlike in ``label_loss``, the background has weight 1, because the slot that answers a real query has weight 1.

    Args:
        logits: (L, Q, N, 2) for the negative query of each query, index 0 = foreground.
        absent: (Q,) bool, False where the video may have an answer to the negative query. These are left out of the
            mean, which is 0 if none remains.
    """
    losses = -logits.log_softmax(dim=-1)[..., BACKGROUND].mean(dim=2)  # (L, Q)
    return (losses * absent).sum(dim=1) / absent.sum().clamp(min=1)


def absent(batch: LossInputs) -> Tensor:
    """Return ``absent_loss`` of the negative queries.

    Raises:
        ValueError: the targets do not say which negative queries are absent.
    """
    logits, absent = batch.output.negative_logits, batch.targets.absent
    if logits is None or absent is None:
        raise ValueError("the targets do not say which negative queries are absent: make the batches with absent=True")
    return absent_loss(logits[-len(batch.logits) :], absent)


def class_error(batch: LossInputs) -> Tensor:
    """Return the (L,) percentage of matched slots that are classified as background."""
    classes = batch.logits.argmax(dim=-1).gather(2, batch.slots)  # (L, Q, M), 1 is BACKGROUND
    return (classes * batch.window_weights).sum(dim=(1, 2)) * 100
