"""Reads the pictures of a video row by row, for several backbones in one pass of the decoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from mesm_core.errors import DataError
from mesm_core.video.scale import Interpolation, Scaler
from mesm_core.video.source import Video
from mesm_core.video.times import Chosen, RowClock


@dataclass(frozen=True, slots=True)
class Picture:
    """The picture of a row: its clock and row, the index and time in seconds of its frame, and (S, S, 3) RGB pixels."""

    clock: int
    row: int
    frame: int
    time: Fraction
    pixels: np.ndarray


@dataclass(slots=True)
class Pass:
    """Result of a pass through a video: decoded frames, damaged packets, and the end in seconds.

    ``header_duration``: seconds in the header, or None; ``complete``: True after the last row was yielded.
    """

    frames: int = 0
    skipped_packets: int = 0
    end: Fraction = Fraction(0)
    header_duration: float | None = None
    complete: bool = False


class _SharedFrame:
    """A frame that may be chosen by several clocks, and is scaled at most once."""

    __slots__ = ("_frame", "_pixels")

    def __init__(self, frame: av.VideoFrame) -> None:
        self._frame: av.VideoFrame | None = frame
        self._pixels: np.ndarray | None = None

    def pixels(self, scaler: Scaler) -> np.ndarray:
        if self._pixels is None:
            assert self._frame is not None
            self._pixels = scaler(self._frame)
            self._frame = None
        return self._pixels


def read_rows(
    path: Path | str,
    clip_lens: Sequence[Fraction],
    *,
    size: int = 224,
    interpolation: Interpolation = "bilinear",
    threads: int = 1,
    report: Pass | None = None,
) -> Iterator[Picture]:
    """Yield the pictures of every clock's rows; the video is decoded once, and the rows of each clock come in order.

    Memory does not grow with the length of the video, since frames are released when no row needs them.

    Args:
        clip_lens: seconds per row of each clock.
        size: side of the pictures in pixels; interpolation: of the scaling; threads: of the decoder.
        report: filled while the video is read.

    Raises:
        DataError: the file is not a readable video, or no frame can be decoded.
    """
    scaler = Scaler(size=size, interpolation=interpolation)
    clocks: list[RowClock[_SharedFrame]] = [RowClock(clip_len, at_least_one=True) for clip_len in clip_lens]
    report = report if report is not None else Pass()

    def pictures(number: int, chosen: Iterator[Chosen[_SharedFrame]]) -> Iterator[Picture]:
        for row in chosen:
            yield Picture(number, row.row, row.frame, row.time, row.value.pixels(scaler))

    with Video(path, threads=threads) as video:
        report.header_duration = video.header_duration
        for decoded in video.frames():
            shared = _SharedFrame(decoded.frame)
            for number, clock in enumerate(clocks):
                yield from pictures(number, clock.push(decoded.index, decoded.time, shared))
            report.frames, report.skipped_packets, report.end = video.decoded, video.skipped_packets, video.end
        report.skipped_packets = video.skipped_packets
        if not video.decoded:
            raise DataError(
                f"{path}: no frame can be decoded ({video.skipped_packets} damaged packets).",
                hint="Copy or download the video again.",
            )
        for number, clock in enumerate(clocks):
            yield from pictures(number, clock.finish(video.end))
    report.complete = True
