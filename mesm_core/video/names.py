"""Names of video files."""

from __future__ import annotations

from pathlib import PurePosixPath

VIDEO_SUFFIXES = frozenset(
    (
        ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".flv", ".wmv",
        ".asf", ".3gp", ".ogv", ".gif", ".mxf", ".vob",
    )
)  # fmt: skip


def without_suffix(name: str) -> str:
    """Return a video's name without the suffix of a video file; other names are returned unchanged.

    >>> without_suffix("v1.MP4"), without_suffix("s30-d52"), without_suffix("take.1")
    ('v1', 's30-d52', 'take.1')
    """
    suffix = PurePosixPath(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in VIDEO_SUFFIXES else name
