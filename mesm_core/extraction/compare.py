"""Compares extracted features with published ones by the cosine similarity of each row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mesm_core import hdf5
from mesm_core.config.backbones import BACKBONES
from mesm_core.errors import FeatureError, listing
from mesm_core.extraction.outputs import output_path
from mesm_core.extraction.shards import Shard
from mesm_core.inputs import open_hdf5


@dataclass(frozen=True)
class VideoCosines:
    """A video's cosines (rows,) for the rows in both files, and the number of rows in each file."""

    name: str
    cosines: np.ndarray
    ours: int
    theirs: int

    @property
    def mean(self) -> float:
        """Mean over the rows."""
        return float(self.cosines.mean())

    @property
    def worst_row(self) -> int:
        """Row of the lowest cosine."""
        return int(self.cosines.argmin())

    def as_json(self) -> dict[str, Any]:
        """Return the comparison as JSON-able values."""
        return {
            "video": self.name,
            "mean": self.mean,
            "min": float(self.cosines.min()),
            "worst_row": self.worst_row,
            "rows": {"ours": self.ours, "theirs": self.theirs},
            "cosines": [round(float(cosine), 6) for cosine in self.cosines],
        }


@dataclass(frozen=True)
class Comparison:
    """``videos``: videos in both files, least similar first; the other fields list videos in one file only."""

    ours: Path
    theirs: Path
    videos: list[VideoCosines] = field(default_factory=list)
    only_ours: list[str] = field(default_factory=list)
    only_theirs: list[str] = field(default_factory=list)

    @property
    def mean(self) -> float:
        """Mean cosine over all rows."""
        return float(np.concatenate([video.cosines for video in self.videos]).mean())

    @property
    def lowest(self) -> float:
        """Lowest cosine of a row."""
        return min(float(video.cosines.min()) for video in self.videos)

    @property
    def other_lengths(self) -> list[VideoCosines]:
        """The videos with different numbers of rows in the two files."""
        return [video for video in self.videos if video.ours != video.theirs]

    def worst_rows(self, number: int) -> list[tuple[float, str, int]]:
        """Return (cosine, video, row) of the least similar rows."""
        rows = [(float(c), video.name, row) for video in self.videos for row, c in enumerate(video.cosines)]
        return sorted(rows)[:number]

    def as_json(self) -> dict[str, Any]:
        """Return the comparison as JSON-able values."""
        return {
            "ours": str(self.ours),
            "published": str(self.theirs),
            "mean": self.mean,
            "min": self.lowest,
            "videos": [video.as_json() for video in self.videos],
            "other_lengths": [video.name for video in self.other_lengths],
            "only_ours": self.only_ours,
            "only_published": self.only_theirs,
        }


def compare(ours: Path, theirs: Path, *, progress: Callable[[int], None] | None = None) -> Comparison:
    """Compare two feature files, video by video and row by row; one video is in memory at a time.

    The cosine of rows that are zero in both files is 1, and of rows that are zero in one file 0.

    Args:
        progress: called with 1 for each video done.

    Raises:
        FeatureError: a file cannot be read, or the files have no video in common or different widths.
    """
    with open_hdf5(ours) as file, open_hdf5(theirs) as other:
        a, b = dict(hdf5.datasets(file)), dict(hdf5.datasets(other))
        shared = [name for name in a if name in b]
        if not shared:
            raise FeatureError(
                f"{ours} and {theirs} have no video in common: {listing(a, limit=3)}, and {listing(b, limit=3)}.",
                hint="Videos are compared by name.",
            )
        videos = []
        for name in shared:
            videos.append(_cosines(name, (ours, a[name]), (theirs, b[name])))
            if progress is not None:
                progress(1)
        videos.sort(key=lambda video: (video.mean, video.name))
        return Comparison(ours, theirs, videos, sorted(a.keys() - b.keys()), sorted(b.keys() - a.keys()))


def features_to_compare(
    ours: Path, published: Path, backbones: Sequence[str] = (), *, shard: Shard | None = None
) -> Path:
    """Return the feature file to compare: ``ours``, or the file in that folder with the published file's width.

    Args:
        ours: a feature file or the OUTDIR of an extraction; backbones: those to choose from; default: all.

    Raises:
        FeatureError: not exactly one file has the published file's width, or a file cannot be read.
    """
    if not ours.is_dir():
        return ours
    width = _width(published)
    candidates = [output_path(ours, name, shard) for name in backbones or BACKBONES]
    widths = {path: _width(path) for path in candidates if path.is_file()}
    found = [path for path in widths if widths[path] == width]
    if len(found) != 1:
        present = listing(f"{path.name} ({wide} wide)" for path, wide in widths.items()) or "no feature file"
        raise FeatureError(
            f"{published} is {width} wide; {ours} has {present}.",
            hint="Choose one with --backbone, or give the file itself.",
        )
    return found[0]


def _width(path: Path) -> int:
    with open_hdf5(path) as file:
        for name, node in hdf5.datasets(file):
            if node.ndim != 2:
                raise FeatureError(f"'{name}' in {path} has the shape {node.shape}; features are (frames, dim).")
            return int(node.shape[1])
    raise FeatureError(f"{path} has no features.")


def _cosines(name: str, ours: tuple[Path, h5py.Dataset], theirs: tuple[Path, h5py.Dataset]) -> VideoCosines:
    arrays = []
    for path, node in (ours, theirs):
        array = hdf5.as_float32(hdf5.read_numbers(node, where=f"'{name}' in {path}"))
        if array.ndim != 2 or 0 in array.shape:
            raise FeatureError(f"'{name}' in {path} has the shape {array.shape}; features are (frames, dim).")
        arrays.append(array.astype(np.float64))
    a, b = arrays
    if a.shape[1] != b.shape[1]:
        raise FeatureError(f"'{name}' is {a.shape[1]} wide in {ours[0]} and {b.shape[1]} in {theirs[0]}.")
    rows = min(len(a), len(b))
    x, y = a[:rows], b[:rows]
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    both_zero = ~x.any(axis=1) & ~y.any(axis=1)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        cosines = np.where(norms > 0, (x * y).sum(axis=1) / norms, both_zero.astype(np.float64))
    cosines = np.where(np.isfinite(cosines), np.clip(cosines, -1, 1), -1.0)  # NaN and infinity count as least similar
    return VideoCosines(name, cosines, len(a), len(b))
