"""Settings -> paths, features, datasets, and the arguments of decoding and evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from mesm_core.build.encoders import find_encoder
from mesm_core.build.paths import Paths
from mesm_core.config.schema import Config
from mesm_core.data.collate import Framing
from mesm_core.data.count_dataset import dataset_files
from mesm_core.data.dataset import MomentDataset
from mesm_core.data.features import FeatureStore
from mesm_core.data.readers import annotation_files, read_split
from mesm_core.data.shortening import Shortening
from mesm_core.data.splits import named_split
from mesm_core.decode import Decoding
from mesm_core.errors import ConfigError, did_you_mean, listing
from mesm_core.metrics.report import LENGTH_RANGES, SUPERLONG
from mesm_core.metrics.table import summary_names
from mesm_core.text.encoder import TextEncoder
from mesm_core.types import Query


def data_paths(
    config: Config,
    root: Path,
    *,
    annotations: Path | None = None,
    features: Sequence[Path] = (),
    text: Path | None = None,
) -> Paths:
    """Return the given paths; those that are not given are the config's paths under ``root``.

    If the GloVe text file is missing but a compressed one exists, the path is that of the compressed file.
    """
    folder = annotations or root / config.dataset.annotations
    encoder = find_encoder(config.text.encoder)
    own = (folder if encoder.with_annotations else root) / getattr(config.text, encoder.setting)
    return Paths(
        annotations=folder,
        features=tuple(features) or tuple(root / name for name in config.dataset.features),
        text=encoder.locate(text or own),
    )


def data_files(config: Config, paths: Paths, splits: Sequence[str] = ()) -> list[Path]:
    """Return the files of a dataset, and of the given splits. An output must not be one of them."""
    name = config.dataset.name
    given = annotation_files(name, paths.annotations, splits)
    return [*paths.features, paths.text, *given, *dataset_files(config.dataset, paths.annotations)]


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
        keep_as=config.data.keep_as,
    )


@dataclass(frozen=True)
class Split:
    """The dataset of a split, its videos without features, and the number of repaired annotations by kind."""

    dataset: MomentDataset
    missing: list[str]
    repairs: dict[str, int]


def build_split(
    config: Config,
    paths: Paths,
    split: str,
    text: TextEncoder,
    features: FeatureStore,
    *,
    skip_missing: bool = False,
    absent: bool = False,
) -> Split:
    """Return the dataset of a split; ``split`` may be "train" or "val" if the dataset's splits are files.

    Args:
        skip_missing: leave out videos without features.
        absent: argument of ``MomentDataset``.

    Raises:
        DataError: the annotations are missing or malformed.
        FeatureError: videos have no features, and ``skip_missing`` is off or no video would remain.
    """
    found = read_queries(config, paths, split, features, skip_missing=skip_missing)
    dataset = MomentDataset(
        found.queries,
        text=text,
        features=features,
        framing=build_framing(config),
        max_gather_size=config.dataset.max_gather_size,
        readers=config.data.readers,
        absent=absent,
    )
    return Split(dataset, found.missing, found.repairs)


@dataclass(frozen=True)
class SplitQueries:
    """The queries of a split whose videos have features, the videos without features, and the repairs by kind."""

    queries: tuple[Query, ...]
    missing: list[str]
    repairs: dict[str, int]

    def __len__(self) -> int:
        return len(self.queries)


def read_queries(
    config: Config, paths: Paths, split: str, features: FeatureStore, *, skip_missing: bool = False
) -> SplitQueries:
    """Return the queries of a split; arguments and errors are those of ``build_split``."""
    annotations = read_split(config.dataset.name, paths.annotations, named_split(config.dataset, split))
    vids = [query.vid for query in annotations.queries]
    missing = features.missing(vids)
    if not skip_missing or len(missing) == len(set(vids)):
        features.require(vids)
    absent = set(missing)
    queries = tuple(query for query in annotations.queries if query.vid not in absent)
    return SplitQueries(queries, missing, dict(annotations.repairs))


class MetricSettings(TypedDict):
    """The metrics' thresholds and length ranges: arguments of ``score_predictions``."""

    thresholds: Sequence[float]
    ranges: Mapping[str, tuple[float, float]]


class EvaluationSettings(MetricSettings):
    """Arguments of ``inference.evaluate.evaluate``."""

    batch_size: int
    decoding: Decoding
    shortening: Shortening


def evaluation_settings(config: Config) -> EvaluationSettings:
    """Return the arguments of ``inference.evaluate.evaluate`` that a config determines."""
    return {
        "batch_size": config.eval.batch_size,
        "decoding": build_decoding(config),
        "shortening": build_shortening(config),
        **metric_settings(config),
    }


def metric_settings(config: Config) -> MetricSettings:
    """Return the thresholds and length ranges of the metrics that a config determines."""
    return {
        "thresholds": config.eval.thresholds,
        "ranges": LENGTH_RANGES | (SUPERLONG if config.eval.superlong else {}),
    }


def check_select(config: Config) -> None:
    """Raise ConfigError if ``eval.select`` is not a value of the summary."""
    known = summary_names()
    if config.eval.select not in known:
        raise ConfigError(
            f"eval.select: the summary has no value called '{config.eval.select}'."
            f"{did_you_mean(config.eval.select, known)}",
            hint=f"Known: {listing(known)}.",
        )


def build_framing(config: Config) -> Framing:
    """Return the settings that relate seconds to frames."""
    data = config.dataset
    return Framing(clip_len=data.clip_len, span_unit=data.span_unit, context=data.context, max_windows=data.max_windows)


def build_shortening(config: Config) -> Shortening:
    """Return how long videos are shortened."""
    data = config.dataset
    return Shortening(max_frames=data.max_frames, shorten=data.shorten, clip_len=data.clip_len)


def build_decoding(config: Config, *, whole: bool = False) -> Decoding:
    """Return how outputs become windows.

    Args:
        whole: allow windows anywhere in a video, not only before ``eval.max_time``.
    """
    return Decoding(max_time=None if whole else config.eval.max_time, clip_len=config.dataset.clip_len)
