"""From seconds to frames: indices of a moment, and the frames drawn inside and outside it."""

from __future__ import annotations

import math

import numpy as np

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


def draw_frames(first: int, last: int, frames: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return two frames inside [first, last], two outside, and whether there is an outside.

    Frames are drawn with replacement where there are too few. A moment that covers the whole video has no
    negative frame: frame 0 then stands in and must not be used.
    """
    inside = np.arange(first, last + 1)
    outside = np.concatenate([np.arange(first), np.arange(last + 1, frames)])
    positive = rng.choice(inside, PAIRS, replace=len(inside) < PAIRS)
    if len(outside) == 0:
        return positive, np.zeros(PAIRS, np.int64), False
    return positive, rng.choice(outside, PAIRS, replace=len(outside) < PAIRS), True


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
