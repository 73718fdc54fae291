"""Losses of the two enhancements: masked words (FW-MESM), and contrast of segments and sentences (SS-MESM)."""

from __future__ import annotations

import torch
from torch import Tensor

from mesm_core.losses.inputs import LossInputs
from mesm_core.losses.saliency import EPS, contrastive_loss
from mesm_core.losses.unit import unit

SMOOTHING = 0.1


def word_loss(logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Return the cross entropy with label smoothing, averaged over valid words (masked or not), then over queries.

    Args:
        logits: (Q, W, classes); labels: (Q, W) int64; mask: (Q, W) bool.

    Source: paper equation 6.
    """
    log_p = logits.log_softmax(dim=-1)
    true = log_p.gather(2, labels.unsqueeze(-1)).squeeze(-1)  # (Q, W)
    smoothed = true.lerp(log_p.mean(dim=-1), SMOOTHING)
    weights = mask / (mask.sum(dim=1, keepdim=True, dtype=log_p.dtype).clamp(min=1) * -len(mask))
    return (smoothed * weights).sum()


def word_accuracy(logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Return the fraction of valid words whose most likely class is correct; arguments as in ``word_loss``."""
    correct = (logits.argmax(dim=-1) == labels) & mask
    return correct.sum() / mask.sum().clamp(min=1)


def sum_of(x: Tensor, mask: Tensor) -> Tensor:
    """Return the (Q, d) sum of (Q, L, d) over the valid positions of (Q, L)."""
    return (x * mask.unsqueeze(-1)).sum(dim=1)


def segment_sentence_loss(segments: Tensor, texts: Tensor, overlap: Tensor, *, gamma: float, tau: float) -> Tensor:
    """Return the contrastive loss between each moment's frames and the texts of all queries (paper equation 9).

    Args:
        segments, texts: (Q, d) mean projected frame of each moment, and mean token of each text, or multiples of them;
        overlap: (Q, Q) gIoU of the moments of two queries, -inf if they belong to different groups.
        gamma: texts of two queries of a group are positives if the gIoU of their moments is at least this;
        tau: temperature.
    """
    unit_segments, unit_texts = unit(torch.stack([segments, texts]))
    positive = (overlap >= gamma).to(segments.dtype)
    shares = positive / (positive.sum(dim=1, keepdim=True) + EPS)
    return contrastive_loss(unit_segments @ unit_texts.T / tau, shares)


def words(batch: LossInputs) -> Tensor:
    """Return ``word_loss`` of the reconstructed words."""
    return word_loss(_word_logits(batch), batch.targets.word_labels, batch.inputs.words_mask)


def words_accuracy(batch: LossInputs) -> Tensor:
    """Return ``word_accuracy`` of the reconstructed words."""
    return word_accuracy(_word_logits(batch), batch.targets.word_labels, batch.inputs.words_mask)


def segments(batch: LossInputs, *, iou_gamma: float, tau: float) -> Tensor:
    """Return ``segment_sentence_loss``; its cosines do not depend on the lengths of moments and texts."""
    output, targets = batch.output, batch.targets
    if output.moments is None:
        raise ValueError("the output has no frames of moments: call the model with targets")
    moments = sum_of(output.moments, targets.moment_mask)
    texts = sum_of(output.text, output.text_mask)
    return segment_sentence_loss(moments, texts, targets.overlap, gamma=iou_gamma, tau=tau)


def _word_logits(batch: LossInputs) -> Tensor:
    if batch.output.word_logits is None:
        raise ValueError("the output has no word logits: call the model with targets")
    return batch.output.word_logits
