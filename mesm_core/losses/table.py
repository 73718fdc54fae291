"""The table of losses: name -> function, weight and settings. One line adds a loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from mesm_core.losses import reconstruction, saliency, spans


@dataclass(frozen=True)
class Loss:
    """A line of the table.

    ``function``: takes a ``LossInputs`` and the settings below as keywords, and returns a scalar;
    ``weight``: name of the setting with the loss's weight in the total, ``loss.NAME`` or ``loss.weights.NAME``; the
    loss is not computed if that setting has no value. None for a value that is reported only;
    ``optional``: whether the loss is not computed either if its weight is 0;
    ``settings``: settings of the section ``loss`` that the function takes;
    ``part``: setting of the section ``model`` that must be on for the loss to be computed, or None;
    ``every_layer``: whether the function returns the losses (L,) of all decoder layers; only the last one is computed
    when ``loss.aux`` is off.
    """

    function: Callable[..., Tensor]
    weight: str | None = None
    optional: bool = False
    settings: tuple[str, ...] = ()
    part: str | None = None
    every_layer: bool = False


LOSSES: dict[str, Loss] = {
    "loss_span": Loss(spans.span, weight="span", every_layer=True),
    "loss_giou": Loss(spans.giou, weight="giou", every_layer=True),
    "loss_label": Loss(spans.label, weight="label", settings=("eos_coef",), every_layer=True),
    "class_error": Loss(spans.class_error, every_layer=True),
    "loss_saliency": Loss(saliency.contrast, weight="saliency", settings=("rank_coef", "triplet", "margin")),
    "loss_rec_fw": Loss(reconstruction.words, weight="rec_fw", part="frame_word"),
    "rec_fw_acc": Loss(reconstruction.words_accuracy, part="frame_word"),
    "loss_rec_ss": Loss(
        reconstruction.segments, weight="rec_ss", settings=("iou_gamma", "tau"), part="segment_sentence"
    ),
    "loss_absent": Loss(spans.absent, weight="absent", optional=True, every_layer=True),
}
"""Names of losses with a weight start with ``loss_``; these are shown during training and plotted as curves."""
