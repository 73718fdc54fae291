"""Selection of videos of an index by id, name, path or pattern."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from mesm_core.errors import DataError, did_you_mean
from mesm_core.search.manifest import IndexedVideo


def select_videos(videos: Mapping[str, IndexedVideo], words: Sequence[str]) -> list[IndexedVideo]:
    """Return the videos that any of the words means, in the order of the index.

    A word is the id of a video, its name, its file name, its path, the path of a folder that contains it, or a pattern
    for its name or for the end of its path: ``v*``, ``films/*.mp4``.

    Raises:
        DataError: a word means no video.
    """
    chosen: set[str] = set()
    for word in words:
        path = str(Path(word).absolute())
        found = {id_ for id_, video in videos.items() if word and _means(video, word, path)}
        if not found:
            names = [name for video in videos.values() for name in (video.name, str(video.path))]
            raise DataError(
                f"No video of the index is '{word}'.{did_you_mean(word, names)}",
                hint="Give an id, a name, a path, a folder or a quoted pattern.",
            )
        chosen |= found
    return [video for id_, video in videos.items() if id_ in chosen]


def _means(video: IndexedVideo, word: str, path: str) -> bool:
    own = str(video.path)
    return (
        word in (video.id, video.name, video.path.name)
        or own == path
        or own.startswith(path.rstrip("/") + "/")
        or fnmatchcase(video.name, word)
        or video.path.match(word)  # where * matches no "/"
    )
