"""Settings -> model and losses."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TypedDict

import torch
from torch import nn

from mesm_core.config.schema import Config, LossConfig, ModelConfig
from mesm_core.errors import CheckpointError, ConfigError, did_you_mean
from mesm_core.fast.mesm import accelerate
from mesm_core.losses.criterion import Criterion, Term
from mesm_core.losses.table import LOSSES
from mesm_core.model.decoder import Decoder, DecoderLayer
from mesm_core.model.enhance import FrameWord, SegmentSentence, WordHead
from mesm_core.model.layers import CrossEncoder, EncoderLayer, projection
from mesm_core.model.mesm import Mesm
from mesm_core.model.positions import WordPositions
from mesm_core.text.encoder import TextEncoder

ENDPOINT_CHANNELS = 2
MAX_SIZE_RATIO = 8
"""Largest allowed ratio between the estimated size of a config's network and that of the checkpoint's weights."""


class _Sizes(TypedDict):
    dim: int
    heads: int
    hidden: int
    dropout: float


def build_trained(config: Config, weights: Mapping[str, torch.Tensor], text: TextEncoder) -> Mesm:
    """Return a model with a checkpoint's weights, in evaluation mode.

    Raises:
        CheckpointError: the weights do not fit the config.
    """
    refuse_larger(config, weights, classes=text.classes)
    model = build_model(config.model, classes=text.classes, max_words=config.dataset.max_words)
    refuse_misfits(model.state_dict(), weights)
    model.load_state_dict(dict(weights))
    return model.eval()


def refuse_larger(config: Config, weights: Mapping[str, torch.Tensor], *, classes: int) -> None:
    """Raise CheckpointError if a config describes a far larger network than the weights belong to.

    Checked before the network is built, so that a forged config cannot exhaust the memory. (A network on the device
    "meta" would give exact shapes, but the first one costs seconds of imports in torch.)
    """
    rows = classes + config.dataset.max_words + config.model.slots
    asked = config.model.rough_weights + rows * config.model.hidden_dim
    given = sum(value.numel() for value in weights.values())
    if asked > MAX_SIZE_RATIO * given:
        raise CheckpointError(
            f"The checkpoint's weights do not fit its own config, which needs about {asked:,} values; "
            f"the checkpoint has {given:,}."
        )


def refuse_misfits(expected: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor]) -> None:
    """Raise CheckpointError, with an example, if names or shapes of the weights differ from the model's."""
    missing = [name for name in expected if name not in weights]
    unknown = [name for name in weights if name not in expected]
    other = [name for name in expected if name in weights and weights[name].shape != expected[name].shape]
    kinds = (("missing", missing), ("unknown", unknown))
    reasons = [f"{len(names)} are {kind}, e.g. {names[0]}" for kind, names in kinds if names]
    if other:
        was, wanted = (tuple(state[other[0]].shape) for state in (weights, expected))
        reasons.append(f"{len(other)} are of another shape, e.g. {other[0]}: {was}, not {wanted}")
    if reasons:
        raise CheckpointError(f"The checkpoint's weights do not fit its own config: {'; '.join(reasons)}.")


def load_matching(model: Mesm, weights: Mapping[str, torch.Tensor], *, source: str) -> list[str]:
    """Load the weights whose names and shapes fit the model, and return the names of the model's other weights.

    Raises:
        CheckpointError: fewer than half of the model's weights fit.
    """
    own = model.state_dict()
    fitting = {name: value for name, value in weights.items() if name in own and own[name].shape == value.shape}
    if 2 * len(fitting) < len(own):
        widths = {name: tuple(value.shape) for name, value in weights.items() if name in own}
        example = next((n for n in own if n not in fitting and n in widths), next(iter(own)))
        raise CheckpointError(
            f"Only {len(fitting)} of the model's {len(own)} weights fit {source}; {example} is "
            f"{tuple(own[example].shape)} in the model, but {widths.get(example, 'missing')} there.",
            hint="Leave out --dataset and --config to take the checkpoint's settings.",
        )
    model.load_state_dict(fitting, strict=False)
    return [name for name in own if name not in fitting]


def build_model(config: ModelConfig, *, classes: int, max_words: int) -> Mesm:
    """Return an untrained model, with the fast forward unless ``config.fast`` is off.

    Args:
        config: widths, depths and switches.
        classes: number of classes of masked-word reconstruction.
        max_words: length of the longest sentence; there is one more word position, for the reconstruction.
    """
    dim = config.hidden_dim
    sizes = _Sizes(dim=dim, heads=config.heads, hidden=config.dim_feedforward, dropout=config.dropout)
    frame_word = segment_sentence = None
    if config.frame_word:
        frame_word = FrameWord(
            encoder=CrossEncoder(layers=config.frame_word_layers, blocks=1 if config.share_feedforward else 2, **sizes),
            head=WordHead(dim=dim, classes=classes, dropout=config.input_dropout),
            text_dim=config.text_dim,
        )
    if config.segment_sentence:
        segment_sentence = SegmentSentence(
            encoder=CrossEncoder(layers=config.segment_sentence_layers, **sizes),
            head=projection(in_dim=dim, out_dim=dim, layers=2, dropout=config.input_dropout),
            dim=dim,
        )
    model = Mesm(
        dim=dim,
        video_projection=projection(
            in_dim=config.video_dim + ENDPOINT_CHANNELS,
            out_dim=dim,
            layers=config.projection_layers,
            dropout=config.input_dropout,
        ),
        text_projection=projection(
            in_dim=config.text_dim, out_dim=dim, layers=config.projection_layers, dropout=config.input_dropout
        ),
        word_positions=(
            WordPositions(length=max_words + 1, dim=dim, dropout=config.dropout) if config.text_positions else None
        ),
        frame_word=frame_word,
        segment_sentence=segment_sentence,
        aligner=CrossEncoder(layers=config.aligner_layers, **sizes),
        encoder=[EncoderLayer(**sizes) for _ in range(config.encoder_layers)],
        decoder=Decoder(layers=config.decoder_layers, slots=config.slots, **sizes),
    )
    _initialise(model)
    return accelerate(model) if config.fast else model


def build_criterion(loss: LossConfig, model: ModelConfig) -> Criterion:
    """Return the criterion of a config, with the losses of the table that have a weight and their part of the model.

    Raises:
        ConfigError: ``loss.weights`` names a loss that is not in the table.
    """
    added = {entry.weight for entry in LOSSES.values() if entry.weight is not None} - set(type(loss).model_fields)
    for name in loss.weights:
        if name not in added:
            raise ConfigError(
                f"loss.weights.{name}: no loss has this weight.{did_you_mean(name, added)}",
                hint="Use it for losses that you add to mesm_core/losses/table.py.",
            )
    terms = []
    for name, entry in LOSSES.items():
        weight = None if entry.weight is None else loss.weight(entry.weight)
        without_weight = weight is None or (entry.optional and weight == 0)
        if (entry.weight is not None and without_weight) or (entry.part and not getattr(model, entry.part)):
            continue
        function = partial(entry.function, **{key: getattr(loss, key) for key in entry.settings})
        terms.append(Term(name, function, weight, every_layer=entry.every_layer))
    return Criterion(
        terms, cost_span=loss.cost_span, cost_giou=loss.cost_giou, cost_class=loss.cost_class, aux=loss.aux
    )


def _initialise(model: Mesm) -> None:
    """Initialise with Xavier-uniform the matrices for which the published code does so; the others keep defaults."""
    parts: list[nn.Module] = [model.aligner, model.encoder, model.decoder]
    if model.frame_word is not None:
        parts.append(model.frame_word.encoder)
    for part in parts:
        for name, parameter in part.named_parameters():
            if parameter.dim() > 1 and name != "slots.weight":
                nn.init.xavier_uniform_(parameter)
    for layer in model.decoder.layers:
        if isinstance(layer, DecoderLayer):
            nn.init.zeros_(layer.self_out.bias)
            nn.init.zeros_(layer.cross_out.bias)
