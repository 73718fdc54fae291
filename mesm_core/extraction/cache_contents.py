"""Lists and empties the caches of features, sentences and clips."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mesm_core.caches import CLIPS_BYTES, clips_folder, default_notes
from mesm_core.extraction.cache import default_cache
from mesm_core.places import explained
from mesm_core.text.cache import TextCache, default_cache_path


@dataclass(frozen=True, slots=True)
class CacheSize:
    """A cache: its number of files or sentences, its size, and its limit in bytes, or None for no limit."""

    name: str
    path: Path
    entries: int
    size: int
    limit: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the properties as JSON-able values."""
        return asdict(self) | {"path": str(self.path)}


def list_caches() -> list[CacheSize]:
    """Return the caches of features, of encoded sentences, and of clips and thumbnails.

    Raises:
        OutputError: the text cache is damaged or belongs to another program; ConfigError: the limit is not a number of
            GB.
    """
    return [_features(), _text(), _clips()]


def clear_caches(names: Collection[str], *, older_than: float = 0) -> list[CacheSize]:
    """Empty caches, and return what was removed from each.

    Args:
        names: ``features``, which includes the remembered hashes of files, ``text``, and ``clips``.
        older_than: remove only features that were not used for this many seconds.

    Raises:
        OutputError: a file could not be removed, or the text cache belongs to another program.
    """
    cleared = []
    if "features" in names:
        cache = default_cache()
        removed = cache.clear(older_than=older_than)
        default_notes().clear(older_than=older_than)
        cleared.append(CacheSize("features", cache.folder, len(removed), sum(entry.size for entry in removed)))
    if "text" in names:
        before = _text()
        if before.path.exists():
            TextCache(before.path).clear()
        size = before.size - _text().size
        cleared.append(CacheSize("text", before.path, before.entries, max(size, 0)))
    if "clips" in names:
        before = _clips()
        for path in _files(before.path):
            with explained(path):
                path.unlink(missing_ok=True)
        cleared.append(before)
    return cleared


def _features() -> CacheSize:
    cache = default_cache()
    entries = cache.entries()
    return CacheSize("features", cache.folder, len(entries), sum(entry.size for entry in entries), cache.limit)


def _clips() -> CacheSize:
    folder = clips_folder()
    sizes = []
    for path in _files(folder):
        with suppress(OSError):  # another process removed it
            sizes.append(path.stat().st_size)
    return CacheSize("clips", folder, len(sizes), sum(sizes), CLIPS_BYTES)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*") if path.suffix in {".mp4", ".jpg"}]


def _text() -> CacheSize:
    path = default_cache_path()
    if not path.exists():
        return CacheSize("text", path, 0, 0)
    return CacheSize("text", path, TextCache(path).count(), path.stat().st_size)
