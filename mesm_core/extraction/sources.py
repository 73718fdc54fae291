"""Video files from folders, patterns and lists, each with a name that its features will have."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mesm_core.caches import hash_file
from mesm_core.errors import DataError, count, did_you_mean, listing
from mesm_core.inputs import read_text, split_lines
from mesm_core.video.names import VIDEO_SUFFIXES

TEXT_SUFFIXES = frozenset((".txt", ".json", ".jsonl", ".csv"))


@dataclass(frozen=True, slots=True)
class VideoFile:
    """A video file and the name of its features, which is the file name without its suffix."""

    name: str
    path: Path


def find_videos(sources: Sequence[str | Path], *, shard: tuple[int, int] = (1, 1)) -> list[VideoFile]:
    """Return the videos in files, folders (searched recursively), patterns and ``.txt`` lists, sorted by name.

    Args:
        shard: (i, n) selects the i-th of n shards of about the same size. A video's shard depends only on its name,
            so it stays the same when other videos are added.

    Raises:
        DataError: a source has no video, or two videos have the same name.
    """
    paths = video_paths(sources)
    by_name: dict[str, Path] = {}
    for path in paths:
        other = by_name.setdefault(path.stem, path)
        if other != path and not other.samefile(path):
            raise DataError(
                f"Two videos have the same name '{path.stem}': {other} and {path}.",
                hint="Features are found by the name of the video: rename one of the files.",
            )
    number, shards = shard
    return [VideoFile(name, by_name[name]) for name in sorted(by_name) if _shard(name, shards) == number]


def video_paths(sources: Sequence[str | Path]) -> list[Path]:
    """Return the video files of sources as for ``find_videos``, each once, in the order given; names may repeat.

    Raises:
        DataError: a source has no video.
    """
    return list(dict.fromkeys(path for source in sources for path in _paths(source)))


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate arguments that name videos from sentences.

    A word is a video if it is an existing file or folder, has the suffix of a video file, or is a path without spaces.
    A misspelled name of a video is therefore not taken for a sentence.

    >>> split_words(["my holiday.mp4", "a dog barks", "clips/one"])
    (['my holiday.mp4', 'clips/one'], ['a dog barks'])

    Raises:
        DataError: a word is a text file, which may contain queries or paths.
    """
    videos: list[str] = []
    sentences: list[str] = []
    for word in words:
        path = Path(word)
        exists = os.path.exists(word)  # noqa: PTH110 (Path.exists raises for invalid names)
        like_a_path = "/" in word and not any(map(str.isspace, word))
        if exists and path.suffix.lower() in TEXT_SUFFIXES:
            raise DataError(
                f"{word} is a text file: does it contain queries or paths of videos?",
                hint=f"Use --queries {word} or --video {word}.",
            )
        means_video = word.strip() and (exists or like_a_path or path.suffix.lower() in VIDEO_SUFFIXES)
        (videos if means_video else sentences).append(word)
    return videos, sentences


def content_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content.

    Raises:
        DataError: the file cannot be read.
    """
    return hash_file(path, what="video")


def _shard(name: str, shards: int) -> int:
    """Return the number, from 1, of the shard among ``shards`` that a video belongs to."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return 1 + int.from_bytes(digest[:8], "big") % shards


def _paths(source: str | Path) -> list[Path]:
    path = Path(source)
    if path.is_dir():
        found = _in_folder(path)
        if not found:
            raise DataError(
                f"{path} has no videos.", hint=f"Suffixes of video files: {' '.join(sorted(VIDEO_SUFFIXES))}."
            )
        return found
    if path.is_file():
        return _listed(path) if path.suffix == ".txt" else [path]
    matches = sorted(Path(match) for match in glob.glob(str(source), recursive=True))  # noqa: PTH207
    files = [match for match in matches if match.is_file()]
    if not files:
        raise DataError(
            f"No video at {source}.{_near(path)}", hint="Give files, folders, quoted patterns, or a .txt list of paths."
        )
    return files


def _in_folder(folder: Path) -> list[Path]:
    """Return the video files below a folder, sorted."""
    # Unlike rglob, os.walk goes on if a folder disappears while it is searched.
    files = [Path(parent, name) for parent, _, names in os.walk(folder) for name in names]
    return sorted(file for file in files if file.suffix.lower() in VIDEO_SUFFIXES and file.is_file())


def _near(path: Path) -> str:
    """Return a suggestion if the folder of a missing file has a video with a similar name."""
    with suppress(OSError, ValueError):
        names = [file.name for file in path.parent.iterdir() if file.suffix.lower() in VIDEO_SUFFIXES]
        return did_you_mean(path.name, names)
    return ""


def _listed(path: Path) -> list[Path]:
    files = [Path(line.strip()) for line in split_lines(read_text(path, what="list of paths")) if line.strip()]
    # Paths in a list are relative to the list, as paths in a config file are to that file.
    files = [file if file.is_absolute() else path.parent / file for file in files]
    missing = [file for file in files if not file.is_file()]
    if not files:
        raise DataError(f"{path} lists no files.", hint="Write one path of a video per line.")
    if missing:
        raise DataError(f"{path} lists {count(len(missing), 'missing file')}: {listing(missing)}.")
    return files
