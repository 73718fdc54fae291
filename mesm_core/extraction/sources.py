"""Video files from folders, patterns and lists, each with a name that its features will have."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mesm_core.errors import DataError, listing
from mesm_core.inputs import read_text, reading, split_lines
from mesm_core.video.names import ENDINGS


@dataclass(frozen=True, slots=True)
class VideoFile:
    """A video file and the name of its features, which is the file's name without its ending."""

    name: str
    path: Path


def find_videos(sources: Sequence[str | Path], *, shard: tuple[int, int] = (1, 1)) -> list[VideoFile]:
    """Return the videos of files, folders (searched with all folders below), patterns and ``.txt`` lists, by name.

    Args:
        shard: (i, n) takes the i-th of n shares of the videos. A video's share follows from its name alone, so that
            it stays the same when other videos are added; the shares are of about the same size.

    Raises:
        DataError: a source has no video, or two videos have one name.
    """
    paths = list(dict.fromkeys(path for source in sources for path in _paths(source)))
    by_name: dict[str, Path] = {}
    for path in paths:
        other = by_name.setdefault(path.stem, path)
        if other != path and not other.samefile(path):
            raise DataError(
                f"Two videos have the name '{path.stem}': {other} and {path}.",
                hint="Features are found by name: rename one of the files.",
            )
    number, count = shard
    return [VideoFile(name, by_name[name]) for name in sorted(by_name) if _share(name, count) == number]


def content_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content.

    Raises:
        DataError: the file cannot be read.
    """
    with reading(path, what="video"), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _share(name: str, count: int) -> int:
    """Return which of ``count`` shares, numbered from 1, a video belongs to."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return 1 + int.from_bytes(digest[:8], "big") % count


def _paths(source: str | Path) -> list[Path]:
    path = Path(source)
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in ENDINGS and p.is_file())
        if not found:
            raise DataError(f"{path} holds no video.", hint=f"Endings of videos: {' '.join(sorted(ENDINGS))}.")
        return found
    if path.is_file():
        return _listed(path) if path.suffix == ".txt" else [path]
    matches = sorted(Path(match) for match in glob.glob(str(source), recursive=True))  # noqa: PTH207
    files = [match for match in matches if match.is_file()]
    if not files:
        raise DataError(f"No video at {source}.", hint="Give files, folders, quoted patterns, or a .txt list of paths.")
    return files


def _listed(path: Path) -> list[Path]:
    files = [Path(line.strip()) for line in split_lines(read_text(path, what="list of paths")) if line.strip()]
    # Paths in a list are relative to the list, as paths in a config file are to that file.
    files = [file if file.is_absolute() else path.parent / file for file in files]
    absent = [file for file in files if not file.is_file()]
    if not files:
        raise DataError(f"{path} lists no files.", hint="Write the path of one video a line.")
    if absent:
        raise DataError(f"{path} lists {len(absent)} files that are not there: {listing(absent)}.")
    return files
