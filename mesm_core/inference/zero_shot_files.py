"""Finds the files that zero-shot reads: CLIP's text weights, and the feature file with CLIP's image embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mesm_core.build import Paths
from mesm_core.checkpoint import WEIGHTS
from mesm_core.config.load import DATA_ROOT
from mesm_core.config.schema import MOST, Config, TextConfig
from mesm_core.data.features import FeatureStore
from mesm_core.errors import ConfigError, FeatureError
from mesm_core.inference.zero_shot_retriever import ZERO_SHOT, no_clip_features

RUNS = Path("runs")


def names_zero_shot(path: Path) -> bool:
    """Return whether an argument in place of a checkpoint means zero-shot; a checkpoint of that name has priority."""
    return str(path) == ZERO_SHOT and not path.is_file() and not (path / WEIGHTS).is_file()


def refuse_dataset(dataset: str | None, path: Path) -> None:
    """Raise ConfigError if a dataset is chosen for a checkpoint, which has its own."""
    if dataset is not None:
        raise ConfigError(
            f"--dataset selects the settings of {ZERO_SHOT}; {path} has its own settings.",
            hint="Leave out --dataset; use --data-dir, --annotations and --features for the paths of the data.",
        )


def zero_shot_home(config: Config) -> Path:
    """Return the path that replaces a run's checkpoint path in the names of outputs."""
    return RUNS / f"{config.dataset.name}-{ZERO_SHOT}" / ZERO_SHOT


def zero_shot_paths(
    config: Config | None,
    root: Path | None,
    *,
    annotations: Path | None = None,
    features: Sequence[Path] = (),
    clip: Path | None = None,
) -> Paths:
    """Return the given paths; the others are those of the config in the data folder.

    Args:
        config: settings of a dataset, or None for given features alone.

    Raises:
        FeatureError: there are neither features nor settings that name them.
    """
    folder = root or DATA_ROOT
    if config is None:
        if not features:
            raise FeatureError(
                f"{ZERO_SHOT} needs feature files.", hint="Give --features FILE, or --dataset NAME for a preset's."
            )
        default = TextConfig.model_fields["clip"].default
        return Paths(annotations or folder, tuple(features), clip or folder / str(default))
    return Paths(
        annotations=annotations or folder / config.dataset.annotations,
        features=tuple(features) or tuple(folder / name for name in config.dataset.features),
        text=clip or folder / config.text.clip,
    )


def clip_features(config: Config | None, paths: Paths, *, given: bool, width: int) -> FeatureStore:
    """Return the features of the first file with the width of the joint space; later files may be missing.

    Args:
        given: True if the user chose the files, which must then exist; else missing files have the preset's widths.

    Raises:
        FeatureError: no file has that width, or a file is missing or damaged.
    """
    usual: Sequence[int | None] = () if config is None or given else config.dataset.feature_dims
    if len(usual) != len(paths.features):
        usual = [None] * len(paths.features)
    widths = []
    for path, preset_width in zip(paths.features, usual, strict=True):
        own = _width(path) if preset_width is None or path.is_file() else preset_width
        if own == width:
            return FeatureStore([path], dim=width, max_frames=MOST)
        widths.append(str(own))
    raise no_clip_features(" and ".join(widths), width)


def _width(path: Path) -> int:
    store = FeatureStore([path], dim=1, max_frames=MOST)
    (width,) = store.widths()
    store.close()
    return width
