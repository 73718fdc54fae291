"""The arithmetic that a query needs, padding and what is done twice left out."""

from __future__ import annotations

from mesm_core.build import ENDPOINT_CHANNELS
from mesm_core.config.schema import ModelConfig


def forward_flops(model: ModelConfig, *, frames: int, words: int, pairs: int = 1) -> float:
    """Return the floating-point operations of a query's way through the matrix products (a multiply-add is two).

    They are those of the formulas as written: that the CPU need not project frames in order to attend counts as speed.

    Args:
        frames, words: valid ones; pairs: 2 where a negative rides along, which has no decoder.
    """
    d, ff, t, w = model.hidden_dim, model.dim_feedforward, frames, words
    text = w + int(model.segment_sentence)
    feedforward = 2 * 2 * d * ff
    projection = d * (model.video_dim + ENDPOINT_CHANNELS) + (model.projection_layers - 1) * d * d
    total = 2.0 * t * projection + 2.0 * w * (d * model.text_dim + (model.projection_layers - 1) * d * d)

    def cross(seen: int) -> float:
        return t * (2 * 2 * d * d + feedforward) + 2 * seen * 2 * d * d + 2 * 2 * t * seen * d

    encoder = t * (4 * 2 * d * d + feedforward) + 2 * 2 * t * t * d
    total += pairs * (model.frame_word_layers * int(model.frame_word) * cross(w) + model.aligner_layers * cross(text))
    total += pairs * (model.encoder_layers * encoder + 2 * t * d * d)
    if model.segment_sentence:
        total += model.segment_sentence_layers * (2 * 2 * 2 * t * d * model.heads + 4 * 2 * d * d + feedforward)
    slots = model.slots
    # A slot goes through nine projections of attention and, in the heads around it, about eight more.
    decoder = 3 * 2 * t * d * d + slots * (17 * 2 * d * d + feedforward) + 2 * slots * t * 3 * d
    return total + model.decoder_layers * decoder


def training_flops(model: ModelConfig, *, frames: int, words: int, moment: int, classes: int) -> float:
    """Return the same of a training step: forward with a negative and masked words, and twice that backward.

    Args:
        moment: frames inside the moment; classes: of masked-word reconstruction.
    """
    forward = forward_flops(model, frames=frames, words=words, pairs=2)
    if model.frame_word:
        d, ff = model.hidden_dim, model.dim_feedforward
        layer = words * (2 * 2 * d * d + 2 * 2 * d * ff) + moment * 2 * 2 * d * d + 2 * 2 * words * moment * d
        forward += model.frame_word_layers * layer + 2 * words * d * (d + classes)
    return 3 * forward
