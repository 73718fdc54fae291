"""Losses of the two enhancements: masked words (FW-MESM), and contrast of segments and sentences (SS-MESM)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mesm_core.losses.inputs import LossInputs
from mesm_core.losses.saliency import EPS, soft_log_softmax
from mesm_core.losses.spans import generalized_iou, to_windows

SMOOTHING = 0.1


def word_loss(logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Return the cross entropy with label smoothing, averaged over valid words (masked or not), then over queries.

    Args:
        logits: (Q, W, classes); labels: (Q, W) int64; mask: (Q, W) bool.

    Source: paper equation 6.
    """
    loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=SMOOTHING, reduction="none")
    loss = torch.where(mask, loss.view_as(labels), 0)  # (Q, W)
    return (loss.sum(dim=1) / mask.sum(dim=1).clamp(min=1)).mean()


def word_accuracy(logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Return the fraction of valid words whose most likely class is correct; arguments as in ``word_loss``."""
    correct = (logits.argmax(dim=-1) == labels) & mask
    return correct.sum() / mask.sum().clamp(min=1)


def mean_of(x: Tensor, mask: Tensor) -> Tensor:
    """Return the (Q, d) mean of (Q, L, d) over the valid positions of (Q, L)."""
    total = (x * mask.unsqueeze(-1)).sum(dim=1)
    return total / mask.sum(dim=1, keepdim=True).clamp(min=1)


def segment_sentence_loss(
    segments: Tensor, texts: Tensor, windows: Tensor, group: Tensor, *, gamma: float, tau: float
) -> Tensor:
    """Return the contrastive loss between each moment's frames and the texts of all queries (paper equation 9).

    Args:
        segments, texts: (Q, d) mean projected frame of each moment, and mean token of each text;
        windows: (Q, 2) start and end of each moment; group: (Q,) int64.
        gamma: texts of two queries of a group are positives if the gIoU of their moments is at least this;
        tau: temperature.
    """
    unit_segments, unit_texts = F.normalize(torch.stack([segments, texts]), dim=-1)
    log_p = soft_log_softmax(unit_segments @ unit_texts.T / tau)
    overlap = generalized_iou(windows.unsqueeze(1), windows.unsqueeze(0))
    positive = ((overlap >= gamma) & (group.unsqueeze(1) == group.unsqueeze(0))).to(log_p.dtype)
    shares = positive / (positive.sum(dim=1, keepdim=True) + EPS)
    return (shares * log_p).sum() / -len(windows)


def words(batch: LossInputs) -> Tensor:
    """Return ``word_loss`` of the reconstructed words."""
    return word_loss(_word_logits(batch), batch.targets.word_labels, batch.inputs.words_mask)


def words_accuracy(batch: LossInputs) -> Tensor:
    """Return ``word_accuracy`` of the reconstructed words."""
    return word_accuracy(_word_logits(batch), batch.targets.word_labels, batch.inputs.words_mask)


def segments(batch: LossInputs, *, iou_gamma: float, tau: float) -> Tensor:
    """Return ``segment_sentence_loss``, with each query's moment reaching from its first to its last window."""
    output, targets = batch.output, batch.targets
    queries, frames = output.video.shape[:2]
    # The gradient of index_select adds rows directly; that of a two-dimensional index sorts them first.
    first = torch.arange(queries, device=output.video.device).unsqueeze(1) * frames
    rows = output.video.flatten(0, 1).index_select(0, (first + targets.moment_frames).flatten())
    moments = mean_of(rows.view(*targets.moment_frames.shape, -1), targets.moment_mask)
    texts = mean_of(output.text, output.text_mask)
    windows = to_windows(targets.spans)
    absent = ~targets.spans_mask
    first = windows[..., 0].masked_fill(absent, torch.inf).amin(dim=1)
    last = windows[..., 1].masked_fill(absent, -torch.inf).amax(dim=1)
    hull = torch.stack([first, last], dim=-1)
    return segment_sentence_loss(moments, texts, hull, targets.group, gamma=iou_gamma, tau=tau)


def _word_logits(batch: LossInputs) -> Tensor:
    if batch.output.word_logits is None:
        raise ValueError("the output has no word logits: call the model with targets")
    return batch.output.word_logits
