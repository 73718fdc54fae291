"""Losses of the two semantic enhancements: masked words, and segments against sentences."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mesm_core.losses.inputs import LossInputs
from mesm_core.losses.saliency import EPS, soft_log_softmax
from mesm_core.losses.spans import generalized_iou, to_windows

SMOOTHING = 0.1


def word_loss(logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Return the label-smoothed NLL, mean over valid words (masked or not), then over queries.

    Args:
        logits: (Q, W, classes); labels: (Q, W) int64; mask: (Q, W) bool.

    Source: paper equation 6.
    """
    log_p = logits.log_softmax(dim=-1)
    nll = -log_p.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    smooth = -log_p.mean(dim=-1)
    loss = torch.where(mask, (1 - SMOOTHING) * nll + SMOOTHING * smooth, 0)
    return (loss.sum(dim=1) / mask.sum(dim=1).clamp(min=1)).mean()


def word_accuracy(logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Return the share of valid words whose most likely class is right; arguments as in ``word_loss``."""
    right = (logits.argmax(dim=-1) == labels) & mask
    return right.sum() / mask.sum().clamp(min=1)


def mean_of(x: Tensor, mask: Tensor) -> Tensor:
    """Return the (Q, d) mean of (Q, L, d) over the valid positions of (Q, L)."""
    total = (x * mask.unsqueeze(-1)).sum(dim=1)
    return total / mask.sum(dim=1, keepdim=True).clamp(min=1)


def segment_sentence_loss(
    segments: Tensor, texts: Tensor, windows: Tensor, group: Tensor, *, gamma: float, tau: float
) -> Tensor:
    """Return the contrast of each moment's frames with all queries' texts (paper equation 9).

    Args:
        segments, texts: (Q, d) mean projected frames of the moment, mean text; windows: (Q, 2) start and end;
            group: (Q,) int64.
        gamma: gIoU from which two moments of a group share their texts; tau: temperature.
    """
    cosine = F.normalize(segments, dim=-1) @ F.normalize(texts, dim=-1).T
    log_p = soft_log_softmax(cosine / tau)
    overlap = generalized_iou(windows.unsqueeze(1), windows.unsqueeze(0))
    positive = ((overlap >= gamma) & (group.unsqueeze(1) == group.unsqueeze(0))).to(log_p.dtype)
    per_query = (positive * log_p).sum(dim=1) / (positive.sum(dim=1) + EPS)
    return -per_query.mean()


def words(batch: LossInputs) -> Tensor:
    """Return ``word_loss`` of the reconstructed words."""
    return word_loss(_word_logits(batch), batch.targets.word_labels, batch.inputs.words_mask)


def words_accuracy(batch: LossInputs) -> Tensor:
    """Return ``word_accuracy`` of the reconstructed words."""
    return word_accuracy(_word_logits(batch), batch.targets.word_labels, batch.inputs.words_mask)


def segments(batch: LossInputs, *, iou_gamma: float, tau: float) -> Tensor:
    """Return ``segment_sentence_loss`` of each query's moment: the span from its first to its last window."""
    output, targets = batch.output, batch.targets
    row = torch.arange(len(output.video), device=output.video.device).unsqueeze(1)
    moments = mean_of(output.video[row, targets.moment_frames], targets.moment_mask)
    texts = mean_of(output.text, output.text_mask)
    windows = to_windows(targets.spans)
    first = windows[..., 0].masked_fill(~targets.spans_mask, torch.inf).amin(dim=1)
    last = windows[..., 1].masked_fill(~targets.spans_mask, -torch.inf).amax(dim=1)
    hull = torch.stack([first, last], dim=-1)
    return segment_sentence_loss(moments, texts, hull, targets.group, gamma=iou_gamma, tau=tau)


def _word_logits(batch: LossInputs) -> Tensor:
    if batch.output.word_logits is None:
        raise ValueError("masked words are reconstructed in training: call the model with targets")
    return batch.output.word_logits
