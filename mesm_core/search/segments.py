"""Segments of a video: overlapping parts of some seconds, each with one vector for search. NumPy only."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mesm_core.arrays import normalise

SECONDS = 8.0
"""Default length of a segment: about as long as the moments that people describe (8 seconds in Charades-STA)."""
OVERLAP = 0.5
"""Default share of a segment that the next one repeats."""
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Segments:
    """The segments of a video.

    ``vectors``: (n, D) float16, of length 1 except for rounding, or 0 for black frames; ``spans``: (n, 2) float64
    [start, end] in seconds, in rising order.
    """

    vectors: np.ndarray
    spans: np.ndarray

    def __len__(self) -> int:
        return len(self.vectors)


def segment_spans(duration: float, *, seconds: float = SECONDS, overlap: float = OVERLAP) -> np.ndarray:
    """Return the (n, 2) spans of a video's segments.

    All have the same length, and the last one ends with the video. A video that is not longer than a segment is one
    segment.

    Args:
        duration: of the video, seconds: of a segment, both in seconds; overlap: share of a segment, in [0, 1).

    >>> segment_spans(18.0).tolist()
    [[0.0, 8.0], [4.0, 12.0], [8.0, 16.0], [10.0, 18.0]]
    >>> segment_spans(5.0).tolist()
    [[0.0, 5.0]]
    """
    step = seconds * (1 - overlap)
    last = max(duration - seconds, 0.0)
    count = math.ceil(last / step - ROUNDING) + 1
    starts = np.minimum(np.arange(count) * step, last)
    ends = starts + seconds
    ends[-1] = duration
    return np.stack([starts, ends], axis=1)


def pool_segments(
    rows: np.ndarray, *, clip_len: float, duration: float, seconds: float = SECONDS, overlap: float = OVERLAP
) -> Segments:
    """Return a video's segments, each with the mean of its rows, scaled to length 1.

    Rows are scaled to length 1 first. A row belongs to the segments that contain its middle; a segment between two
    middles has the row at its start.

    Args:
        rows: (T, D) features of the video; clip_len: seconds per row.
        duration, seconds, overlap: as for ``segment_spans``.

    >>> pool_segments(np.eye(3), clip_len=4.0, duration=12.0).vectors.tolist()
    [[0.70703125, 0.70703125, 0.0], [0.0, 0.70703125, 0.70703125]]
    """
    spans = segment_spans(duration, seconds=seconds, overlap=overlap)
    frames = normalise(np.asarray(rows, np.float32))  # (T, D)
    edges = np.ceil(spans / clip_len - 0.5).astype(np.int64)  # (n, 2) first row, row after the last
    first = np.clip(edges[:, 0], 0, len(frames) - 1)
    after = np.clip(edges[:, 1], first + 1, len(frames))
    means = np.stack([frames[a:b].mean(axis=0) for a, b in zip(first, after, strict=True)])  # (n, D)
    return Segments(normalise(means).astype(np.float16), spans)
