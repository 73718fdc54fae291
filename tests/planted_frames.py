"""Frames that lean to the vectors of sentences, to try retrievers on without a real CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Planting:
    """How frames are planted. Every vector is of length 1 before it is weighed, and frames are sums of them.

    ``lean``: least and greatest weight of a sentence's vector inside its moment, drawn once a moment; ``gaps``: share
    of frames inside that do not lean; ``distractors``: share of frames outside that lean as much, in runs of one to
    three. What has nothing to do with the sentences: ``video``: weight of a vector that all frames share;
    ``scene``: of one that a stretch of frames shares; ``noise``: of each frame's own. Stretches end where a moment
    starts or ends, but for ``jitter`` seconds (standard deviation), and by chance every ``cut`` seconds.
    """

    lean: tuple[float, float] = (0.02, 0.08)
    gaps: float = 0.2
    distractors: float = 0.08
    video: float = 1.0
    scene: float = 0.5
    noise: float = 0.3
    jitter: float = 0.5
    cut: float = 10.0


def plant(
    vectors: np.ndarray,
    windows: Sequence[Sequence[tuple[float, float]]],
    duration: float,
    *,
    rate: float,
    rng: np.random.Generator,
    planting: Planting,
) -> np.ndarray:
    """Return a video's frames (L, D) float32.

    Args:
        vectors: (n, D) sentences of length 1; windows: where each happens, in seconds, once or more.
        rate: frames a second.
    """
    length, dim = max(round(duration * rate), 2), vectors.shape[1]
    times = (np.arange(length) + 0.5) / length * duration
    frames = planting.video * unit(rng.normal(size=dim)) + planting.noise * unit(rng.normal(size=(length, dim)))
    exact = np.array([edge for own in windows for window in own for edge in window])
    edges = exact + planting.jitter * rng.normal(size=exact.shape)
    chance = rng.uniform(0, duration, size=rng.poisson(duration / planting.cut))
    stretch = np.searchsorted(np.sort(np.concatenate([edges, chance])), times)
    frames += planting.scene * unit(rng.normal(size=(stretch.max() + 1, dim)))[stretch]
    for vector, own in zip(vectors, windows, strict=True):
        inside = np.any([(times >= start) & (times < end) for start, end in own], axis=0)
        leaning = (inside & (rng.random(length) >= planting.gaps)) | (
            ~inside & _runs(length, planting.distractors, rng)
        )
        frames += rng.uniform(*planting.lean) * leaning[:, None] * vector
    return frames.astype(np.float32)


def sliding_maximum(similarity: np.ndarray, duration: float, lengths: Sequence[float]) -> tuple[float, float]:
    """Return the window [start s, end s] of the greatest mean similarity; every start, and every length in seconds."""
    best, found = -np.inf, (0.0, duration)
    sums = np.concatenate([[0.0], np.cumsum(similarity)])
    second = duration / len(similarity)
    for length in lengths:
        count = min(max(round(length / second), 1), len(similarity))
        means = (sums[count:] - sums[:-count]) / count
        at = int(means.argmax())
        if means[at] > best:
            best, found = float(means[at]), (at * second, (at + count) * second)
    return found


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return the vectors scaled to length 1."""
    scaled: np.ndarray = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return scaled


def _runs(length: int, share: float, rng: np.random.Generator) -> np.ndarray:
    chosen = np.zeros(length, bool)
    for start in np.flatnonzero(rng.random(length) < share / 2):
        chosen[start : start + int(rng.integers(1, 4))] = True
    return chosen
