"""Names of video files."""

from __future__ import annotations

from pathlib import PurePosixPath

VIDEO_SUFFIXES = frozenset(
    (
        ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".flv", ".wmv",
        ".asf", ".3gp", ".ogv", ".gif", ".mxf", ".vob",
    )
)  # fmt: skip


def without_ending(name: str) -> str:
    """Return a video's name without the ending of a video file; other names are returned as they are.

    >>> without_ending("v1.MP4"), without_ending("s30-d52"), without_ending("take.1")
    ('v1', 's30-d52', 'take.1')
    """
    ending = PurePosixPath(name).suffix
    return name.removesuffix(ending) if ending.lower() in VIDEO_SUFFIXES else name
