"""Recognises files that are not feature files, such as videos and images, and refuses them with a hint."""

from __future__ import annotations

from pathlib import Path

import h5py

from mesm_core.data.archives import SUFFIXES
from mesm_core.errors import FeatureError
from mesm_core.video.names import VIDEO_SUFFIXES

IMAGE_SUFFIXES = frozenset(".jpg .jpeg .png .bmp .tif .tiff .webp".split())  # noqa: SIM905


def is_array_file(path: Path) -> bool:
    """Return whether the file name ends in .npy or .npz."""
    return path.suffix.lower() in SUFFIXES


def refuse_pictures(path: Path) -> None:
    """Raise FeatureError if ``path`` is a video or an image, whose features must be extracted first."""
    suffix = path.suffix.lower()
    kind = "a video" if suffix in VIDEO_SUFFIXES else "an image" if suffix in IMAGE_SUFFIXES else None
    if kind is not None and not h5py.is_hdf5(path):
        raise FeatureError(
            f"{path} is {kind}, not features: mesm reads features that were extracted from the video's frames, "
            "as .hdf5, .npy or .npz.",
            hint="Extract them with the network whose features the model was trained on: `mesm extract` does this for "
            "CLIP and SlowFast.",
        )


def refuse_other_kinds(path: Path) -> None:
    """Raise FeatureError if ``path`` cannot be an HDF5 file of many videos.

    Raises:
        FeatureError: the file is a video, an image, or the .npy or .npz file of one video.
    """
    refuse_pictures(path)
    if is_array_file(path) and not h5py.is_hdf5(path):
        raise FeatureError(
            f"{path} has the features of one video; training and evaluation read one HDF5 file of all videos.",
            hint="Write it with `mesm prepare npy2hdf5 FOLDER OUT.hdf5`; only `mesm predict` reads .npy and .npz.",
        )
