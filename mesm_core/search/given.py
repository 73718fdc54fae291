"""Features that are given in HDF5 files, instead of videos, when an index is built."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from mesm_core import hdf5
from mesm_core.backbones.registry import find_backbone
from mesm_core.config.backbones import BACKBONES
from mesm_core.config.schema import SHORTEST_CLIP
from mesm_core.data.features import prepare_frames
from mesm_core.data.kinds import refuse_other_kinds
from mesm_core.data.origin import read_origin
from mesm_core.errors import FeatureError
from mesm_core.extraction.outputs import HASH
from mesm_core.extraction.recipe import CLIP
from mesm_core.inputs import open_hdf5
from mesm_core.search.manifest import Kept, Network

SUFFIXES = (".hdf5", ".h5")
SHA256_LETTERS = 64
LONGEST_ROW = 600.0
MISFIT_ROWS, MISFIT_SHARE = 2, 0.15
"""Rows, and share of all rows, by which a recorded duration may differ from them."""


@dataclass(frozen=True, slots=True)
class GivenVideo:
    """The features of a video in feature files.

    ``name``: of its dataset; ``rows``: (T, D) float32 by the searched backbone, checked; ``duration`` and ``clip_len``
    in seconds; ``content``: hash of the rows; ``source``: hash of the video file, or None if it is not recorded;
    ``kept``: where the features by all backbones are.
    """

    name: str
    rows: np.ndarray
    duration: float
    clip_len: float
    content: str
    source: str | None
    kept: tuple[Kept, ...]


@dataclass(frozen=True, slots=True)
class FeatureFile:
    """A feature file: its path, the network that made its features, the names of its videos, and the seconds per row of
    the first one, if it records them."""

    path: Path
    network: Network
    names: tuple[str, ...]
    clip_len: float | None


def split_sources(sources: Iterable[str]) -> tuple[list[Path], list[str]]:
    """Return the feature files among sources, and the other sources, which name videos.

    >>> split_sources(["videos", "clip_image.hdf5"])
    ([PosixPath('clip_image.hdf5')], ['videos'])
    """
    files: list[Path] = []
    others: list[str] = []
    for source in dict.fromkeys(sources):
        if source.lower().endswith(SUFFIXES):
            files.append(Path(source))
        else:
            others.append(source)
    return files, others


def look_at(path: Path) -> FeatureFile:
    """Return what a feature file has; reads no features.

    Raises:
        FeatureError: it is missing, damaged or empty, or it does not say which backbone made its features.
    """
    refuse_other_kinds(path)
    with open_hdf5(path) as file:
        nodes = list(hdf5.datasets(file))
        if not nodes:
            raise FeatureError(f"{path} has no features.")
        name, node = nodes[0]
        origin = read_origin(node)
        if node.ndim != 2:
            raise FeatureError(f"'{name}' in {path} has the shape {node.shape}; features are (frames, dim).")
        backbone = str(origin.get("backbone") or _usual_backbone(path))
        weights = origin.get("weights")
        network = Network(backbone, None if weights is None else str(weights), int(node.shape[1]))
        clip_len = _positive(read_origin(node).get("clip_len"))
    usual = BACKBONES[backbone].width if backbone in BACKBONES else network.width
    if network.width != usual:
        raise FeatureError(
            f"{path} has features {network.width} wide, but those of {backbone} are {usual} wide.",
            hint="Give the file with the features of that backbone.",
        )
    return FeatureFile(path, network, tuple(name for name, _ in nodes), clip_len)


def in_order(files: Sequence[FeatureFile]) -> list[FeatureFile]:
    """Return the files with that of the searched backbone first.

    Raises:
        FeatureError: no file has features that can be compared with sentences, or two files have the same backbone.
    """
    names = [file.network.name for file in files]
    for file in files:
        if names.count(file.network.name) > 1:
            raise FeatureError(
                f"{' and '.join(str(f.path) for f in files if f.network.name == file.network.name)} have features of "
                f"the same backbone, {file.network.name}.",
                hint="Add them one after the other: `mesm index add`.",
            )
    refuse_speechless(names)
    return sorted(files, key=lambda file: (file.network.name != CLIP, file.network.name))


def refuse_speechless(names: Sequence[str]) -> None:
    """Raise FeatureError if no backbone of an index has features that can be compared with sentences."""
    for name in names:
        find_backbone(name)
    if CLIP not in names:
        raise FeatureError(
            f"{' and '.join(names)} cannot be searched: only features of {CLIP} can be compared with sentences.",
            hint=f"Use {CLIP}; other backbones can be kept in addition, for models that need them.",
        )


def read_given(files: Sequence[FeatureFile], name: str, *, clip_len: float | None) -> GivenVideo:
    """Return a video's features.

    Args:
        files: that of the searched backbone first; clip_len: seconds per row, used if the file does not record it.

    Raises:
        FeatureError: a file lacks the video, its features are damaged or were made with other weights, or the seconds
            per row are unknown.
    """
    first, *others = files
    rows, about = _read(first, name)
    for other in others:
        if name not in other.names:
            raise FeatureError(f"{other.path} has no features of '{name}', unlike {first.path}.")
    seconds = about.clip_len or clip_len or (about.duration / len(rows) if about.duration else None)
    if seconds is None:
        raise FeatureError(
            f"{first.path} records neither the seconds per row nor the duration of '{name}'.",
            hint="Give the seconds per row: --clip-len SECONDS.",
        )
    kept = tuple(Kept(file.network.name, str(file.path.absolute()), name) for file in files)
    duration = about.duration or len(rows) * seconds
    _refuse_misfit(f"'{name}' in {first.path}", len(rows), seconds, duration)
    # Without the hash of the video, features that are equal by chance must not make two videos one.
    identity = f"{name}\0" if about.source is None else ""
    content = hashlib.sha256(identity.encode() + np.ascontiguousarray(rows).tobytes()).hexdigest()
    return GivenVideo(name, rows, duration, seconds, content, about.source, kept)


@dataclass(frozen=True, slots=True)
class _About:
    """Attributes of a dataset, each None if it is not recorded."""

    clip_len: float | None
    duration: float | None
    source: str | None


def _read(file: FeatureFile, name: str) -> tuple[np.ndarray, _About]:
    where = f"'{name}' in {file.path}"
    with open_hdf5(file.path) as opened:
        node = hdf5.find(opened, name)
        if not isinstance(node, h5py.Dataset):
            raise FeatureError(f"{where} does not exist.")
        rows = hdf5.as_float32(hdf5.read_numbers(node, where=where))
        said = read_origin(node, ("backbone", "weights", "clip_len", "duration", HASH))
    _refuse_other_weights(file, said.get("weights"), where)
    prepare_frames([rows], dim=file.network.width, max_frames=max(rows.size, 1), shorten="first", where=where)
    source = said.get(HASH)
    recorded = str(source) if source is not None and len(str(source)) == SHA256_LETTERS else None
    return rows, _About(_positive(said.get("clip_len")), _positive(said.get("duration")), recorded)


def _refuse_misfit(where: str, rows: int, seconds: float, duration: float) -> None:
    """Raise FeatureError if rows of some seconds do not cover a duration, so that moments would be elsewhere."""
    if not SHORTEST_CLIP <= seconds <= LONGEST_ROW:
        raise FeatureError(
            f"{where} has {seconds:g} seconds per row; they must be {SHORTEST_CLIP:g} to {LONGEST_ROW:g}."
        )
    if abs(duration / seconds - rows) > max(MISFIT_ROWS, MISFIT_SHARE * rows):
        raise FeatureError(
            f"{where} has {rows} rows of {seconds:g} s, {rows * seconds:g} s in all, "
            f"but its duration is {duration:g} s.",
            hint="Correct its attribute duration or clip_len. If it has no clip_len, give --clip-len SECONDS.",
        )


def _refuse_other_weights(file: FeatureFile, weights: object, where: str) -> None:
    ours = file.network.weights
    if weights is not None and ours is not None and weights != ours:
        raise FeatureError(
            f"{where} was made with weights {str(weights)[:12]}, but '{file.names[0]}' with {ours[:12]}.",
            hint="Features of different weights cannot be compared: extract them again.",
        )


def _positive(value: object) -> float | None:
    if isinstance(value, int | float) and 0 < value < math.inf:
        return float(value)
    return None


def _usual_backbone(path: Path) -> str:
    """Return the backbone that a file's name, such as clip_image.hdf5, stands for."""
    for name, entry in BACKBONES.items():
        if Path(entry.file).name == path.name:
            return name
    raise FeatureError(
        f"{path} does not record which backbone made its features.",
        hint=f"If it was {CLIP}, name the file {Path(find_backbone(CLIP).file).name}; or extract with `mesm extract`.",
    )
