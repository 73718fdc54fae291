"""Which files zero-shot reads: CLIP's text weights, and of a dataset's feature files the one with CLIP's images."""

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
    """Return whether a word in a checkpoint's place means zero-shot; a checkpoint of that name comes first."""
    return str(path) == ZERO_SHOT and not path.is_file() and not (path / WEIGHTS).is_file()


def refuse_dataset(dataset: str | None, path: Path) -> None:
    """Raise ConfigError where a dataset is chosen for a checkpoint, which has its own."""
    if dataset is not None:
        raise ConfigError(
            f"--dataset chooses the settings of {ZERO_SHOT}; {path} has its own.",
            hint="Leave out --dataset; --data-dir, --annotations and --features say where data lie.",
        )


def zero_shot_home(config: Config) -> Path:
    """Return a path beside which outputs are written, in the place of a run's checkpoint."""
    return RUNS / f"{config.dataset.name}-{ZERO_SHOT}" / ZERO_SHOT


def zero_shot_paths(
    config: Config | None,
    root: Path | None,
    *,
    annotations: Path | None = None,
    features: Sequence[Path] = (),
    clip: Path | None = None,
) -> Paths:
    """Return the given paths, and for the others the config's below the data folder.

    Args:
        config: settings of a dataset, or None for given features alone.

    Raises:
        FeatureError: there are neither features nor settings that name them.
    """
    folder = root or DATA_ROOT
    if config is None:
        if not features:
            raise FeatureError(
                f"{ZERO_SHOT} has no feature files.", hint="Give --features FILE, or --dataset NAME for a preset's."
            )
        default = TextConfig.model_fields["clip"].default
        return Paths(annotations or folder, tuple(features), clip or folder / str(default))
    return Paths(
        annotations=annotations or folder / config.dataset.annotations,
        features=tuple(features) or tuple(folder / name for name in config.dataset.features),
        text=clip or folder / config.text.clip,
    )


def clip_features(config: Config | None, paths: Paths, *, given: bool, width: int) -> FeatureStore:
    """Return the features of the first file that is as wide as the joint space; those after it need not be there.

    Args:
        given: the files are the user's, so that all must be there; of a preset's files that are not, the preset says
            the width.

    Raises:
        FeatureError: there is none, or a file is missing or damaged.
    """
    usual: Sequence[int | None] = () if config is None or given else config.dataset.feature_dims
    if len(usual) != len(paths.features):
        usual = [None] * len(paths.features)
    widths = []
    for path, told in zip(paths.features, usual, strict=True):
        own = _width(path) if told is None or path.is_file() else told
        if own == width:
            return FeatureStore([path], dim=width, max_frames=MOST)
        widths.append(str(own))
    raise no_clip_features(" and ".join(widths), width)


def _width(path: Path) -> int:
    store = FeatureStore([path], dim=1, max_frames=MOST)
    (width,) = store.widths()
    store.close()
    return width
