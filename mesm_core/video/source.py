"""A video file, decoded frame by frame with exact times; damaged packets are skipped and counted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import av.container
import av.video

from mesm_core.errors import DataError

# Video containers. Playlists, image sequences and scripts are excluded, since they may open other files or addresses.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,h264,hevc,m4v,flv,asf,ogg,mxf,gif,nut,rm,dv,"
    "ivf,wtv,vob,av1,obu,mp3,wav,aac,flac"
)
LONGEST_GAP = 3600
"""Longest gap between frames in seconds. A longer one is a damaged timestamp, and would repeat millions of rows."""
# Metadata may be other than UTF-8. From version 19 on, PyAV escapes such bytes and has no such option.
_METADATA: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
CLOCK_UNITS = 1_000_000
"""Units a second of a container's start and duration (AV_TIME_BASE)."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A frame: its index among the decodable frames, its time and duration in seconds, and the picture."""

    index: int
    time: Fraction
    duration: Fraction
    frame: av.VideoFrame


class Video:
    """A video file that is open for reading; use it as a context manager.

    Decodes the first video stream that is not an attached picture. Times are presentation times minus the container's
    start, as in FFmpeg. Frames are returned as stored; their ``rotation`` is how far a player turns them.

    Args:
        path: the file; threads: number of decoder threads, 0 for one per core.

    Raises:
        DataError: the file is missing, is not a video, cannot be opened, or has no video stream.
    """

    def __init__(self, path: Path | str, *, threads: int = 1) -> None:
        self.path = Path(path)
        self._container = _open(self.path)
        pictures = [s for s in self._container.streams.video if s.disposition & av.stream.Disposition.attached_pic]
        streams = [stream for stream in self._container.streams.video if stream not in pictures]
        if not streams:
            kinds = ", ".join(dict.fromkeys(_kind(stream) for stream in self._container.streams)) or "no streams"
            self.close()
            raise DataError(f"{self.path} has no video stream, only: {kinds}.", hint="Give a video file.")
        self.stream = streams[0]
        if getattr(self.stream, "codec_context", None) is None:
            self.close()
            raise DataError(
                f"The video stream of {self.path} has an unknown codec or is damaged.",
                hint="Convert it to H.264 in an .mp4 file with a video tool.",
            )
        self.stream.thread_type = "AUTO" if threads != 1 else "SLICE"
        self.stream.codec_context.thread_count = threads
        self.start = Fraction(self._container.start_time or 0, CLOCK_UNITS)
        self.decoded = 0
        self.skipped_packets = 0
        self.end = Fraction(0)

    @property
    def container(self) -> av.container.InputContainer:
        """The open PyAV container."""
        return self._container

    @property
    def width(self) -> int:
        """Width in pixels of the stored frames, not rotated."""
        return int(self.stream.codec_context.width)

    @property
    def height(self) -> int:
        """Height in pixels of the stored frames, not rotated."""
        return int(self.stream.codec_context.height)

    @property
    def average_rate(self) -> Fraction | None:
        """Frame rate in the header, or None if the header has none."""
        rate = self.stream.average_rate or self.stream.guessed_rate
        return Fraction(rate) if rate else None

    @property
    def header_duration(self) -> float | None:
        """Seconds in the header: of the stream, else of the container, else None. It may be wrong or include audio."""
        if self.stream.duration and self.stream.time_base:
            return float(self.stream.duration * self.stream.time_base)
        return self._container.duration / CLOCK_UNITS if self._container.duration else None

    def seek(self, time: Fraction) -> None:
        """Continue at the last keyframe at or before a time in seconds; without an index, at the beginning."""
        base = Fraction(self.stream.time_base or Fraction(1, 1))
        try:
            self._container.seek(max(int((time + self.start) / base), 0), stream=self.stream, backward=True)
        except (av.FFmpegError, OSError):
            self._container.seek(0)

    def frames(self) -> Iterator[Decoded]:
        """Yield every frame that decodes, in presentation order.

        ``decoded`` then counts the frames and ``skipped_packets`` the damaged packets; ``end`` is the last frame's time
        plus its duration. A frame earlier than the previous one gets the time of that one.

        Raises:
            DataError: a frame is more than an hour after the previous one.
        """
        frame_seconds = 1 / self.average_rate if self.average_rate else Fraction(1, 25)
        last: Fraction | None = None
        # AVI stores no presentation times, and its rate is constant.
        untimed = self._container.format.name == "avi"
        for frame in self._decode():
            base = Fraction(frame.time_base or 1)
            stamp = frame.pts if frame.pts is not None else frame.dts
            guess = Fraction(0) if last is None else last + frame_seconds
            time = guess if stamp is None or untimed else stamp * base - self.start
            if time - (last or 0) > LONGEST_GAP:
                raise DataError(
                    f"{self.path}: frame {self.decoded} is at {float(time):g} s, over an hour after the previous "
                    "frame: its timestamps are damaged.",
                    hint="Rewrite the file with a video tool, e.g. ffmpeg -i IN -c copy OUT.mp4.",
                )
            time = time if last is None else max(time, last)
            duration = frame.duration * base if frame.duration and not untimed else frame_seconds
            last, self.end = time, time + duration
            index, self.decoded = self.decoded, self.decoded + 1
            yield Decoded(index, time, duration, frame)

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _decode(self) -> Iterator[av.VideoFrame]:
        """Yield frames packet by packet, so that decoding continues after a damaged packet."""
        packets = self._container.demux(self.stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (av.FFmpegError, OSError):
                self.skipped_packets += 1  # the file ends in the middle of a packet
                packet = None
            try:
                if packet is None:
                    yield from self.stream.decode(None)
                    return
                yield from packet.decode()
            except av.EOFError:
                return
            except av.FFmpegError:
                self.skipped_packets += 1


def _open(path: Path) -> av.container.InputContainer:
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise DataError(f"No video file at {path}.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    if path.is_dir():
        raise DataError(f"{path} is a folder, not a video file.")
    if path.is_file() and size == 0:
        raise DataError(f"{path} is empty (0 bytes).", hint="Copy or download the video again.")
    # "file:" prevents a name with a colon from being read as an address; only files are opened.
    options = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
    try:
        opened: av.container.InputContainer = av.open(f"file:{os.path.abspath(path)}", options=options, **_METADATA)  # noqa: PTH100
        return opened
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = str(getattr(error, "strerror", None) or error)
        if isinstance(error, PermissionError):
            raise DataError(f"{path} cannot be read: {reason}.") from error
        raise DataError(
            f"{path} is not a video that mesm can read: {reason}.",
            hint="It may be truncated (an .mp4 without its index), damaged, or not a video. "
            "Copy it again, or convert it with a video tool.",
        ) from error


def _kind(stream: object) -> str:
    kind = str(getattr(stream, "type", None) or "data")
    return "an attached picture" if kind == "video" else kind
