"""One frame of a video as a small JPEG picture."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
from av.codec import CodecContext

from mesm_core.errors import DataError
from mesm_core.video.scale import filter_graph
from mesm_core.video.source import Decoded, Video

MOST_FRAMES = 600
"""Frames decoded after the keyframe; with longer distances between keyframes, the picture is an earlier one."""
QUALITY = "4"
"""Quantiser of MJPEG: 2 is the best, 31 the worst."""


def jpeg_at(path: Path | str, time: float, *, width: int) -> bytes:
    """Return the frame shown at a time as a JPEG picture, upright and scaled to a width in pixels.

    Args:
        time: seconds; after the end it is the last frame.

    Raises:
        DataError: the file is not a video, or no frame can be decoded.
    """
    with Video(path) as video:
        video.seek(Fraction(time))
        shown: Decoded | None = None
        for number, decoded in enumerate(video.frames()):
            if shown is not None and (decoded.time > time or number >= MOST_FRAMES):
                break
            shown = decoded
        if shown is None:
            raise DataError(f"{path}: no frame can be decoded at {time:g} s.")
        return _jpeg(shown.frame, width)


def _jpeg(frame: av.VideoFrame, width: int) -> bytes:
    graph = filter_graph(frame, [("scale", f"{width}:max(trunc(ow/a/2)*2\\,2):out_range=full"), ("format", "yuvj420p")])
    graph.vpush(frame)
    small = graph.vpull()
    encoder = CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = small.width, small.height, "yuvj420p"
    encoder.time_base = Fraction(1, 25)
    encoder.options = {"qmin": QUALITY, "qmax": QUALITY}
    small.pts = 0
    packets = [*encoder.encode(small), *encoder.encode(None)]
    return b"".join(bytes(packet) for packet in packets)
