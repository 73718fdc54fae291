"""A cache of video features on disk, of limited size and shared by processes."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mesm_core.caches import cache_folder
from mesm_core.errors import ConfigError
from mesm_core.extraction.parts import Parts
from mesm_core.places import explained

FOLDER = "features"
LIMIT_VARIABLE = "MESM_CACHE_GB"
DEFAULT_GB = 4.0
DAY = 86_400
DRAFT_SECONDS = DAY
"""Age of a temporary file after which its process has certainly ended."""


@dataclass(frozen=True, slots=True)
class CachedFile:
    """A file of the cache: its size in bytes, and when it was last used, in seconds since 1970."""

    path: Path
    size: int
    used: float


class FeatureCache:
    """A least-recently-used cache of features by key, one file each.

    Files are written atomically, and the modification time of a file is the time of its last use. Processes need no
    lock: a key always has the same features, and features that another process removed are extracted again.

    Args:
        folder: created if it does not exist; limit: maximum total size in bytes.
    """

    def __init__(self, folder: Path, *, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        self._parts = Parts(folder)

    def read(self, key: str) -> tuple[np.ndarray, dict[str, Any]] | None:
        """Return the features (rows, width) of a key and the metadata of the video, or None."""
        found = self._parts.read(key)
        if found is None or not _is_sound(*found):
            return None
        with suppress(OSError):
            os.utime(self.folder / f"{key}.npz")
        return found

    def has(self, key: str) -> bool:
        """Return whether there are features of a key, without reading them."""
        return self._parts.has(key)

    def write(self, key: str, features: np.ndarray, about: dict[str, Any]) -> None:
        """Store features, and remove the least recently used ones if the cache is full.

        Raises:
            OutputError: the features could not be written.
        """
        self._parts.write(key, features, about)
        self.trim()

    def trim(self) -> None:
        """Remove the least recently used files until the others fit."""
        kept = sorted(self.entries(), key=lambda entry: entry.used)
        total = sum(entry.size for entry in kept)
        for entry in kept:
            if total <= self.limit:
                break
            with suppress(OSError):
                entry.path.unlink(missing_ok=True)
            total -= entry.size

    def entries(self) -> list[CachedFile]:
        """Return the files of the cache."""
        return list(_files(self.folder, "*.npz"))

    def clear(self, *, older_than: float = 0) -> list[CachedFile]:
        """Remove files that were not used for ``older_than`` seconds, and return them.

        Raises:
            OutputError: a file could not be removed.
        """
        before = time.time() - older_than
        removed = [entry for entry in self.entries() if not older_than or entry.used < before]
        abandoned = [entry for entry in _files(self.folder, ".*.part") if time.time() - entry.used > DRAFT_SECONDS]
        for entry in (*removed, *abandoned):
            with explained(entry.path):
                entry.path.unlink(missing_ok=True)
        return removed


def default_cache() -> FeatureCache:
    """Return the cache in ``$MESM_CACHE/features``, of at most ``$MESM_CACHE_GB`` GB (default 4).

    Raises:
        ConfigError: the variable is not a number of GB; OutputError: the user has no home folder.
    """
    text = os.environ.get(LIMIT_VARIABLE)
    try:
        limit = DEFAULT_GB if not text else float(text)
    except ValueError:
        limit = math.nan
    if not 0 <= limit < math.inf:
        raise ConfigError(f"{LIMIT_VARIABLE} is {text!r}; it must be a number of GB.", hint="For example: 10, or 0.5.")
    return FeatureCache(cache_folder() / FOLDER, limit=int(limit * 1e9))


def _files(folder: Path, pattern: str) -> Iterator[CachedFile]:
    for path in folder.glob(pattern):
        with suppress(OSError):  # another process removed it
            status = path.stat()
            yield CachedFile(path, status.st_size, status.st_mtime)


def _is_sound(features: np.ndarray, about: object) -> bool:
    """Return whether a file was written by this module."""
    if features.ndim != 2 or 0 in features.shape or features.dtype.kind != "f" or not isinstance(about, dict):
        return False
    duration = about.get("duration")
    valid = isinstance(duration, int | float) and 0 < duration < math.inf and isinstance(about.get("warning", ""), str)
    return valid and bool(np.isfinite(features).all())
