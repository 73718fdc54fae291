"""Floating-point operations per query, without padding and repeated work."""

from __future__ import annotations

from mesm_core.build import ENDPOINT_CHANNELS
from mesm_core.config.schema import ModelConfig


def forward_flops(model: ModelConfig, *, frames: int, words: int, pairs: int = 1) -> float:
    """Return the floating-point operations of a query's forward pass in matrix products (a multiply-add counts as two).

    The operations are those of the published formulas. Savings of the implementation, such as attention without
    projected frames on the CPU, show as higher speed.

    Args:
        frames, words: numbers of valid frames and words.
        pairs: 2 if a negative query is also encoded; the decoder does not process it.
    """
    d, ff, t, w = model.hidden_dim, model.dim_feedforward, frames, words
    text = w + int(model.segment_sentence)
    feedforward = 2 * 2 * d * ff
    projection = d * (model.video_dim + ENDPOINT_CHANNELS) + (model.projection_layers - 1) * d * d
    total = 2.0 * t * projection + 2.0 * w * (d * model.text_dim + (model.projection_layers - 1) * d * d)

    def cross(length: int) -> float:
        return t * (2 * 2 * d * d + feedforward) + 2 * length * 2 * d * d + 2 * 2 * t * length * d

    encoder = t * (4 * 2 * d * d + feedforward) + 2 * 2 * t * t * d
    total += pairs * (model.frame_word_layers * int(model.frame_word) * cross(w) + model.aligner_layers * cross(text))
    total += pairs * (model.encoder_layers * encoder + 2 * t * d * d)
    if model.segment_sentence:
        total += model.segment_sentence_layers * (2 * 2 * 2 * t * d * model.heads + 4 * 2 * d * d + feedforward)
    slots, layers = model.slots, model.decoder_layers
    # A slot has nine projections in attention and five in the heads and position networks; between two layers, it has
    # two that move its reference and two that scale its positions.
    slot = layers * (14 * 2 * d * d + feedforward) + (layers - 1) * 4 * 2 * d * d
    return total + layers * (3 * 2 * t * d * d + 2 * slots * t * 3 * d) + slots * slot


def training_flops(model: ModelConfig, *, frames: int, words: int, moment: int, classes: int) -> float:
    """Return the same for a training step: forward with a negative and masked words, and twice that for backward.

    Args:
        moment: number of frames inside the moment; classes: number of classes of masked-word reconstruction.
    """
    forward = forward_flops(model, frames=frames, words=words, pairs=2)
    if model.frame_word:
        d, ff = model.hidden_dim, model.dim_feedforward
        layer = words * (2 * 2 * d * d + 2 * 2 * d * ff) + moment * 2 * 2 * d * d + 2 * 2 * words * moment * d
        forward += model.frame_word_layers * layer + 2 * words * d * (d + classes)
    return 3 * forward
