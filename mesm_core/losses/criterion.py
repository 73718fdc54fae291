"""The table of losses and their weighted sum (docs/model.md, "Losses")."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mesm_core.losses import reconstruction, saliency, spans
from mesm_core.losses.matching import match, matching_cost
from mesm_core.types import Inputs, ModelOutput, Targets


class Criterion:
    """All losses of a batch, each by the name that the field gives it.

    Args:
        weights: loss name (``loss_span``, ``loss_giou``, ``loss_label``, ``loss_saliency``, ``loss_rec_fw``,
            ``loss_rec_ss``) -> weight in the total; decoder layers before the last use the same weights.
        cost_span, cost_giou, cost_class: matching costs.
        eos_coef: weight of background slots.
        aux: compute the slots' losses on every decoder layer.
        rank_coef: the rank loss is divided by it.
        triplet, margin: whether saliency has hinge triplets, and their margin.
        iou_gamma, tau: threshold and temperature of the segment-sentence contrast.
        word_reconstruction, segment_sentence: whether the model has these parts.
    """

    def __init__(
        self,
        *,
        weights: Mapping[str, float],
        cost_span: float,
        cost_giou: float,
        cost_class: float,
        eos_coef: float,
        aux: bool,
        rank_coef: float,
        triplet: bool,
        margin: float,
        iou_gamma: float,
        tau: float,
        word_reconstruction: bool,
        segment_sentence: bool,
    ) -> None:
        self.weights = dict(weights)
        self._costs = {"cost_span": cost_span, "cost_giou": cost_giou, "cost_class": cost_class}
        self._eos_coef = eos_coef
        self._aux = aux
        self._rank_coef = rank_coef
        self._triplet, self._margin = triplet, margin
        self._gamma, self._tau = iou_gamma, tau
        self._words, self._segments = word_reconstruction, segment_sentence

    def __call__(self, output: ModelOutput, inputs: Inputs, targets: Targets) -> dict[str, Tensor]:
        """Return every loss by name, unweighted, and the diagnostics ``class_error`` and ``rec_fw_acc``."""
        losses = self.slot_losses(output.logits[-1], output.spans[-1], targets)
        losses["loss_saliency"] = self._saliency_loss(output, inputs.video_mask[inputs.video_index], targets)
        if self._words and output.word_logits is not None:
            words = (output.word_logits, targets.word_labels, inputs.words_mask)
            losses["loss_rec_fw"] = reconstruction.word_loss(*words)
            losses["rec_fw_acc"] = reconstruction.word_accuracy(*words)
        if self._segments:
            losses["loss_rec_ss"] = self._segment_sentence_loss(output, targets)
        if self._aux:
            for layer, (logits, layer_spans) in enumerate(zip(output.logits[:-1], output.spans[:-1], strict=True)):
                earlier = self.slot_losses(logits, layer_spans, targets)
                losses |= {f"{name}_{layer}": value for name, value in earlier.items()}
        return losses

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Return Σ weight · loss over the losses that have a weight."""
        weighted = [
            weight * value
            for name, value in losses.items()
            if (weight := self.weights.get(name.rstrip("0123456789").rstrip("_"))) is not None
        ]
        return torch.stack(weighted).sum()

    def match(self, logits: Tensor, layer_spans: Tensor, targets: Targets) -> Tensor:
        """Return the slot (Q, M) int64 of every window."""
        cost = matching_cost(logits, layer_spans, targets.spans, **self._costs)
        return match(cost, targets.spans_mask)

    def slot_losses(self, logits: Tensor, layer_spans: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Return one decoder layer's losses, with a matching of its own."""
        slots, mask = self.match(logits, layer_spans, targets), targets.spans_mask
        matched = layer_spans.gather(1, slots.unsqueeze(-1).expand(-1, -1, 2))
        foreground = logits.argmax(dim=-1).gather(1, slots) == 0
        return {
            "loss_span": spans.span_loss(matched, targets.spans, mask),
            "loss_giou": spans.giou_loss(matched, targets.spans, mask),
            "loss_label": spans.label_loss(logits, slots, mask, eos_coef=self._eos_coef),
            "class_error": 100 * spans.masked_mean(1.0 - foreground.float(), mask),
        }

    def _saliency_loss(self, output: ModelOutput, mask: Tensor, targets: Targets) -> Tensor:
        if output.negative_saliency is None:
            raise ValueError("saliency is trained by contrast: call the model with targets")
        ranked = saliency.rank_loss(output.saliency, output.negative_saliency, targets.saliency, mask)
        loss = ranked / self._rank_coef + saliency.negative_loss(output.negative_saliency, mask)
        if self._triplet:
            frames = targets.positive_frames, targets.negative_frames
            loss = loss + saliency.triplet_loss(output.saliency, *frames, targets.triplet_mask, margin=self._margin)
        return loss

    def _segment_sentence_loss(self, output: ModelOutput, targets: Targets) -> Tensor:
        row = torch.arange(len(output.video), device=output.video.device).unsqueeze(1)
        segments = reconstruction.mean_of(output.video[row, targets.moment_frames], targets.moment_mask)
        texts = reconstruction.mean_of(output.text, output.text_mask)
        windows = spans.to_windows(targets.spans)
        first = windows[..., 0].masked_fill(~targets.spans_mask, torch.inf).amin(dim=1)
        last = windows[..., 1].masked_fill(~targets.spans_mask, -torch.inf).amax(dim=1)
        hull = torch.stack([first, last], dim=-1)
        return reconstruction.segment_sentence_loss(
            segments, texts, hull, targets.group, gamma=self._gamma, tau=self._tau
        )
