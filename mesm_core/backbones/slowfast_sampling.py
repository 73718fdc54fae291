"""Samples the frames of a video for SlowFast features, exactly as HERO does.

Source: linjieli222/HERO_Video_Feature_Extractor, slowfast/extract_feature. The published features of Charades-STA and
QVHighlights were sampled in this way; other sampling gives other features.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from mesm_core.errors import FeatureError

RATE = 30
"""Frame rate at which videos are divided into windows."""
FAST_FRAMES = 32
REACH = 64
"""Number of frames of the source, at its own rate, that the samples of a window should cover."""
SLOW_INDEX = (0, 4, 8, 13, 17, 22, 26, 31)
"""Samples that the slow pathway sees: 8 of 32, evenly spaced and rounded down, not every fourth."""


def sample_index(window: int, frame_rate: float) -> np.ndarray:
    """Return the 32 frames (32,) int64 of a window of ``window`` frames at 30 frames a second.

    The samples are spaced for a source of ``frame_rate``, rounded down, as HERO does. So a window of one second of a
    30-fps video repeats its last frame 17 times, and one of a 15-fps video of two seconds covers only its first half.

    >>> sample_index(60, 30)[-5:].tolist()
    [54, 56, 58, 59, 59]
    """
    end = REACH * math.floor(frame_rate) / RATE - 1
    index: np.ndarray = np.clip(np.linspace(0, end, FAST_FRAMES), 0, window - 1).astype(np.int64)
    return index


class WindowSampler:
    """Cuts a video's frames at 30 a second into windows without overlap, and samples 32 frames of each.

    The last frame is repeated to fill a second, then the last second to fill a window. There are as many windows as
    rows of ``clip_len`` seconds, including the last incomplete one.

    Args:
        clip_len: seconds per window, a whole number; frame_rate: of the source.

    Raises:
        FeatureError: ``clip_len`` is not a whole number of seconds.
    """

    def __init__(self, clip_len: Fraction, *, frame_rate: float) -> None:
        if clip_len.denominator != 1 or clip_len < 1:
            raise FeatureError(
                f"Rows of slowfast-r50 last whole seconds, not {float(clip_len):g} s.",
                hint="Use --clip-len 1 or 2.",
            )
        self._window = RATE * int(clip_len)
        self._clip_len = float(clip_len)
        self._index = sample_index(self._window, frame_rate)
        self._frames: list[np.ndarray] = []
        self._yielded = 0

    def push(self, picture: np.ndarray) -> Iterator[np.ndarray]:
        """Take the next frame (S, S, 3) uint8 RGB; if it completes a window, yield its sample (32, S, S, 3)."""
        self._frames.append(picture)
        if len(self._frames) == self._window:
            yield self._sample()

    def finish(self, duration: float) -> Iterator[np.ndarray]:
        """Yield a padded sample if the duration requires one more row; ``duration`` in seconds."""
        if self._frames and self._yielded < math.ceil(duration / self._clip_len):
            self._frames += [self._frames[-1]] * (-len(self._frames) % RATE)
            while len(self._frames) < self._window:
                self._frames += self._frames[-RATE:]
            yield self._sample()

    def _sample(self) -> np.ndarray:
        sample = np.stack([self._frames[index] for index in self._index])
        self._frames = []
        self._yielded += 1
        return sample
