"""Config -> objects: the only module that reads a config and calls constructors."""

from __future__ import annotations

from torch import nn

from mesm_core.config.schema import LossConfig, ModelConfig
from mesm_core.losses.criterion import Criterion
from mesm_core.model.cross_encoder import CrossEncoder
from mesm_core.model.detr import Decoder, EncoderLayer
from mesm_core.model.frame_word import FrameWord, WordHead
from mesm_core.model.layers import projection
from mesm_core.model.mesm import Mesm
from mesm_core.model.positions import WordPositions
from mesm_core.model.segment_sentence import SegmentSentence

ENDPOINT_CHANNELS = 2


def build_model(config: ModelConfig, *, classes: int, max_words: int) -> Mesm:
    """Return an untrained model.

    Args:
        config: widths, depths and switches.
        classes: classes of masked-word reconstruction.
        max_words: longest sentence; word positions have one more, for the reconstruction.
    """
    dim = config.hidden_dim
    sizes = {
        "dim": dim, "heads": config.heads, "hidden": config.dim_feedforward, "dropout": config.dropout,
    }  # fmt: skip
    frame_word = segment_sentence = None
    if config.frame_word:
        frame_word = FrameWord(
            encoder=CrossEncoder(
                layers=config.frame_word_layers, roles=1 if config.share_feedforward else 2, **sizes
            ),
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
    return model


def build_criterion(loss: LossConfig, model: ModelConfig) -> Criterion:
    """Return the losses of a config."""
    return Criterion(
        weights={
            "loss_span": loss.span,
            "loss_giou": loss.giou,
            "loss_label": loss.label,
            "loss_saliency": loss.saliency,
            "loss_rec_fw": loss.rec_fw,
            "loss_rec_ss": loss.rec_ss,
        },
        cost_span=loss.cost_span,
        cost_giou=loss.cost_giou,
        cost_class=loss.cost_class,
        eos_coef=loss.eos_coef,
        aux=loss.aux,
        rank_coef=loss.rank_coef,
        triplet=loss.triplet,
        margin=loss.margin,
        iou_gamma=loss.iou_gamma,
        tau=loss.tau,
        word_reconstruction=model.frame_word,
        segment_sentence=model.segment_sentence,
    )


def _initialise(model: Mesm) -> None:
    """Xavier-uniform for the matrices that the published code initialises so; PyTorch's defaults elsewhere."""
    parts: list[nn.Module] = [model.aligner, model.encoder, model.decoder]
    if model.frame_word is not None:
        parts.append(model.frame_word.encoder)
    for part in parts:
        for name, parameter in part.named_parameters():
            if parameter.dim() > 1 and name != "slots.weight":
                nn.init.xavier_uniform_(parameter)
    for layer in model.decoder.layers:
        nn.init.zeros_(layer.self_out.bias)
        nn.init.zeros_(layer.cross_out.bias)
