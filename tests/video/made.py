"""Small videos made for tests: every frame shows its own number as a level of grey."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

CLOCK = 90_000


def make_video(
    path: Path,
    times: Sequence[Fraction],
    *,
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    sound: bool = False,
    gop: int = 12,
    pictures: Sequence[np.ndarray] | None = None,
) -> Path:
    """Write frames at the given times in seconds; the suffix of the file determines the container.

    Args:
        pictures: (height, width, 3) uint8, one a frame; default: grey, a level a frame.
    """
    clock = 25 if path.suffix == ".avi" else CLOCK  # AVI counts frames
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, pixel_format
        stream.codec_context.gop_size = gop
        if codec == "libx264":
            stream.options = {"sc_threshold": "0"}  # keyframes at the group's length only
        stream.codec_context.time_base = Fraction(1, clock)
        audio = output.add_stream("aac", rate=16_000) if sound else None
        if audio is not None:
            audio.layout = "mono"
        for number, time in enumerate(times):
            picture = np.full((size[1], size[0], 3), 40 + number % 200, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture if pictures is None else pictures[number], format="rgb24")
            frame.pts, frame.time_base = round(time * clock), Fraction(1, clock)
            _mux(output, stream.encode(frame))
        _mux(output, stream.encode(None))
        if audio is not None:
            _write_sound(output, audio, seconds=float(times[-1]) + 0.04)
    return path


def constant(rate: Fraction | int, frames: int, *, start: Fraction = Fraction(0)) -> list[Fraction]:
    """Return the times of ``frames`` frames at a constant rate."""
    return [start + Fraction(number) / rate for number in range(frames)]


def aged(path: Path) -> Path:
    """Make a file an hour old, so that notes about it are stored."""
    then = time.time() - 3600
    os.utime(path, (then, then))
    return path


def film(path: Path, seconds: int = 8, *, rate: int = 5, **options: Any) -> Path:
    """Make an hour-old video whose picture changes every second."""
    levels = np.random.default_rng(0).integers(0, 255, (seconds, 1, 1, 3), np.uint8)
    pictures = [np.broadcast_to(levels[frame // rate], (48, 64, 3)).copy() for frame in range(seconds * rate)]
    return aged(make_video(path, constant(rate, seconds * rate), pictures=pictures, **options))


def rotate(path: Path, degrees: int) -> None:
    """Write a rotation (90, 180 or 270, clockwise) into the track header of an .mp4."""
    matrix = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[degrees]
    content = bytearray(path.read_bytes())
    header = content.index(b"tkhd") + 4
    at = header + 40  # version 0: the matrix follows 40 bytes of header
    a, b, c, d = (value << 16 for value in matrix)
    values = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], ">i4")
    content[at : at + 36] = values.tobytes()
    path.write_bytes(content)


def _write_sound(output: Any, stream: Any, *, seconds: float) -> None:
    samples = (0.3 * np.sin(np.arange(int(16_000 * seconds)) * 0.1)).astype(np.float32)
    for first in range(0, len(samples), 1024):
        frame = av.AudioFrame.from_ndarray(samples[None, first : first + 1024], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16_000, first, Fraction(1, 16_000)
        _mux(output, stream.encode(frame))
    _mux(output, stream.encode(None))


def _mux(output: Any, packets: Sequence[Any]) -> None:
    for packet in packets:
        output.mux(packet)
