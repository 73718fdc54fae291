"""Stores finished features, one file per video and backbone, until they are merged into feature files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from mesm_core.files import library_output


class Parts:
    """A folder of finished features; each is written atomically, so a killed extraction loses no finished video.

    Args:
        folder: created if it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def has(self, key: str) -> bool:
        """Return whether the features of a key exist."""
        return self._path(key).is_file()

    def write(self, key: str, features: np.ndarray, about: dict[str, Any]) -> None:
        """Store the features (rows, width) of a key with their metadata.

        Raises:
            OutputError: the features could not be written.
        """
        text = np.frombuffer(json.dumps(about).encode(), np.uint8)
        with library_output(self._path(key)) as file:
            np.savez(file, features=features, about=text)

    def read(self, key: str) -> tuple[np.ndarray, dict[str, Any]] | None:
        """Return the features of a key and their metadata, or None if they are absent or damaged."""
        try:
            with self._path(key).open("rb") as file, np.load(file, allow_pickle=False) as content:
                about: dict[str, Any] = json.loads(content["about"].tobytes())
                features = content["features"]  # bytes if the member is no array
        except Exception:  # NumPy's reader and zipfile's raise anything for a damaged file
            return None
        sound = isinstance(features, np.ndarray) and features.ndim == 2 and features.dtype.kind == "f"
        return (features, about) if sound else None

    def size(self, key: str) -> int:
        """Return the approximate size in bytes of the features of a key."""
        path = self._path(key)
        return path.stat().st_size if path.is_file() else 0

    def remove(self, key: str) -> None:
        """Remove the features of a key."""
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.npz"
