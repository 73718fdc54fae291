"""Prepares frames for networks: scales the short side, crops the centre, converts to RGB.

The arithmetic is that of the published extractors, and the pixels are those of FFmpeg's filter graph with an explicit
interpolation. ``VideoFrame.reformat`` gives other pixels (up to 6 levels), so it is not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import av
import numpy as np
from av.filter import Graph

from mesm_core.errors import DataError

Interpolation = Literal["bilinear", "bicubic"]
Filter = tuple[str, str | None]
"""A filter of FFmpeg and its arguments."""
LONGEST_SIDE = 16384
"""Limit in pixels of the long side of a scaled frame; FFmpeg cannot scale more elongated frames."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """A frame is scaled to ``width`` × ``height``, and a square of ``size`` is cut out at (``x``, ``y``)."""

    width: int
    height: int
    x: int
    y: int
    size: int


def geometry(width: int, height: int, *, size: int = 224) -> Geometry:
    """Return how a frame of ``width`` × ``height`` pixels becomes a square of ``size``.

    Raises:
        DataError: the frame is too elongated to be scaled.

    >>> geometry(480, 270)
    Geometry(width=398, height=224, x=87, y=0, size=224)
    """
    short = min(width, height)
    scaled = (size, height * size // short) if width <= height else (width * size // short, size)
    if max(scaled) > LONGEST_SIDE:
        raise DataError(f"Frames of {width} × {height} pixels are too elongated to be scaled to {size} pixels.")
    return Geometry(*scaled, (scaled[0] - size) // 2, (scaled[1] - size) // 2, size)


class Scaler:
    """Turns decoded frames into (size, size, 3) uint8 RGB pictures; upright, as a player shows them.

    The filter graph is rebuilt when the size, format or rotation of the frames changes.

    Args:
        size: side of the picture in pixels.
        interpolation: ``bilinear``, the default of FFmpeg up to 4.2, which probably made the published features, or
            ``bicubic``, the default of later versions.
    """

    def __init__(self, *, size: int = 224, interpolation: Interpolation = "bilinear") -> None:
        self.size = size
        self.interpolation = interpolation
        self._key: tuple[object, ...] = ()
        self._graph: Graph | None = None

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        """Return the picture of a frame.

        Raises:
            DataError: the frame is too elongated, or FFmpeg cannot scale it.
        """
        key = (frame.width, frame.height, frame.format.name, frame.color_range, frame.colorspace, frame.rotation)
        try:
            if self._graph is None or key != self._key:
                self._graph, self._key = self._build(frame), key
            self._graph.vpush(frame)
            scaled = self._graph.vpull()
        except (av.FFmpegError, ValueError, MemoryError) as error:
            self._graph = None
            description = f"{frame.width} × {frame.height} {frame.format.name}"
            raise DataError(f"A frame ({description}) cannot be scaled: {error}.") from error
        picture: np.ndarray = scaled.to_ndarray()
        return picture

    def _build(self, frame: av.VideoFrame) -> Graph:
        upright = frame.rotation % 180 == 0
        width, height = (frame.width, frame.height) if upright else (frame.height, frame.width)
        target = geometry(width, height, size=self.size)
        return filter_graph(
            frame,
            [
                ("scale", f"{target.width}:{target.height}:flags={self.interpolation}"),
                ("crop", f"{target.size}:{target.size}:{target.x}:{target.y}:exact=1"),
                ("format", "rgb24"),
            ],
        )


def filter_graph(frame: av.VideoFrame, steps: Sequence[Filter]) -> Graph:
    """Return a graph that turns frames like ``frame`` upright and then applies the filters ``steps`` in order."""
    graph = Graph()
    # Colour properties are set here; otherwise FFmpeg rebuilds the graph at the first frame.
    last = graph.add(
        "buffer",
        f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base={frame.time_base}:"
        f"pixel_aspect=1/1:colorspace={int(frame.colorspace)}:range={int(frame.color_range)}",
    )
    for name, arguments in (*rotation_filters(frame.rotation), *steps, ("buffersink", None)):
        node = graph.add(name, arguments) if arguments else graph.add(name)
        last.link_to(node)
        last = node
    graph.configure()
    return graph


def rotation_filters(degrees: int) -> list[Filter]:
    """Return the filters that turn a frame upright, given the counter-clockwise rotation of its display matrix.

    Rotations that are not a multiple of 90 degrees are ignored.

    >>> rotation_filters(-90), rotation_filters(0)
    ([('transpose', 'clock')], [])
    """
    turns: dict[int, list[Filter]] = {
        90: [("transpose", "cclock")],
        180: [("hflip", None), ("vflip", None)],
        270: [("transpose", "clock")],
    }
    return turns.get(degrees % 360, [])
