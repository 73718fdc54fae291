"""Decodes a video file and compares its frames with its header."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from mesm_core.errors import DataError
from mesm_core.video.source import Video
from mesm_core.video.times import RowClock

JITTER = Fraction(2, 1000)
"""Seconds by which the intervals of a constant rate may differ, since containers round times, e.g. to milliseconds."""


@dataclass(frozen=True, slots=True)
class RowTime:
    """A row of features, and the time in seconds and index of its frame."""

    row: int
    time_s: float
    frame: int


@dataclass(frozen=True, slots=True)
class Probe:
    """Properties of a video, found by decoding all of it.

    ``duration_s``: the last frame's time plus its duration, in seconds; ``frame_rate``: mean frames per second;
    ``variable``: whether the intervals between frames differ; ``rotation``: degrees counter-clockwise by which a player
    turns the frames; ``width``, ``height``: pixels as stored; ``frames``: number of decodable frames;
    ``skipped_packets``: number of damaged packets; ``header_duration_s``: duration in the file's header;
    ``streams``: properties of each stream; ``rows``: the frames chosen for rows of features.
    """

    duration_s: float
    frame_rate: float
    variable: bool
    rotation: int
    width: int
    height: int
    frames: int
    skipped_packets: int
    header_duration_s: float | None
    streams: tuple[dict[str, Any], ...]
    rows: tuple[RowTime, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the properties as JSON-able values."""
        return asdict(self)


def probe(
    path: Path | str,
    *,
    clip_len: Fraction | None = None,
    threads: int = 1,
    progress: Callable[[float], None] | None = None,
) -> Probe:
    """Decode a video and return its properties, with its rows of ``clip_len`` seconds if that is given.

    Args:
        progress: called with the time in seconds of each frame.

    Raises:
        DataError: the file is not a readable video, or no frame can be decoded.
    """
    rows: list[RowTime] = []
    clock: RowClock[None] | None = None if clip_len is None else RowClock(clip_len, at_least_one=True)
    with Video(path, threads=threads) as video:
        shortest = longest = first = last = None
        rotation = 0
        for decoded in video.frames():
            if last is None:
                first, rotation = decoded.time, decoded.frame.rotation
            else:
                gap = decoded.time - last
                shortest = gap if shortest is None else min(shortest, gap)
                longest = gap if longest is None else max(longest, gap)
            last = decoded.time
            if clock is not None:
                rows += [RowTime(r.row, float(r.time), r.frame) for r in clock.push(decoded.index, last, None)]
            if progress is not None:
                progress(float(last))
        if first is None or last is None:
            raise DataError(f"{path}: no frame can be decoded ({video.skipped_packets} damaged packets).")
        if clock is not None:
            rows += [RowTime(r.row, float(r.time), r.frame) for r in clock.finish(video.end)]
        jitter = max(JITTER, 2 * Fraction(video.stream.time_base or 0))
        return Probe(
            duration_s=float(video.end),
            frame_rate=_rate(video, first),
            variable=shortest is not None and longest is not None and longest - shortest > jitter,
            rotation=rotation,
            width=video.width,
            height=video.height,
            frames=video.decoded,
            skipped_packets=video.skipped_packets,
            header_duration_s=video.header_duration,
            streams=tuple(_properties(stream) for stream in video.container.streams),
            rows=tuple(rows),
        )


def _rate(video: Video, first: Fraction) -> float:
    """Return the frame rate: that of the header if it agrees with the frames, else the measured one."""
    span = video.end - first
    counted = video.decoded / span if span > 0 else Fraction(0)
    in_header = video.average_rate
    if in_header and counted and abs(in_header - counted) < counted / 100:
        return float(in_header)
    return float(counted)


def _properties(stream: Any) -> dict[str, Any]:
    properties: dict[str, Any] = {"index": stream.index, "type": stream.type or "data"}
    context: Any = getattr(stream, "codec_context", None)
    if context is None:
        return properties
    properties["codec"] = context.name
    if stream.type == "video":
        properties |= {"width": context.width, "height": context.height, "pixel_format": context.pix_fmt}
    elif stream.type == "audio":
        properties |= {"sample_rate": context.sample_rate, "channels": context.channels}
    return properties
