"""Reads the features of one video from .npy and .npz files."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from mesm_core.data.kinds import is_array_file, refuse_pictures
from mesm_core.data.npy_files import DEFAULT_KEY, parsed, read_array
from mesm_core.errors import FeatureError, did_you_mean, listing

DURATION_KEY = "duration"


def video_name(paths: Sequence[Path]) -> str | None:
    """Return the stem of the first file as the video's name, or None if it is not a .npy or .npz file.

    Raises:
        FeatureError: a file is a video or an image.

    >>> video_name([Path("clip/s30-d52.avi.npy"), Path("slowfast/s30-d52.avi.npz")])
    's30-d52.avi'
    """
    for path in paths:
        refuse_pictures(path)
    return paths[0].stem if paths and is_array_file(paths[0]) else None


class OneVideo:
    """The features of a video from one or more .npy and .npz files, in the order of concatenation; never unpickles.

    An .npz file has the frames as ``features`` or as its only array, and optionally the ``duration`` in seconds.

    Raises:
        FeatureError: a file is missing, damaged or of another kind.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        other = [path for path in paths if not is_array_file(path)]
        if other:
            raise FeatureError(
                f"{listing(other)}: .npy and .npz files cannot be combined with other kinds of files.",
                hint="Give only HDF5 files, or only .npy and .npz files.",
            )
        self.name = paths[0].stem
        self._names = list(dict.fromkeys(path.stem for path in paths))
        self._where = " + ".join(map(str, paths))
        self._frames = [_frames(path) for path in paths]
        self._duration = next((d for path in paths if (d := _duration(path)) is not None), None)

    def require(self, vids: Iterable[str], *, skippable: bool = True) -> None:
        """Raise FeatureError if a requested video is not the one that the files are named after."""
        for vid in vids:
            if vid not in self._names:
                raise FeatureError(
                    f"{self._where} has the video '{self.name}', not '{vid}'.{did_you_mean(vid, self._names)}",
                    hint="A .npy or .npz file has one video, named like it. For several, use `mesm prepare npy2hdf5`.",
                )

    def raw(self, vid: str) -> list[np.ndarray]:
        """Return the frames (L, D) of each file, float16 or float32.

        Raises:
            FeatureError: ``vid`` is another video.
        """
        self.require([vid])
        return self._frames

    def duration(self, vid: str) -> float | None:
        """Return the duration in seconds stored in an .npz file, or None."""
        self.require([vid])
        return self._duration


def _frames(path: Path) -> np.ndarray:
    if not path.is_file():
        raise FeatureError(f"No feature file at {path}.")
    try:
        return read_array(path, key=_key(path))
    except FeatureError as error:
        raise FeatureError(f"{path} cannot be used: {error.message}.", hint=error.hint) from error


def _key(path: Path) -> str | None:
    """Return the name of the features in an .npz file that may also hold ``duration``, or None for the default."""
    others = [name for name in _members(path) if name != DURATION_KEY]
    if len(others) > 1 and DEFAULT_KEY not in others:
        raise FeatureError(f"it holds several arrays ({listing(others)}), and none is called '{DEFAULT_KEY}'")
    return others[0] if len(others) == 1 else None


def _members(path: Path) -> list[str]:
    if path.suffix.lower() != ".npz":
        return []
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile) as error:
        raise FeatureError(f"it cannot be read ({error})") from error


def _duration(path: Path) -> float | None:
    if DURATION_KEY not in _members(path):
        return None

    def load() -> np.ndarray:
        with np.load(path, allow_pickle=False) as arrays:
            stored: np.ndarray = arrays[DURATION_KEY]
            return stored

    try:
        value = float(parsed(load).reshape(()))
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise FeatureError(f"{path}: '{DURATION_KEY}' is not one number of seconds ({error}).") from error
    if not (value > 0 and math.isfinite(value)):
        raise FeatureError(f"{path}: '{DURATION_KEY}' is {value:g} seconds; it must be positive.")
    return value
