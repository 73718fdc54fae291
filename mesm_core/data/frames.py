"""From seconds to frames: indices of a moment, and the frames drawn inside and outside it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mesm_core.types import Highlights, Query

PAIRS = 2


def frame_range(window: tuple[float, float], *, duration: float, frames: int, clip_len: float) -> tuple[int, int]:
    """Return the inclusive frame indices of a window in seconds, clamped to the video.

    Args:
        window: start and end in seconds; duration: of the video, in seconds; frames: number of frames L.
        clip_len: seconds a frame stands for, or -1 where the frames spread evenly over the duration.

    >>> frame_range((2.0, 5.9), duration=10, frames=10, clip_len=1.0)
    (2, 5)
    >>> frame_range((5.0, 10.0), duration=10, frames=4, clip_len=-1)
    (2, 3)
    """
    start, end = window
    if clip_len > 0:
        first, last = math.floor(start / clip_len), math.floor(end / clip_len)
    else:
        first, last = math.floor(start / duration * frames), math.floor(end / duration * frames)
    last = min(last, frames - 1)
    return min(first, last), last


@dataclass(frozen=True, slots=True)
class FrameLabels:
    """A query's labels on the frames of its video.

    ``inside``: int64 frames of its moments; ``saliency`` (L,) float32; ``positive``, ``negative``: PAIRS frames
    each; ``contrast``: False where no frame lies outside, so that the negatives must not be used.
    """

    inside: np.ndarray
    saliency: np.ndarray
    positive: np.ndarray
    negative: np.ndarray
    contrast: bool


def label_frames(query: Query, *, frames: int, clip_len: float, rng: np.random.Generator) -> FrameLabels:
    """Return a query's frame labels: from its highlights where it has some, else from its windows."""
    if query.highlights is not None and query.highlights.clips:
        return _from_highlights(query.highlights, frames, rng)
    saliency = np.zeros(frames, np.float32)
    for window in query.windows:
        first, last = frame_range(window, duration=query.duration, frames=frames, clip_len=clip_len)
        saliency[first : last + 1] = 1
    inside, outside = np.flatnonzero(saliency), np.flatnonzero(saliency == 0)
    positive = rng.choice(inside, PAIRS, replace=len(inside) < PAIRS)
    if len(outside) == 0:
        return FrameLabels(inside, saliency, positive, np.zeros(PAIRS, np.int64), contrast=False)
    negative = rng.choice(outside, PAIRS, replace=len(outside) < PAIRS)
    return FrameLabels(inside, saliency, positive, negative, contrast=True)


def _from_highlights(highlights: Highlights, frames: int, rng: np.random.Generator) -> FrameLabels:
    """Return labels from annotators' scores (datasets.md, "QVHighlights"): a hard pair and a random pair."""
    # A relevant clip may lie one past the last frame: it counts as the last.
    clips = np.minimum(np.array(highlights.clips, np.int64), frames - 1)
    sums = np.array([sum(scores) for scores in highlights.scores], np.float32)
    saliency = np.zeros(frames, np.float32)
    saliency[clips] = sums
    hard = (clips[sums.argmax()], clips[sums.argmin()])
    outside = np.setdiff1d(np.arange(frames), clips)
    easy = (rng.choice(clips), rng.choice(outside)) if len(outside) else hard
    pairs = np.array([hard, easy], np.int64)
    return FrameLabels(np.unique(clips), saliency, pairs[:, 0], pairs[:, 1], contrast=True)


def draw_masked_words(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return (w,) bool: max(⌊w/3⌋, 1) words drawn without replacement, likelier the higher their weight.

    None is drawn where there is one word at most (mesm-model.md, "Frame-word enhancement").
    """
    count, total = len(weights), weights.sum()
    masked = np.zeros(count, np.bool_)
    if count > 1 and total > 0:
        size = min(max(count // 3, 1), int((weights > 0).sum()))
        masked[rng.choice(count, size, replace=False, p=weights / total)] = True
    return masked
