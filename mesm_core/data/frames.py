"""Converts windows in seconds to frames, and draws the frames and words of a training step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mesm_core.types import CLIP_SECONDS, Highlights, Query

PAIRS = 2


def frame_range(window: tuple[float, float], *, duration: float, frames: int, clip_len: float) -> tuple[int, int]:
    """Return the inclusive frame indices of a window in seconds, clamped to the video.

    Args:
        window: start and end in seconds; duration: of the video, in seconds; frames: number of frames L.
        clip_len: seconds per frame, or -1 if the frames spread evenly over the duration.

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

    ``inside``: int64 indices of the frames of its moments; ``saliency`` (L,) float32; ``positive``, ``negative``: PAIRS
    frame indices each; ``contrast``: False if no frame lies outside the moments, so there are no valid negatives.
    """

    inside: np.ndarray
    saliency: np.ndarray
    positive: np.ndarray
    negative: np.ndarray
    contrast: bool


def label_frames(query: Query, *, frames: int, clip_len: float, rng: np.random.Generator) -> FrameLabels:
    """Return a query's frame labels, from its highlights if it has any, else from its windows."""
    if query.highlights is not None and query.highlights.clips:
        seconds = clip_len if clip_len > 0 else query.duration / frames
        labels = _from_highlights(query.highlights, frames, seconds, rng)
        if labels is not None:
            return labels
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


def _from_highlights(
    highlights: Highlights, frames: int, seconds: float, rng: np.random.Generator
) -> FrameLabels | None:
    """Return labels from annotators' scores (docs/datasets.md, "QVHighlights"): a hard pair and a random pair.

    Args:
        seconds: duration of a frame; the scores are of clips of two seconds.

    Returns:
        The labels, or None if no frame lies in a relevant clip.
    """
    clip_of = ((np.arange(frames) + 0.5) * seconds / CLIP_SECONDS).astype(np.int64)
    # A relevant clip may lie one past the last frame; it is moved to the last clip.
    clips = np.minimum(np.array(highlights.clips, np.int64), clip_of[-1])
    scores = np.zeros(clip_of[-1] + 1, np.float32)
    relevant = np.zeros(clip_of[-1] + 1, np.bool_)
    scores[clips] = [sum(row) for row in highlights.scores]
    relevant[clips] = True
    saliency, inside, outside = scores[clip_of], *map(np.flatnonzero, (relevant[clip_of], ~relevant[clip_of]))
    if len(inside) == 0:
        return None
    hard = (inside[saliency[inside].argmax()], inside[saliency[inside].argmin()])
    easy = (rng.choice(inside), rng.choice(outside)) if len(outside) else hard
    pairs = np.array([hard, easy], np.int64)
    return FrameLabels(inside, saliency, pairs[:, 0], pairs[:, 1], contrast=True)


def draw_masked_words(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return (w,) bool: max(⌊w/3⌋, 1) words drawn without replacement, in proportion to their weights.

    No word is drawn from a query of one word (docs/model.md, "Frame-word enhancement").
    """
    count, total = len(weights), weights.sum()
    masked = np.zeros(count, np.bool_)
    if count > 1 and total > 0:
        size = min(max(count // 3, 1), int((weights > 0).sum()))
        masked[rng.choice(count, size, replace=False, p=weights / total)] = True
    return masked
