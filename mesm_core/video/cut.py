"""Cuts a clip out of a video: exactly, by re-encoding, or quickly, by copying packets from a keyframe."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
from av.filter import Graph

from mesm_core.errors import DataError, OutputError
from mesm_core.video.scale import filter_graph
from mesm_core.video.source import Video

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
QUALITY = {"crf": "18", "preset": "veryfast"}
PREVIEW = {"crf": "23", "preset": "ultrafast"}
PREVIEW_SIDE = 720
"""Longest short side of a preview in pixels."""
LEAD_SECONDS = 1
"""Seconds before the moment from which audio is decoded: codecs need some samples to settle."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A written clip: its bounds in the source in seconds, and its numbers of frames and audio frames."""

    start: float
    end: float
    frames: int
    audio_frames: int


def container_of(path: Path) -> str:
    """Return FFmpeg's name of the container for a file's suffix.

    Raises:
        OutputError: clips cannot be written to files with this suffix.
    """
    form = CONTAINERS.get(path.suffix.lower())
    if form is None:
        raise OutputError(f"{path}: a clip must be one of {', '.join(CONTAINERS)}.", hint="Choose another suffix.")
    return form


def cut(
    source: Path | str,
    target: Path | str,
    start: float,
    end: float,
    *,
    container: str,
    fast: bool = False,
    preview: bool = False,
) -> Clip:
    """Write the part of a video between two times, its audio included; the clip begins at time 0.

    Keeps the frames with start ≤ time < end, turns them upright, and encodes them as H.264 (CRF 18) with AAC audio.
    ``fast`` copies the packets instead, from the last keyframe before ``start``; the returned clip gives its time.

    Args:
        target: the file to write; the caller handles existing files and failures. start, end: seconds.
        container: FFmpeg's name of the target's container.
        preview: encodes with less quality, and at most 720 pixels on the shorter side, which is faster.

    Raises:
        DataError: the source is not a video, no frame lies between the two times, or they cannot be stored.
    """
    if not 0 <= start < end:
        raise DataError(f"No clip from {start:g} to {end:g} s: it must start at 0 or later, and end after its start.")
    write = _copy if fast else partial(_encode, preview=preview)
    try:
        with Video(source) as video, av.open(str(target), "w", format=container) as output:
            audio = next(iter(video.container.streams.audio), None)
            clip = write(video, audio, output, Fraction(start), Fraction(end))
    except av.FFmpegError as error:
        # Muxers refuse damaged timestamps with EPERM or EINVAL, which is no OSError; the system's errors pass.
        if isinstance(error, OSError) and error.errno != errno.EPERM:
            raise
        what = f"{source}: {start:g} to {end:g} s cannot be stored as {container}; its timestamps may be damaged"
        raise DataError(f"{what} (FFmpeg: {error.strerror}).") from error
    if clip.frames == 0:
        raise DataError(f"{source} has no frame between {start:g} and {end:g} s: it ends at {float(video.end):g} s.")
    return clip


def _encode(video: Video, audio: Any, output: Any, start: Fraction, end: Fraction, *, preview: bool) -> Clip:
    video.seek(start)
    encoder, sound = _VideoEncoder(output, video.average_rate, preview=preview), None
    first: Fraction | None = None
    last: Fraction | None = None
    for decoded in video.frames():
        if decoded.time >= end:
            break
        if decoded.time < start:
            continue
        first = decoded.time if first is None else first
        last = decoded.time + decoded.duration
        encoder.add(decoded.frame, decoded.time - first, decoded.duration)
        if encoder.frames == 1 and audio is not None:
            sound = _AudioEncoder(output, audio)  # streams cannot be added after the first packet
    encoder.finish()
    audio_frames = 0 if first is None or sound is None else sound.copy(video, first, end)
    return Clip(float(first or start), float(last or start), encoder.frames, audio_frames)


class _VideoEncoder:
    """Encodes frames as H.264 with their original timing; all frames are scaled to the size of the first."""

    CLOCK = 90_000

    def __init__(self, output: Any, rate: Fraction | None, *, preview: bool) -> None:
        self._output = output
        self._preview = preview
        self._rate = (rate or Fraction(25)).limit_denominator(1001)
        self._stream: Any = None
        self._graph: Graph | None = None
        self._key: tuple[Any, ...] = ()
        self.frames = 0

    def add(self, frame: av.VideoFrame, time: Fraction, duration: Fraction) -> None:
        key = (frame.width, frame.height, frame.format.name, frame.rotation)
        if self._graph is None or key != self._key:
            self._graph, self._key = self._build(frame), key
        self._graph.vpush(frame)
        upright = self._graph.vpull()
        if self._stream is None:
            self._stream = self._output.add_stream(
                "libx264", rate=self._rate, options=dict(PREVIEW if self._preview else QUALITY)
            )
            self._stream.width, self._stream.height, self._stream.pix_fmt = upright.width, upright.height, "yuv420p"
            self._stream.codec_context.time_base = Fraction(1, self.CLOCK)
        upright.pts, upright.time_base = round(time * self.CLOCK), Fraction(1, self.CLOCK)
        upright.duration = round(duration * self.CLOCK)
        upright.pict_type = 0  # the encoder chooses its own keyframes
        for packet in self._stream.encode(upright):
            self._output.mux(packet)
        self.frames += 1

    def finish(self) -> None:
        if self._stream is not None:
            for packet in self._stream.encode(None):
                self._output.mux(packet)

    def _build(self, frame: av.VideoFrame) -> Graph:
        # H.264 in 4:2:0 has even sides.
        width, height = (self._stream.width, self._stream.height) if self._stream is not None else (None, None)
        share = f"min(1\\,{PREVIEW_SIDE}/min(iw\\,ih))" if self._preview else "1"
        sides = (f"max(trunc({side}*{share}/2)*2\\,2)" for side in ("iw", "ih"))
        even = f"{width}:{height}" if width else ":".join(sides)
        return filter_graph(frame, [("scale", even), ("format", "yuv420p")])


class _AudioEncoder:
    """Encodes the samples between two times as AAC."""

    def __init__(self, output: Any, source: Any) -> None:
        self._output, self._source = output, source
        self._stream = output.add_stream("aac", rate=source.codec_context.sample_rate)
        self._stream.layout = "mono" if source.codec_context.channels == 1 else "stereo"

    def copy(self, video: Video, start: Fraction, end: Fraction) -> int:
        """Encode the samples from ``start`` to ``end``; return the number of audio frames written."""
        rate = self._stream.codec_context.sample_rate
        resampler = av.AudioResampler(format="fltp", layout=self._stream.layout.name, rate=rate)
        count = 0
        for frame, time in self._samples(video, start, end):
            for part in resampler.resample(frame):
                part.pts = max(round((time - start) * rate), 0)
                part.time_base = Fraction(1, rate)
                time += Fraction(part.samples, rate)
                count += self._encode(part)
        return count + self._encode(None)

    def _encode(self, frame: Any) -> int:
        packets = self._stream.encode(frame)
        for packet in packets:
            self._output.mux(packet)
        return len(packets)

    def _samples(self, video: Video, start: Fraction, end: Fraction) -> Iterator[tuple[Any, Fraction]]:
        """Yield the source's audio frames that begin between the two times, in seconds of the video."""
        video.seek(max(start - LEAD_SECONDS, Fraction(0)))
        for packet in video.container.demux(self._source):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                continue
            for frame in frames:
                if frame.pts is None:
                    continue
                time = frame.pts * Fraction(frame.time_base) - video.start
                if time >= end:
                    return
                if time >= start:
                    yield frame, time


def _copy(video: Video, audio: Any, output: Any, start: Fraction, end: Fraction) -> Clip:
    video.seek(start)
    streams = [stream for stream in (video.stream, audio) if stream is not None]
    try:
        copies = {stream.index: output.add_stream_from_template(stream) for stream in streams}
    except (ValueError, av.FFmpegError) as error:
        codecs = " and ".join(stream.codec_context.name for stream in streams)
        raise OutputError(
            f"{codecs} cannot be copied into {output.format.name}: {error}.", hint="Leave out --fast to encode again."
        ) from error
    first: Fraction | None = None
    last = start
    counts = dict.fromkeys(copies, 0)
    latest = dict.fromkeys(copies, Fraction(-1))
    ended: set[int] = set()
    held: list[Any] = []
    for packet in video.container.demux(*streams):
        number = packet.stream_index
        if packet.dts is None or packet.pts is None or number in ended:
            continue
        time = packet.pts * Fraction(packet.time_base) - video.start
        # Frames are stored before those that are predicted from them, so the first one past the end may be needed.
        if latest[number] >= end and time > latest[number]:
            ended.add(number)
            if len(ended) == len(copies):
                break
            continue
        latest[number] = max(latest[number], time)
        if first is None and not (number == video.stream.index and packet.is_keyframe):
            held.append(packet)  # audio before the first keyframe, whose time may be later
            continue
        first = time if first is None else first
        for ready in (*held, packet):
            time = ready.pts * Fraction(ready.time_base) - video.start
            if time >= first:
                counts[ready.stream_index] += 1
                last = max(last, time) if ready.stream_index == video.stream.index else last
                _shift(ready, first + video.start, copies[ready.stream_index])
                output.mux(ready)
        held = []
    frame_seconds = 1 / video.average_rate if video.average_rate else Fraction(0)
    audio_frames = counts[audio.index] if audio is not None else 0
    return Clip(
        float(start if first is None else first), float(last + frame_seconds), counts[video.stream.index], audio_frames
    )


def _shift(packet: Any, origin: Fraction, stream: Any) -> None:
    ticks = round(origin / Fraction(packet.time_base))
    packet.pts -= ticks
    packet.dts -= ticks
    packet.stream = stream
