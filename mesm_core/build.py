"""Config -> objects: the only module that reads a config and calls constructors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import nn

from mesm_core.config.schema import Config, LossConfig, ModelConfig
from mesm_core.data.annotations import Annotations, read_split
from mesm_core.data.collate import Framing
from mesm_core.data.counts import label_words, read_glove_counts
from mesm_core.data.dataset import MomentDataset
from mesm_core.data.features import FeatureStore
from mesm_core.errors import CheckpointError, DeviceError
from mesm_core.inference.decode import Decoding
from mesm_core.losses.criterion import Criterion
from mesm_core.metrics.report import LENGTH_RANGES, SUPERLONG
from mesm_core.model.cross_encoder import CrossEncoder
from mesm_core.model.detr import Decoder, DecoderLayer, EncoderLayer
from mesm_core.model.frame_word import FrameWord, WordHead
from mesm_core.model.layers import projection
from mesm_core.model.mesm import Mesm
from mesm_core.model.positions import WordPositions
from mesm_core.model.segment_sentence import SegmentSentence
from mesm_core.text.encoder import TextEncoder
from mesm_core.text.glove import GloveTable, GloveText, read_glove
from mesm_core.text.words import make_tagger
from mesm_core.types import Query

ENDPOINT_CHANNELS = 2


class _Sizes(TypedDict):
    dim: int
    heads: int
    hidden: int
    dropout: float


@dataclass(frozen=True)
class Paths:
    """Where a run's data lies."""

    annotations: Path
    features: tuple[Path, ...]
    glove: Path

    def as_json(self) -> dict[str, Any]:
        """Return the paths, absolute, as strings."""
        return {
            "annotations": str(self.annotations.resolve()),
            "features": [str(path.resolve()) for path in self.features],
            "glove": str(self.glove.resolve()),
        }


def data_paths(
    config: Config,
    root: Path,
    *,
    annotations: Path | None = None,
    features: Sequence[Path] = (),
    glove: Path | None = None,
) -> Paths:
    """Return the paths that are given, and the config's under ``root`` for the others."""
    return Paths(
        annotations=annotations or root / config.dataset.annotations,
        features=tuple(features) or tuple(root / name for name in config.dataset.features),
        glove=glove or root / config.text.glove,
    )


def build_device(name: str) -> torch.device:
    """Return the device: ``auto`` takes CUDA where there is one, else the CPU.

    Raises:
        DeviceError: the name is none of auto, cpu, cuda, cuda:N, or the device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in {"cpu", "cuda"}:
        raise DeviceError(f"Unknown device '{name}'.", hint="Use auto, cpu, cuda or cuda:N.")
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if not torch.cuda.is_available() or count == 0:
            raise DeviceError(
                "No CUDA device is available.", hint="Use --device cpu, or install a CUDA build of torch."
            )
        if (device.index or 0) >= count:
            raise DeviceError(f"{name} is not there: this machine has {count} CUDA device(s), from cuda:0.")
    return device


def build_text(config: Config, paths: Paths) -> GloveText:
    """Return the text encoder of a training run: word vectors and labels from files.

    Raises:
        TextError: a file is missing or does not fit; DataError: the count file is malformed.
    """
    counts = paths.annotations / config.text.counts
    words = read_glove_counts(counts)
    labels = label_words(words, config.text.vocab_size, path=counts)
    table = read_glove(paths.glove, words, dim=config.model.text_dim, seed=config.train.seed)
    return _glove_text(config, table, labels)


def build_text_from_state(config: Config, state: Mapping[str, Any]) -> GloveText:
    """Return the text encoder that a checkpoint holds."""
    table = GloveTable(tuple(state["words"]), state["vectors"].numpy())
    return _glove_text(config, table, state["label_words"])


def build_features(config: Config, paths: Paths) -> FeatureStore:
    """Return the video features.

    Raises:
        FeatureError: a file is missing or damaged.
    """
    return FeatureStore(
        paths.features,
        dim=config.model.video_dim,
        max_frames=config.dataset.max_frames,
        shorten=config.dataset.shorten,
        cache_bytes=config.data.cache_gb * 2**30,
    )


def build_dataset(
    config: Config, annotations: Annotations, text: TextEncoder, features: FeatureStore, *, skip_missing: bool
) -> tuple[MomentDataset, list[str]]:
    """Return a split's dataset and the videos it does without.

    Raises:
        FeatureError: videos have no features, and ``skip_missing`` is off or nothing would be left.
    """
    queries: Sequence[Query] = annotations.queries
    missing = features.missing(query.vid for query in queries)
    if not skip_missing or len(missing) == len({query.vid for query in queries}):
        features.require(query.vid for query in queries)
    absent = set(missing)
    dataset = MomentDataset(
        [query for query in queries if query.vid not in absent],
        text=text,
        features=features,
        framing=build_framing(config),
        max_gather_size=config.dataset.max_gather_size,
    )
    return dataset, missing


def build_split(
    config: Config,
    paths: Paths,
    split: str,
    text: TextEncoder,
    features: FeatureStore,
    *,
    skip_missing: bool = False,
) -> tuple[MomentDataset, list[str]]:
    """Return the dataset of a split and the videos it does without."""
    annotations = read_split(config.dataset.name, paths.annotations, split)
    return build_dataset(config, annotations, text, features, skip_missing=skip_missing)


def evaluation_settings(config: Config) -> dict[str, Any]:
    """Return the arguments of ``inference.evaluate.evaluate`` that a config decides."""
    return {
        "batch_size": config.eval.batch_size,
        "decoding": build_decoding(config),
        "thresholds": config.eval.thresholds,
        "ranges": LENGTH_RANGES | (SUPERLONG if config.eval.superlong else {}),
    }


def build_framing(config: Config) -> Framing:
    """Return how seconds and frames belong together."""
    data = config.dataset
    return Framing(clip_len=data.clip_len, span_unit=data.span_unit, context=data.context, max_windows=data.max_windows)


def build_decoding(config: Config) -> Decoding:
    """Return how outputs become windows."""
    return Decoding(max_time=config.eval.max_time, clip_len=config.dataset.clip_len)


def build_trained(config: Config, weights: Mapping[str, torch.Tensor], text: TextEncoder) -> Mesm:
    """Return a model with a checkpoint's weights, in evaluation mode.

    Raises:
        CheckpointError: the weights do not fit the config.
    """
    model = build_model(config.model, classes=text.classes, max_words=config.dataset.max_words)
    try:
        model.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise CheckpointError(f"The checkpoint's weights do not fit its own config: {error}") from error
    return model.eval()


def build_model(config: ModelConfig, *, classes: int, max_words: int) -> Mesm:
    """Return an untrained model.

    Args:
        config: widths, depths and switches.
        classes: classes of masked-word reconstruction.
        max_words: longest sentence; word positions have one more, for the reconstruction.
    """
    dim = config.hidden_dim
    sizes = _Sizes(dim=dim, heads=config.heads, hidden=config.dim_feedforward, dropout=config.dropout)
    frame_word = segment_sentence = None
    if config.frame_word:
        frame_word = FrameWord(
            encoder=CrossEncoder(layers=config.frame_word_layers, roles=1 if config.share_feedforward else 2, **sizes),
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


def _glove_text(config: Config, table: GloveTable, labels: Sequence[str]) -> GloveText:
    tagger = make_tagger(config.text.tagger)
    return GloveText(table=table, label_words=labels, tagger=tagger, max_words=config.dataset.max_words)


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
        if isinstance(layer, DecoderLayer):
            nn.init.zeros_(layer.self_out.bias)
            nn.init.zeros_(layer.cross_out.bias)
