"""Settings -> the extraction of missing features for a folder of videos."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from mesm_core import hdf5
from mesm_core.backbones.registry import find_backbone
from mesm_core.backbones.weights import find_weights, require_weights
from mesm_core.build.paths import Paths
from mesm_core.config.backbones import BACKBONES
from mesm_core.config.schema import Config
from mesm_core.data.readers import read_split
from mesm_core.data.splits import named_split
from mesm_core.errors import ConfigError, DataError, count, listing
from mesm_core.extraction.job import Extraction
from mesm_core.extraction.outputs import output_path
from mesm_core.extraction.settings import Settings
from mesm_core.extraction.setup import Options
from mesm_core.extraction.sources import VideoFile, find_videos
from mesm_core.inputs import open_hdf5
from mesm_core.video.names import without_suffix


@dataclass(frozen=True)
class OwnVideos:
    """The videos that annotations name, with their files and features.

    ``files``: video files by name, including those of other videos in the feature files; ``missing``: videos that have
    a file but no features; ``absent``: videos with neither features nor a file; ``folder``: folder of the features.
    """

    names: tuple[str, ...]
    files: Mapping[str, Path]
    missing: tuple[str, ...]
    absent: tuple[str, ...]
    folder: Path


def find_own_videos(config: Config, paths: Paths, splits: Iterable[str]) -> OwnVideos:
    """Find the files and features of the videos in the given splits; ``dataset.videos`` must be set.

    Raises:
        ConfigError: the backbones or the length of rows are not set, or the paths of the features are not those that
            the extraction would write.
        DataError: annotations cannot be read, or the folder of videos does not exist.
    """
    folder = features_folder(config, paths)
    named: dict[str, None] = {}
    for split in dict.fromkeys(splits):
        read = read_split(config.dataset.name, paths.annotations, named_split(config.dataset, split))
        named.update(dict.fromkeys(without_suffix(query.vid) for query in read.queries))
    source = Path(config.dataset.videos)
    if not source.is_dir():
        raise DataError(f"dataset.videos: there is no folder {source}.", hint="Name the folder that holds the videos.")
    held = [_names_in(path) for path in paths.features]
    # Features of other splits are in the same files, so they must have the same settings.
    wanted = named.keys() | set().union(*held)
    files = {video.name: video.path for video in find_videos([source]) if video.name in wanted}
    complete = set.intersection(*held)
    lacking = [name for name in named if name not in complete]
    return OwnVideos(
        tuple(named),
        files,
        missing=tuple(name for name in lacking if name in files),
        absent=tuple(name for name in lacking if name not in files),
        folder=folder,
    )


def features_folder(config: Config, paths: Paths) -> Path:
    """Return the folder of the feature files that the backbones write.

    Raises:
        ConfigError: as for ``find_own_videos``.
    """
    names = config.dataset.backbones
    if not names:
        raise ConfigError(
            "dataset.videos is set, but dataset.backbones, which extract the features, are not.",
            hint=f"Choose among {listing(BACKBONES)}: --backbone clip-b32, repeatable.",
        )
    for name in names:
        find_backbone(name)
    if config.dataset.clip_len <= 0:
        raise ConfigError(
            "dataset.videos needs the number of seconds per row of features, but dataset.clip_len is -1.",
            hint="Set it, e.g. --set dataset.clip_len=2.",
        )
    folder = paths.features[0].parent
    expected = tuple(output_path(folder, name) for name in names)
    if tuple(paths.features) != expected:
        given = " + ".join(map(str, paths.features))
        raise ConfigError(
            f"{' + '.join(names)} write the features {' + '.join(p.name for p in expected)} in one folder, but "
            f"dataset.features is {given}.",
            hint="Leave out dataset.features (--features), or dataset.videos if the features exist already.",
        )
    return folder


def own_extraction(
    config: Config, found: OwnVideos, *, weights: Mapping[str, Path] = {}, device: str = "auto"
) -> Extraction | None:
    """Return the extraction that completes and updates the features of these videos.

    It extracts missing features, and features of videos whose files have changed. Returns None if there are no video
    files, or if no features are missing and the weights needed for the comparison are not available.

    Args:
        weights: weights file of each backbone that has weights; default: the folder of ``mesm weights``.

    Raises:
        MesmError: weights are missing or do not fit, or the existing features were made with other settings.
    """
    if not found.files:
        return None
    given = dict(weights)
    for name in config.dataset.backbones:
        if name in given or not BACKBONES[name].weights:
            continue
        path = find_weights(name) if not found.missing else require_weights(name)
        if path is None:
            return None
        given[name] = path
    return Extraction(
        [VideoFile(name, found.files[name]) for name in sorted(found.files)],
        found.folder,
        config.dataset.backbones,
        settings=Settings(Fraction(str(config.dataset.clip_len))),
        weights=given,
        options=Options(device=device),
        resume=True,
    )


def refuse_absent(config: Config, found: OwnVideos) -> None:
    """Raise DataError if annotations name videos that have neither a file nor features."""
    if found.absent:
        raise DataError(
            f"{len(found.absent)} of {count(len(found.names), 'video')} that the annotations name are not in "
            f"{config.dataset.videos}: {listing(found.absent)}.",
            hint="Videos are named like their files, with or without the ending. --skip-missing leaves them out.",
        )


def _names_in(path: Path) -> set[str]:
    """Return the names of the videos in a feature file, or none if the file does not exist."""
    if not path.is_file():
        return set()
    with open_hdf5(path) as file:
        return {name for name, _ in hdf5.datasets(file)}
