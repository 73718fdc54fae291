"""Whether browsers can play a video file as it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesm_core.video.source import Video

PICTURES = {"yuv420p", "yuvj420p"}
"""Pixel formats that all browsers decode: 8 bits, 4:2:0."""


@dataclass(frozen=True, slots=True)
class Playable:
    """A kind of file that browsers play: its media type, and the codecs that it may contain."""

    media_type: str
    video: frozenset[str]
    audio: frozenset[str]


_MP4 = Playable("video/mp4", frozenset({"h264", "av1"}), frozenset({"aac", "mp3"}))
_WEBM = Playable("video/webm", frozenset({"vp8", "vp9", "av1"}), frozenset({"opus", "vorbis"}))
PLAYABLE = {".mp4": _MP4, ".m4v": _MP4, ".mov": _MP4, ".webm": _WEBM}
"""By suffix. The container must be that of the suffix, too."""
_CONTAINERS = {"video/mp4": "mp4", "video/webm": "webm"}


@dataclass(frozen=True, slots=True)
class Header:
    """What a video's header says.

    ``duration``: seconds, or None; ``width``, ``height``: pixels as stored; ``media_type``: of the file if browsers can
    play it, else None.
    """

    duration: float | None
    width: int
    height: int
    media_type: str | None


def read_header(path: Path) -> Header:
    """Return what a video's header says; no frame is decoded.

    Raises:
        DataError: the file is not a readable video.
    """
    with Video(path) as video:
        return Header(video.header_duration, video.width, video.height, _media_type(path, video))


def _media_type(path: Path, video: Video) -> str | None:
    kind = PLAYABLE.get(path.suffix.lower())
    if kind is None or _CONTAINERS[kind.media_type] not in video.container.format.name.split(","):
        return None
    context: Any = video.stream.codec_context
    audio: list[Any] = [stream.codec_context for stream in video.container.streams.audio]
    plays = _codec(context) in kind.video and context.pix_fmt in PICTURES
    return kind.media_type if plays and all(_codec(sound) in kind.audio for sound in audio[:1]) else None


def _codec(context: Any) -> str:
    """Return the name of a codec, whichever decoder is used: ``av1``, not ``libdav1d``."""
    return "" if context is None else str(context.codec.canonical_name)
