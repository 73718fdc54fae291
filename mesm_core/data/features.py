"""Reads video features from HDF5 files with one (frames, dim) dataset per video, normalised and concatenated."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np

from mesm_core import hdf5
from mesm_core.arrays import normalise
from mesm_core.data.kinds import refuse_other_kinds
from mesm_core.data.origin import read_origin
from mesm_core.errors import FeatureError, did_you_mean, listing
from mesm_core.inputs import open_hdf5, reading, shown

LARGEST_VALUE = 1e15
"""Limit of a feature's absolute value: the squares of larger values overflow float32."""


class FeatureStore:
    """Reads a video's features from one or more files; thread-safe.

    Each file's frames are scaled to unit norm, cut to the shortest file and concatenated on the feature axis. Long
    videos are shortened, and the two temporal endpoint channels are appended (docs/model.md, "Video").

    Args:
        paths: HDF5 files in the order of concatenation.
        dim: total width of all files, without the endpoint channels.
        max_frames: longer videos are shortened to this many frames.
        shorten: ``mean`` averages frames into bins, ``first`` keeps the first ones.
        cache_bytes: memory for prepared videos; once it is full, further videos are not cached.
        keep_as: ``float16`` or ``float32``: the precision of prepared frames, cached or not.

    Raises:
        FeatureError: a file is missing or is not HDF5.
    """

    def __init__(
        self,
        paths: Sequence[Path | str],
        *,
        dim: int,
        max_frames: int,
        shorten: str = "mean",
        cache_bytes: float = 0,
        keep_as: str = "float32",
    ) -> None:
        self.paths = tuple(map(Path, paths))
        self.dim = dim
        self._max_frames = max_frames
        self._shorten = shorten
        self._files = [_open(path) for path in self.paths]
        self._sizes = {id(file): _size(file) for file in self._files}  # a damaged file cannot be hashed
        self._lock = threading.Lock()
        self._cache: dict[str, np.ndarray] = {}
        self._stored: dict[str, int] = {}
        self._room = cache_bytes
        self.keep_as = keep_as

    def __contains__(self, vid: str) -> bool:
        return all(hdf5.has_video(file, vid) for file in self._files)

    def missing(self, vids: Iterable[str]) -> list[str]:
        """Return the distinct videos, in order, that any file lacks."""
        return [vid for vid in dict.fromkeys(vids) if vid not in self]

    def require(self, vids: Iterable[str], *, skippable: bool = True) -> None:
        """Raise FeatureError with a list of the videos without features, if there are any.

        Args:
            skippable: the command has --skip-missing.
        """
        wanted = list(dict.fromkeys(vids))
        missing = self.missing(wanted)
        if not missing:
            return
        names = []
        for file in self._files:
            with reading(file.filename, FeatureError):
                names += list(file)
        near = did_you_mean(missing[0], names)
        raise FeatureError(
            f"{len(missing)} of {len(wanted)} videos have no features in {self._names()}: {listing(missing)}.{near}",
            hint="Add them with `mesm prepare npy2hdf5`"
            + (", or use --skip-missing to leave them out." if skippable else "."),
        )

    def get(self, vid: str) -> np.ndarray:
        """Return the video's frames (L, dim + 2) float32, ready for the model.

        Raises:
            FeatureError: the video is missing, damaged, of another width, or has NaN or infinity.
        """
        return with_endpoints(self.frames(vid))

    def length(self, vid: str) -> int:
        """Return the number of frames that ``get`` returns; reads none of them.

        Raises:
            FeatureError: the video is missing or damaged.
        """
        return min(self.stored_length(vid), self._max_frames)

    def frames(self, vid: str) -> np.ndarray:
        """Return the video's frames (L, dim) in ``keep_as``, without the endpoint channels, from the cache if possible.

        Raises:
            FeatureError: as for ``get``.
        """
        with self._lock:
            frames = self._cache.get(vid)
            if frames is None:
                parts = [self._read(file, vid) for file in self._files]
                self._stored[vid] = min(map(len, parts))
                frames = prepare_frames(
                    parts,
                    dim=self.dim,
                    max_frames=self._max_frames,
                    shorten=self._shorten,
                    where=f"Video '{vid}' in {self._names()}",
                ).astype(self.keep_as)
                if frames.nbytes <= self._room:
                    self._room -= frames.nbytes
                    self._cache[vid] = frames
        return frames

    def raw(self, vid: str) -> list[np.ndarray]:
        """Return the video's frames as stored, one (L, D) float32 array per file.

        Raises:
            FeatureError: the video is missing or damaged.
        """
        with self._lock:
            return [self._read(file, vid) for file in self._files]

    def stored_length(self, vid: str) -> int:
        """Return the number of stored frames of the video, before shortening; reads no frames.

        Raises:
            FeatureError: the video is missing or damaged.
        """
        with self._lock:
            if vid not in self._stored:
                self._stored[vid] = min(self._length(file, vid) for file in self._files)
            return self._stored[vid]

    def read_ahead(self, vids: Iterable[str]) -> Iterator[str]:
        """Yield videos after reading them into the cache, until the cache is full.

        Raises:
            FeatureError: as for ``get``.
        """
        for vid in vids:
            self.frames(vid)
            if vid not in self._cache:
                return
            yield vid

    def widths(self) -> list[int]:
        """Return the feature width of the first video of each file, or 0 if it has none; reads no frames.

        Raises:
            FeatureError: a file is damaged.
        """
        with self._lock:
            found = []
            for file in self._files:
                shapes = (node.shape for _, node in hdf5.datasets(file))
                found.append(next((int(shape[1]) for shape in shapes if shape is not None and len(shape) == 2), 0))
            return found

    def duration(self, vid: str) -> float | None:
        """Return the ``duration`` attribute (seconds) of the video's dataset, or None.

        Raises:
            FeatureError: it is not a positive number, or cannot be read.
        """
        for file in self._files:
            node = hdf5.find_video(file, vid)
            if node is None:
                continue
            where = f"The duration of video '{vid}' in {file.filename}"
            with reading(where, FeatureError):
                value = node.attrs.get("duration")
                if value is None:
                    continue
                if not (np.ndim(value) == 0 and 0 < float(value) < np.inf):
                    raise FeatureError(f"{where} is {shown(value)}; it must be a positive number of seconds.")
                return float(value)
        return None

    def origins(self, vid: str) -> list[dict[str, str | int | float]]:
        """Return, for each file, the attributes that record how the video's features were extracted, if present."""
        with self._lock:
            nodes = [hdf5.find_video(file, vid) for file in self._files]
            return [read_origin(node) if isinstance(node, h5py.Dataset) else {} for node in nodes]

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()

    def _read(self, file: h5py.File, vid: str) -> np.ndarray:
        where = f"video '{vid}' in {file.filename}"
        if _size(file) < self._sizes[id(file)]:  # HDF5 would read zeros past the end
            raise FeatureError(
                f"{file.filename} is shorter than when it was opened: another program changed it.",
                hint="Copy or write the file again.",
            )
        node = hdf5.find_video(file, vid)
        if node is None:
            self.require([vid])
        if not isinstance(node, h5py.Dataset):
            raise FeatureError(f"{where} is a group, not a dataset of features.")
        with reading(where, FeatureError, hint="Is the file complete?"):
            shape = node.shape
        if shape is None or len(shape) != 2 or 0 in shape:
            raise FeatureError(f"{where} has shape {shape}; features are (frames, dim).")
        return hdf5.as_float32(hdf5.read_numbers(node, where=where))

    def _length(self, file: h5py.File, vid: str) -> int:
        node = hdf5.find_video(file, vid)
        if isinstance(node, h5py.Dataset) and node.ndim == 2:
            return len(node)
        return len(self._read(file, vid))  # raises the error

    def _names(self) -> str:
        return " + ".join(str(path) for path in self.paths)


def prepare_frames(
    parts: Sequence[np.ndarray], *, dim: int, max_frames: int, shorten: str, where: str, first: int = 0
) -> np.ndarray:
    """Return (L, dim) float32 frames: scaled to unit norm, concatenated and shortened.

    Args:
        parts: one (L, D) array of raw frames per feature file.
        dim: required total width; max_frames, shorten: as for ``FeatureStore``.
        where: names the features, and first: the number of the first frame, in messages.

    Raises:
        FeatureError: a part is not a (frames, dim) array, the width differs, or there are NaN, infinity or values
            beyond ``LARGEST_VALUE``.
    """
    parts = [hdf5.as_float32(part) for part in parts]
    for part in parts:
        if part.ndim != 2 or 0 in part.shape:
            raise FeatureError(f"{where}: the shape is {part.shape}; features are (frames, dim).")
        if not float(np.abs(part).max()) <= LARGEST_VALUE:  # also false for NaN
            bad = int(np.flatnonzero(~(np.abs(part) <= LARGEST_VALUE).all(axis=1))[0])
            what = f"values beyond {LARGEST_VALUE:g}" if np.isfinite(part).all() else "NaN or infinity"
            raise FeatureError(
                f"{where}: the features have {what} (first in frame {first + bad}).",
                hint="Extract the video's features again.",
            )
    length = min(len(part) for part in parts)
    video = np.concatenate([normalise(part[:length]) for part in parts], axis=1)
    if video.shape[1] != dim:
        widths = " + ".join(str(part.shape[1]) for part in parts)
        total = f" = {video.shape[1]}" if len(parts) > 1 else ""
        raise FeatureError(
            f"{where}: the features are {widths}{total} wide, but model.video_dim is {dim}.",
            hint=f"To train on these, use --set model.video_dim={video.shape[1]}; otherwise give the expected files.",
        )
    return {"mean": mean_bins, "first": first_frames}[shorten](video, max_frames)


def mean_bins(video: np.ndarray, max_frames: int) -> np.ndarray:
    """Return (L, D) frames, averaged into exactly ``max_frames`` bins if L is larger.

    Bin edges are round(i·L/max), clamped to L-1; an empty bin takes the frame at its start.

    >>> mean_bins(np.array([[0.0], [2.0], [4.0], [6.0], [100.0]]), 2)
    array([[1.],
           [5.]])
    """
    length = len(video)
    if length <= max_frames:
        return video
    edges = np.minimum(np.round(np.arange(max_frames + 1) * length / max_frames).astype(np.int64), length - 1)
    starts, ends = edges[:-1], edges[1:]
    # reduceat gives an empty segment its start frame; the slice ends the last bin at its own edge.
    sums = np.add.reduceat(video[: max(ends[-1], starts[-1] + 1)], starts, axis=0)
    means: np.ndarray = sums / np.maximum(ends - starts, 1)[:, None].astype(video.dtype)
    return means


def first_frames(video: np.ndarray, max_frames: int) -> np.ndarray:
    """Return the first ``max_frames`` of (L, D) frames."""
    return video[:max_frames]


def with_endpoints(video: np.ndarray) -> np.ndarray:
    """Return (L, D + 2): the frames with their temporal endpoints [t/L, (t+1)/L].

    >>> with_endpoints(np.zeros((2, 0), np.float32))
    array([[0. , 0.5],
           [0.5, 1. ]], dtype=float32)
    """
    edges = np.arange(len(video) + 1, dtype=np.float32) / len(video)
    return np.concatenate([video, edges[:-1, None], edges[1:, None]], axis=1, dtype=np.float32)


def _size(file: h5py.File) -> int:
    return os.fstat(file.id.get_vfd_handle()).st_size


def _open(path: Path) -> h5py.File:
    if not path.is_file():
        raise FeatureError(
            f"No feature file at {path}.",
            hint="Give --features FILE, or write one with `mesm prepare npy2hdf5 FOLDER OUT.hdf5`.",
        )
    refuse_other_kinds(path)
    return open_hdf5(path)
